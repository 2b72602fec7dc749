"""PyTorch's operator semantics over jax.numpy: values, statistics and gradients."""

from ._activation import (
    celu as celu,
    elu as elu,
    gelu as gelu,
    glu as glu,
    hardshrink as hardshrink,
    hardsigmoid as hardsigmoid,
    hardswish as hardswish,
    hardtanh as hardtanh,
    leaky_relu as leaky_relu,
    log_sigmoid as log_sigmoid,
    logit as logit,
    mish as mish,
    prelu as prelu,
    relu as relu,
    relu6 as relu6,
    rrelu as rrelu,
    selu as selu,
    sigmoid as sigmoid,
    silu as silu,
    softplus as softplus,
    softshrink as softshrink,
    tanh as tanh,
    threshold as threshold,
)
from ._attention import scaled_dot_product_attention as scaled_dot_product_attention
from ._distance import (
    cdist as cdist,
    cosine_similarity as cosine_similarity,
    pairwise_distance as pairwise_distance,
    pdist as pdist,
    vector_norm as vector_norm,
)
from ._dropout import (
    alpha_dropout as alpha_dropout,
    dropout as dropout,
    feature_shape as feature_shape,
)
from ._embedding import (
    embedding as embedding,
    embedding_bag as embedding_bag,
    embedding_renorm as embedding_renorm,
)
from ._layer_norm import (
    fused_rms_norm as fused_rms_norm,
    group_norm as group_norm,
    instance_norm as instance_norm,
    layer_norm as layer_norm,
    native_group_norm as native_group_norm,
    native_layer_norm as native_layer_norm,
    rms_norm as rms_norm,
)
from ._linear import bilinear as bilinear, linear as linear
from ._norm import batch_norm as batch_norm
from ._pointwise import (
    abs as abs,
    clamp_min as clamp_min,
    straight_through as straight_through,
)
from ._recurrent import (
    gru as gru,
    lstm as lstm,
    rnn_relu as rnn_relu,
    rnn_tanh as rnn_tanh,
)
from ._recurrent_cells import (
    gru_cell as gru_cell,
    lstm_cell as lstm_cell,
    rnn_relu_cell as rnn_relu_cell,
    rnn_tanh_cell as rnn_tanh_cell,
)
from ._softmax import (
    log_softmax as log_softmax,
    log_softmax_at as log_softmax_at,
    safe_softmax as safe_softmax,
    softmax as softmax,
)
