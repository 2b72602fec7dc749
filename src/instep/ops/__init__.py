"""PyTorch's operator semantics over jax.numpy: values, statistics and gradients."""

from ._conv import (
    conv1d as conv1d,
    conv2d as conv2d,
    conv3d as conv3d,
    conv_tbc as conv_tbc,
)
from ._conv_transpose import (
    conv_transpose1d as conv_transpose1d,
    conv_transpose2d as conv_transpose2d,
    conv_transpose3d as conv_transpose3d,
)
from ._distance import pairwise_distance as pairwise_distance, vector_norm as vector_norm
from ._norm import batch_norm as batch_norm
from ._pointwise import (
    abs as abs,
    clamp_min as clamp_min,
    straight_through as straight_through,
)
from ._softmax import (
    log_softmax as log_softmax,
    log_softmax_at as log_softmax_at,
    softmax as softmax,
)
