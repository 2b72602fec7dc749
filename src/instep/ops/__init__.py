"""PyTorch's operator semantics over jax.numpy: values, statistics and gradients.

An argument without a description is PyTorch's of that name (``input`` is ``self``). Shapes and
dtypes that a family of operators shares are told in the docstring of its file.
"""

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
from ._arithmetic import (
    add as add,
    addcdiv as addcdiv,
    addcmul as addcmul,
    atan2 as atan2,
    copysign as copysign,
    div as div,
    float_power as float_power,
    floor_divide as floor_divide,
    fmod as fmod,
    gcd as gcd,
    hypot as hypot,
    lcm as lcm,
    lerp as lerp,
    mul as mul,
    nextafter as nextafter,
    pow as pow,
    remainder as remainder,
    rsub as rsub,
    sub as sub,
)
from ._attention import (
    scaled_dot_product_attention as scaled_dot_product_attention,
)
from ._avg_pool import (
    avg_pool1d as avg_pool1d,
    avg_pool2d as avg_pool2d,
    avg_pool3d as avg_pool3d,
)
from ._cast import (
    angle as angle,
    cast as cast,
    polar as polar,
    view_as_complex as view_as_complex,
    view_as_real as view_as_real,
    view_dtype as view_dtype,
)
from ._clamp import (
    clamp as clamp,
    clamp_max as clamp_max,
    clamp_min as clamp_min,
    fmax as fmax,
    fmin as fmin,
    maximum as maximum,
    minimum as minimum,
)
from ._comparison import (
    bitwise_and as bitwise_and,
    bitwise_left_shift as bitwise_left_shift,
    bitwise_not as bitwise_not,
    bitwise_or as bitwise_or,
    bitwise_right_shift as bitwise_right_shift,
    bitwise_xor as bitwise_xor,
    eq as eq,
    ge as ge,
    gt as gt,
    heaviside as heaviside,
    isclose as isclose,
    isfinite as isfinite,
    isinf as isinf,
    isnan as isnan,
    isneginf as isneginf,
    isposinf as isposinf,
    isreal as isreal,
    le as le,
    logical_and as logical_and,
    logical_not as logical_not,
    logical_or as logical_or,
    logical_xor as logical_xor,
    lt as lt,
    masked_fill as masked_fill,
    ne as ne,
    signbit as signbit,
    where as where,
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
from ._covariance import (
    corrcoef as corrcoef,
    cov as cov,
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
from ._cumulative import (
    cummax as cummax,
    cummin as cummin,
    cumprod as cumprod,
    cumsum as cumsum,
    cumulative_trapezoid as cumulative_trapezoid,
    diff as diff,
    logcumsumexp as logcumsumexp,
    trapezoid as trapezoid,
)
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
from ._extremum import (
    amax as amax,
    amin as amin,
    aminmax as aminmax,
    argmax as argmax,
    argmin as argmin,
    max as max,
    min as min,
    taken as taken,
)
from ._factors import (
    cholesky_ex as cholesky_ex,
    cholesky_inverse as cholesky_inverse,
    cholesky_solve as cholesky_solve,
    householder_product as householder_product,
    triangular_solve as triangular_solve,
)
from ._fft import (
    fft_fft as fft_fft,
    fft_fft2 as fft_fft2,
    fft_fftn as fft_fftn,
    fft_fftshift as fft_fftshift,
    fft_hfft as fft_hfft,
    fft_hfft2 as fft_hfft2,
    fft_hfftn as fft_hfftn,
    fft_ifft as fft_ifft,
    fft_ifft2 as fft_ifft2,
    fft_ifftn as fft_ifftn,
    fft_ifftshift as fft_ifftshift,
    fft_ihfft as fft_ihfft,
    fft_ihfft2 as fft_ihfft2,
    fft_ihfftn as fft_ihfftn,
    fft_irfft as fft_irfft,
    fft_irfft2 as fft_irfft2,
    fft_irfftn as fft_irfftn,
    fft_rfft as fft_rfft,
    fft_rfft2 as fft_rfft2,
    fft_rfftn as fft_rfftn,
)
from ._grid_sample import (
    affine_grid as affine_grid,
    grid_sample as grid_sample,
)
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
from ._interpolate import (
    interpolate as interpolate,
    resize as resize,
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
from ._layer_norm import (
    fused_rms_norm as fused_rms_norm,
    group_norm as group_norm,
    instance_norm as instance_norm,
    layer_norm as layer_norm,
    native_group_norm as native_group_norm,
    native_layer_norm as native_layer_norm,
    rms_norm as rms_norm,
)
from ._linalg import (
    cholesky as cholesky,
    det as det,
    eigh as eigh,
    eigvalsh as eigvalsh,
    inv as inv,
    logdet as logdet,
    pinv as pinv,
    qr as qr,
    slogdet as slogdet,
    solve as solve,
    solve_triangular as solve_triangular,
    svd as svd,
    svdvals as svdvals,
)
from ._linear import (
    bilinear as bilinear,
    linear as linear,
)
from ._lu import (
    inv_ex as inv_ex,
    lu as lu,
    lu_factor as lu_factor,
    lu_factor_ex as lu_factor_ex,
    lu_solve as lu_solve,
    lu_unpack as lu_unpack,
    solve_ex as solve_ex,
    tensorinv as tensorinv,
)
from ._matmul import (
    addbmm as addbmm,
    addmm as addmm,
    addmv as addmv,
    addr as addr,
    baddbmm as baddbmm,
    bmm as bmm,
    dot as dot,
    inner as inner,
    kron as kron,
    matmul as matmul,
    mm as mm,
    mv as mv,
    outer as outer,
    tensordot as tensordot,
    vdot as vdot,
)
from ._max_pool import (
    max_pool1d as max_pool1d,
    max_pool2d as max_pool2d,
    max_pool3d as max_pool3d,
)
from ._max_unpool import (
    max_unpool as max_unpool,
)
from ._norm import (
    batch_norm as batch_norm,
)
from ._norms import (
    dist as dist,
    linalg_norm as linalg_norm,
    matrix_norm as matrix_norm,
    norm as norm,
    renorm as renorm,
)
from ._pad import (
    pad as pad,
)
from ._pixel_shuffle import (
    channel_shuffle as channel_shuffle,
    pixel_shuffle as pixel_shuffle,
    pixel_unshuffle as pixel_unshuffle,
)
from ._pool_adaptive import (
    adaptive_avg_pool1d as adaptive_avg_pool1d,
    adaptive_avg_pool2d as adaptive_avg_pool2d,
    adaptive_avg_pool3d as adaptive_avg_pool3d,
    adaptive_max_pool1d as adaptive_max_pool1d,
    adaptive_max_pool2d as adaptive_max_pool2d,
    adaptive_max_pool3d as adaptive_max_pool3d,
)
from ._pool_fractional import (
    fractional_max_pool as fractional_max_pool,
)
from ._products import (
    cross as cross,
    linalg_cross as linalg_cross,
    matrix_exp as matrix_exp,
    matrix_power as matrix_power,
    multi_dot as multi_dot,
    trace as trace,
    vecdot as vecdot,
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
from ._reduction import (
    all as all,
    any as any,
    count_nonzero as count_nonzero,
    logsumexp as logsumexp,
    mean as mean,
    nanmean as nanmean,
    nansum as nansum,
    prod as prod,
    sum as sum,
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
    safe_softmax as safe_softmax,
    softmax as softmax,
)
from ._sorting import (
    argsort as argsort,
    kthvalue as kthvalue,
    median as median,
    mode as mode,
    msort as msort,
    nanmedian as nanmedian,
    sort as sort,
    topk as topk,
)
from ._special import (
    digamma as digamma,
    entr as entr,
    erf as erf,
    erfc as erfc,
    erfinv as erfinv,
    i0 as i0,
    i0e as i0e,
    i1 as i1,
    i1e as i1e,
    igamma as igamma,
    igammac as igammac,
    lgamma as lgamma,
    log_ndtr as log_ndtr,
    logaddexp as logaddexp,
    logaddexp2 as logaddexp2,
    mvlgamma as mvlgamma,
    ndtri as ndtri,
    polygamma as polygamma,
    sinc as sinc,
    xlog1py as xlog1py,
    xlogy as xlogy,
    zeta as zeta,
)
from ._statistics import (
    bucketize as bucketize,
    histc as histc,
    nanquantile as nanquantile,
    quantile as quantile,
    searchsorted as searchsorted,
)
from ._stft import (
    istft as istft,
    stft as stft,
)
from ._straight_through import (
    straight_through as straight_through,
)
from ._unary import (
    abs as abs,
    acos as acos,
    acosh as acosh,
    asin as asin,
    asinh as asinh,
    atan as atan,
    atanh as atanh,
    ceil as ceil,
    cos as cos,
    cosh as cosh,
    deg2rad as deg2rad,
    exp as exp,
    exp2 as exp2,
    expm1 as expm1,
    floor as floor,
    frac as frac,
    frexp as frexp,
    log as log,
    log1p as log1p,
    log2 as log2,
    log10 as log10,
    nan_to_num as nan_to_num,
    neg as neg,
    positive as positive,
    rad2deg as rad2deg,
    reciprocal as reciprocal,
    round as round,
    rsqrt as rsqrt,
    sgn as sgn,
    sign as sign,
    sin as sin,
    sinh as sinh,
    sqrt as sqrt,
    square as square,
    tan as tan,
    trunc as trunc,
)
from ._unfold import (
    fold as fold,
    unfold as unfold,
)
from ._variance import (
    std as std,
    std_mean as std_mean,
    var as var,
    var_mean as var_mean,
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
from ._weight_norm import (
    weight_norm as weight_norm,
)
