"""A call of every operator of our table that PyTorch's own database does not call.

By the operator's full name: its arguments, and by ``named`` those that come by name. Numbers
are the same every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch


class Row(NamedTuple):
    """The arguments of one call."""

    args: tuple[Any, ...]
    named: Mapping[str, Any] = MappingProxyType({})
    first_only: bool = False  # of the results


def rows() -> dict[str, Row]:
    """All calls."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {**_elements(), **_shapes(), **_special(), **_reductions(), **_spatial()}
        return made | {**_layers(), **_recurrent(), **_drawn()}


def f(*shape: int, least: float | None = None) -> torch.Tensor:
    """Floating numbers: normal ones, or in a unit above the least."""
    x = torch.randn(*shape, dtype=torch.float64)
    x = x if least is None else least + torch.rand(*shape, dtype=torch.float64)
    return x.requires_grad_()


def c(*shape: int) -> torch.Tensor:
    """Complex numbers."""
    return torch.randn(*shape, dtype=torch.complex128).requires_grad_()


def i(*shape: int, below: int = 5) -> torch.Tensor:
    """Integers from 0."""
    return torch.randint(below, shape)


def k(x: torch.Tensor) -> torch.Tensor:
    """A constant."""
    return x.detach()


def _row(*args: Any, **named: Any) -> Row:
    return Row(args, named)


def _elements() -> dict[str, Row]:
    unit = {name: _row(f(5, least=-0.5)) for name in ("arcsin", "arccos", "arctanh")}
    any_ = {name: _row(f(5)) for name in ("absolute", "arctan", "arcsinh", "fix", "negative")}
    bits = ("__and__", "__or__", "__xor__", "__lshift__", "__rshift__")
    order = ("less", "less_equal", "greater", "greater_equal", "not_equal")
    mask = torch.tensor([True, False, True])
    return {
        **unit,
        **any_,
        "arccosh": _row(f(5, least=1.1)),
        "arctan2": _row(f(2, 3), f(3)),
        "clip": _row(f(6), -0.5, 0.5),
        "multiply.Tensor": _row(f(2, 3), f(3)),
        **{f"{name}.Tensor": _row(i(6), i(6)) for name in bits},
        **{f"{name}.Tensor": _row(i(3, 6), i(6)) for name in order},
        "where.Scalar": _row(mask, 1.5, 2.5),
        "where.ScalarOther": _row(mask, f(2, 3), 2.5),
        "where.ScalarSelf": _row(mask, 1.5, f(2, 3)),
        "conj": _row(c(3)),
        "_conj": _row(c(3)),
        "_conj_copy": _row(k(c(3))),
        "_conj_physical": _row(c(3)),
        "_neg_view": _row(f(3)),
        "_neg_view_copy": _row(f(3)),
        "to.dtype_layout": _row(f(3), dtype=torch.float32),
        "to.other": _row(f(3), torch.zeros(2, dtype=torch.float32)),
        "type_as": _row(f(3), torch.zeros(2, dtype=torch.float32)),
        "view.dtype": _row(i(3), torch.float64),
        "view_as_complex_copy": _row(k(f(3, 2))),
        "view_as_real_copy": _row(c(3)),
        **{name: _row(f(2, 3)) for name in ("contiguous", "lift", "lift_fresh")},
        **{name: _row(k(f(2, 3))) for name in ("detach", "detach_copy")},
    }


def _shapes() -> dict[str, Row]:
    return {
        "_reshape_alias": _row(f(2, 6), [3, 4], [4, 1]),
        "_reshape_copy": _row(f(2, 6), [3, -1]),
        "_unsafe_view": _row(f(2, 6), [3, 4]),
        "_stack": _row([k(f(2, 3)), k(f(2, 3))], 1),
        "concat": _row([f(2, 3), f(2, 2)], 1),
        "concatenate": _row([f(2, 3), f(2, 2)], -1),
        "row_stack": _row([f(3), f(2, 3)]),
        "adjoint": _row(c(2, 3, 4)),
        "moveaxis.int": _row(f(2, 3, 4), 0, -1),
        "swapaxes": _row(f(2, 3, 4), 0, 2),
        "swapdims": _row(f(2, 3, 4), 1, 2),
        "select_copy.int": _row(f(3, 4), 1, -1),
        "slice_copy.Tensor": _row(f(6, 2), 0, 1, 6, 2),
        "split_copy.Tensor": _row(f(5, 2), 2),
        "unsafe_split_with_sizes": _row(f(5, 2), [2, 3]),
        "tensor_split.indices": _row(f(6, 2), [1, 4]),
        "tensor_split.sections": _row(f(7, 2), 3),
        "arange": _row(5, dtype=torch.float64),
        "arange.start": _row(2, 7),
        "one_hot": _row(i(4), 6),
        "repeat_interleave.Tensor": _row(torch.tensor([2, 0, 3]), output_size=5),
        "scatter.reduce": _row(k(f(3, 4)), 0, i(2, 4, below=3), k(f(2, 4)), reduce="add"),
        "scatter.value_reduce": _row(k(f(3, 4)), 0, i(1, 4, below=3), 2.5, reduce="multiply"),
        "_unsafe_index.Tensor": _row(f(3, 4), [i(2, below=3), None]),
        "_unsafe_index_put": _row(f(3, 4), [torch.tensor([2, 0])], f(2, 4)),
        "sym_numel": _row(f(2, 3)),
        "sym_size.int": _row(f(2, 3), 1),
        "empty.memory_format": _row([2, 3]),
        "empty_like": _row(f(2, 3)),
        "empty_permuted": _row([2, 3], [1, 0]),
        "empty_strided": _row([2, 3], [3, 1]),
        "new_empty": _row(f(2), [2, 3]),
        "new_empty_strided": _row(f(2), [2, 3], [3, 1]),
    }


def _special() -> dict[str, Row]:
    names = "digamma erf erfc exp2 expm1 gammaln i0 log1p psi round sinc"
    return {
        **{f"special_{name}": _row(f(4, least=0.5)) for name in names.split()},
        "special_erfinv": _row(f(4, least=-0.5)),
        "special_logit": _row(f(4, least=0.0)),
        "special_gammainc": _row(k(f(4, least=0.5)), f(4, least=0.5)),
        "special_gammaincc": _row(k(f(4, least=0.5)), f(4, least=0.5)),
        "special_multigammaln": _row(f(4, least=2.0), 3),
        "special_polygamma": _row(2, f(4, least=0.5)),
        "special_xlogy": _row(f(4), f(4, least=0.5)),
        "special_log_softmax": _row(f(2, 4), 1),
        "special_softmax": _row(f(2, 4), 1),
        "special_logsumexp": _row(f(2, 4), [1]),
    }


def _reductions() -> dict[str, Row]:
    square = torch.randn(3, 3, dtype=torch.float64) + 3 * torch.eye(3, dtype=torch.float64)
    moments = ("std.dim", "std_mean.dim", "var.dim", "var_mean.dim")
    areas = ("cumulative_trapezoid.dx", "trapezoid.dx", "trapz.dx")
    symmetric = square + square.T

    def matrix() -> torch.Tensor:
        return square.clone().requires_grad_()

    return {
        **{name: _row(f(3, 4), [1], False, True) for name in moments},
        **{name: _row(f(3, 4), dx=0.5, dim=0) for name in areas},
        "prod.dim_int": _row(f(3, 4), 1),
        "norm.ScalarOpt_dim": _row(f(3, 4), 3, [1], True),
        "sort.stable": _row(f(3, 4), stable=True, dim=0, descending=True),
        "argsort.stable": _row(f(3, 4), stable=True, dim=0),
        "ger": _row(f(3), f(4)),
        **{name: _row(matrix()) for name in ("det", "inverse", "slogdet", "linalg_matrix_exp")},
        "matrix_power": _row(matrix(), 3),
        "linalg_matmul": _row(f(2, 3), f(3, 2)),
        "_linalg_eigh": _row(symmetric, "L", False),
        "_linalg_svd": _row(k(f(3, 2)), True),
        "_linalg_solve_ex": _row(matrix(), f(3, 2)),
        "stft.center": _row(
            f(24), 8, 3, 6, k(f(6)), True, "reflect", True, True, return_complex=True
        ),
        "_fft_c2c": _row(c(3, 4), [0, 1], 2, False),
        "_fft_r2c": _row(f(3, 4), [0, 1], 1, True),
        "_fft_c2r": _row(c(3, 4), [0, 1], 1, 6),
    }


def _spatial() -> dict[str, Row]:
    flags = (False, False, False, True)
    image, volume = (1, 2, 5, 4), (1, 2, 3, 4, 3)
    by_size = {
        "upsample_linear1d": _row(f(1, 2, 5), [8], True),
        "upsample_bilinear2d": _row(f(*image), [7, 3], False),
        "upsample_bicubic2d": _row(f(*image), [7, 3], False),
        "upsample_trilinear3d": _row(f(*volume), [4, 3, 5], False),
        "_upsample_bicubic2d_aa": _row(f(*image), [3, 3], False),
        "_upsample_bilinear2d_aa": _row(f(*image), [3, 3], False),
        "_upsample_lanczos2d_aa": _row(f(*image), [3, 3], False),
        "_upsample_bicubic2d_aa.vec": _row(f(*image), None, False, [0.6, 0.8]),
        "_upsample_lanczos2d_aa.vec": _row(f(*image), None, False, [0.6, 0.8]),
    }
    for name in ("upsample_nearest", "_upsample_nearest_exact"):
        by_size[f"{name}1d"] = _row(f(1, 2, 5), [8])
        by_size[f"{name}2d"] = _row(f(*image), [7, 3])
        by_size[f"{name}2d.vec"] = _row(f(*image), None, [1.5, 0.8])
        by_size[f"{name}3d"] = _row(f(*volume), [4, 3, 5])
        by_size[f"{name}3d.vec"] = _row(f(*volume), None, [1.5, 0.8, 2.0])
    conv = ([2, 1], [1, 0], [1, 1], False, [0, 0], 2)
    pads = {
        f"{name}_pad{n}d": _row(f(1, 2, *(4,) * n), [1, 2] * n)
        for name in ("reflection", "replication")
        for n in (1, 2, 3)
    }
    return {
        **by_size,
        **pads,
        "_pad_circular": _row(f(1, 2, 5), [2, 1]),
        "convolution": _row(f(*image), f(4, 1, 2, 2), f(4), *conv),
        "_convolution": _row(f(*image), f(4, 1, 2, 2), f(4), *conv, *flags),
        "conv_tbc": _row(f(5, 2, 3), f(2, 3, 4), f(4), 1),
        "_adaptive_avg_pool2d": _row(f(*image), [3, 2]),
        "_adaptive_avg_pool3d": _row(f(*volume), [2, 2, 2]),
        "max_pool1d": _row(f(1, 2, 7), [3], [2], [1]),
        "max_pool2d": _row(f(*image), [2, 2], [1, 2]),
        "max_pool3d": _row(f(*volume), [2, 2, 2]),
        "affine_grid_generator": _row(f(1, 2, 3), [1, 2, 3, 4], False),
        "col2im": _row(f(1, 8, 12), [5, 4], [2, 2], [1, 1], [0, 0], [1, 1]),
        "native_channel_shuffle": _row(k(f(1, 6, 2, 2)), 3),
    }


def _layers() -> dict[str, Row]:
    def normed(n: int = 2) -> tuple[torch.Tensor, ...]:
        running = (k(f(3)), k(f(3, least=0.5)))
        return f(4, 3, n), f(3), f(3), *running

    bags = f(6, 3), torch.tensor([1, 2, 4, 5, 0]), torch.tensor([0, 3])
    return {
        "_batch_norm_no_update": _row(*normed(), 0.1, 1e-5),
        "_batch_norm_with_update_functional": _row(*normed(), 0.1, 1e-5),
        "_native_batch_norm_legit.no_stats": _row(*normed()[:3], True, 0.1, 1e-5),
        "_native_batch_norm_legit_no_training": _row(*normed(), 0.1, 1e-5),
        "_fused_rms_norm": _row(f(2, 3, 4), [4], f(4), 1e-5),
        "_weight_norm": _row(f(3, 4), f(3, 1), 0),
        "_softmax": _row(f(2, 3), 1, False),
        "_log_softmax": _row(f(2, 3), 1, False),
        "log_sigmoid_forward": _row(f(4)),
        "_prelu_kernel": _row(f(2, 3, 4), f(1, 3, 1)),
        "_cdist_forward": _row(f(3, 2), f(4, 2), 1.5, None),
        "_euclidean_dist": _row(f(3, 2), f(4, 2)),
        "_pdist_forward": _row(f(4, 2), 2.0),
        "_embedding_bag": Row((*bags, False, 1), first_only=True),
        "_embedding_bag_forward_only": Row((*map(k, bags), False, 0), first_only=True),
    }


def _recurrent() -> dict[str, Row]:
    made = {}
    for name, gates in (("lstm", 4), ("gru", 3), ("rnn_tanh", 1), ("rnn_relu", 1)):
        weights = [f(gates * 2, 3), f(gates * 2, 2), f(gates * 2), f(gates * 2)]
        state = [f(1, 2, 2), f(1, 2, 2)] if name == "lstm" else f(1, 2, 2)
        cell = [f(4, 2), f(4, 2)] if name == "lstm" else f(4, 2)
        flags = (True, 1, 0.0, False, False)
        sizes = torch.tensor([2, 2, 1])
        made[f"{name}.input"] = _row(f(3, 2, 3), state, weights, *flags, False)
        made[f"{name}.data"] = _row(f(5, 3), sizes, state, weights, *flags)
        made[f"{name}_cell"] = _row(f(4, 3), cell, *weights)
    return made


def _drawn() -> dict[str, Row]:
    share = torch.full((3, 4), 0.4, dtype=torch.float64)
    return {
        "bernoulli": _row(share),
        "rand_like": _row(share),
        "randperm": _row(6),
        "native_dropout": _row(f(3, 4), 0.5, True),
        "normal_functional": _row(share, 1.0, 2.0),
        "normal.float_float": _row(1.0, 2.0, [3, 4]),
        "normal.Tensor_float": _row(share, 2.0),
        "rrelu": _row(f(3, 4), 0.1, 0.3, True),
        "rrelu_with_noise_functional": _row(f(3, 4), share, 0.1, 0.3, True),
        "multinomial": _row(share, 2),
        "geometric": _row(share, 0.3),
        **{name: _row(share) for name in ("cauchy", "exponential", "log_normal")},
        **{name: _row(share) for name in ("random", "uniform")},
    }
