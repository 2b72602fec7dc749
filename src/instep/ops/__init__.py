"""PyTorch's operator semantics over jax.numpy: values, statistics and gradients."""

from ._avg_pool import (
    avg_pool1d as avg_pool1d,
    avg_pool2d as avg_pool2d,
    avg_pool3d as avg_pool3d,
)
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
from ._grid_sample import affine_grid as affine_grid, grid_sample as grid_sample
from ._interpolate import interpolate as interpolate, resize as resize
from ._max_pool import (
    max_pool1d as max_pool1d,
    max_pool2d as max_pool2d,
    max_pool3d as max_pool3d,
)
from ._max_unpool import max_unpool as max_unpool
from ._norm import batch_norm as batch_norm
from ._pad import pad as pad
from ._pixel_shuffle import (
    channel_shuffle as channel_shuffle,
    pixel_shuffle as pixel_shuffle,
    pixel_unshuffle as pixel_unshuffle,
)
from ._pointwise import (
    abs as abs,
    clamp_min as clamp_min,
    straight_through as straight_through,
)
from ._pool_adaptive import (
    adaptive_avg_pool1d as adaptive_avg_pool1d,
    adaptive_avg_pool2d as adaptive_avg_pool2d,
    adaptive_avg_pool3d as adaptive_avg_pool3d,
    adaptive_max_pool1d as adaptive_max_pool1d,
    adaptive_max_pool2d as adaptive_max_pool2d,
    adaptive_max_pool3d as adaptive_max_pool3d,
)
from ._pool_fractional import fractional_max_pool as fractional_max_pool
from ._softmax import (
    log_softmax as log_softmax,
    log_softmax_at as log_softmax_at,
    softmax as softmax,
)
from ._unfold import fold as fold, unfold as unfold
