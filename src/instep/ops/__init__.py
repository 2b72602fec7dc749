"""PyTorch's operator semantics over jax.numpy: values, statistics and gradients."""

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
