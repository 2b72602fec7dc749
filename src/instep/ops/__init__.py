"""PyTorch's operator semantics over jax.numpy: values, statistics and gradients."""

from ._cast import (
    angle as angle,
    cast as cast,
    polar as polar,
    view_as_complex as view_as_complex,
    view_as_real as view_as_real,
    view_dtype as view_dtype,
)
from ._creation import (
    arange as arange,
    eye as eye,
    full as full,
    linspace as linspace,
    logspace as logspace,
    one_hot as one_hot,
    ones as ones,
    tril_indices as tril_indices,
    triu_indices as triu_indices,
    zeros as zeros,
)
from ._distance import pairwise_distance as pairwise_distance, vector_norm as vector_norm
from ._indexing import (
    gather as gather,
    index as index,
    index_put as index_put,
    index_select as index_select,
    isin as isin,
    masked_scatter as masked_scatter,
    nonzero_static as nonzero_static,
    put as put,
    take as take,
    take_along_dim as take_along_dim,
)
from ._join import (
    block_diag as block_diag,
    cartesian_prod as cartesian_prod,
    cat as cat,
    chunk as chunk,
    combinations as combinations,
    meshgrid as meshgrid,
    repeat_interleave as repeat_interleave,
    split as split,
    stack as stack,
    tensor_split as tensor_split,
    unbind as unbind,
)
from ._norm import batch_norm as batch_norm
from ._pointwise import (
    abs as abs,
    clamp_min as clamp_min,
    straight_through as straight_through,
)
from ._random import (
    bernoulli as bernoulli,
    cauchy as cauchy,
    exponential as exponential,
    geometric as geometric,
    log_normal as log_normal,
    multinomial as multinomial,
    normal as normal,
    uniform as uniform,
)
from ._scatter import (
    diagonal_scatter as diagonal_scatter,
    index_add as index_add,
    index_copy as index_copy,
    index_fill as index_fill,
    index_reduce as index_reduce,
    scatter as scatter,
    scatter_add as scatter_add,
    scatter_reduce as scatter_reduce,
    select_scatter as select_scatter,
    slice_scatter as slice_scatter,
)
from ._softmax import (
    log_softmax as log_softmax,
    log_softmax_at as log_softmax_at,
    softmax as softmax,
)
from ._view import (
    as_strided as as_strided,
    diag_embed as diag_embed,
    diagonal as diagonal,
    expand as expand,
    flatten as flatten,
    movedim as movedim,
    narrow as narrow,
    repeat as repeat,
    select as select,
    slice as slice,
    squeeze as squeeze,
    tensor_unfold as tensor_unfold,
    transpose as transpose,
    tril as tril,
    triu as triu,
    unflatten as unflatten,
)
