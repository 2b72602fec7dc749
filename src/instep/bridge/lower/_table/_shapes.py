"""Views, joins, copies, casts, new tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .... import ops
from ._random import RANDOM as RANDOM


def _same(input: Any, *args: Any, **kwargs: Any) -> Any:
    """A copy or an alias. A constant stays one, so that it can say what to select."""
    del args, kwargs
    if isinstance(input, np.ndarray):
        return input.astype(jax.dtypes.canonicalize_dtype(input.dtype))
    return input


def _detach(input: Any) -> Any:
    return _same(input) if isinstance(input, np.ndarray) else lax.stop_gradient(input)


def _expand(input: Any, size: Sequence[int], implicit: bool = False) -> Any:
    del implicit
    return ops.expand(input, size)


def _broadcast_tensors(tensors: Sequence[Any]) -> list[Any]:
    shape = np.broadcast_shapes(*(x.shape for x in tensors))
    return [ops.expand(x, shape) for x in tensors]


def _roll(input: Any, shifts: Sequence[int], dims: Sequence[int]) -> Any:
    return jnp.roll(input, tuple(shifts), tuple(dims)) if dims else jnp.roll(input, shifts[0])


def _diag(input: Any, diagonal: int) -> Any:
    embed = input.ndim == 1
    return ops.diag_embed(input, diagonal) if embed else ops.diagonal(input, diagonal)


def _hsplit(input: Any, indices_or_sections: int | Sequence[int]) -> list[Any]:
    return ops.tensor_split(input, indices_or_sections, 0 if input.ndim == 1 else 1)


def _atleast(n: int) -> Callable[..., Any]:
    one = (jnp.atleast_1d, jnp.atleast_2d, jnp.atleast_3d)[n - 1]
    return lambda input: [*map(one, input)] if isinstance(input, list) else one(input)


def _stacked(n: int, dim: int) -> Callable[..., Any]:
    """``cat`` of tensors with ``n`` axes at least; vectors are joined along their one axis."""
    raised = _atleast(n)

    def joined(tensors: Sequence[Any]) -> Any:
        tensors = raised(list(tensors))
        return ops.cat(tensors, min(dim, tensors[0].ndim - 1))

    return joined


def _column_stack(tensors: Sequence[Any]) -> Any:
    return ops.cat([x if x.ndim > 1 else jnp.reshape(x, (-1, 1)) for x in tensors], 1)


def _to_copy(input: Any, *, dtype: Any = None, copy: bool = False) -> Any:
    del copy
    return _same(input) if dtype is None else ops.cast(input, dtype)


def _filled(value: Any) -> Callable[..., Any]:
    """``*_like`` and ``new_*``: in the dtype of the tensor, if not another."""

    def filled(input: Any, *size: Sequence[int], dtype: Any = None) -> Any:
        shape = size[0] if size else input.shape
        return ops.full(shape, value, dtype=input.dtype if dtype is None else dtype)

    return filled


def _long(dtype: Any) -> Any:
    """The schema has the default of these as a number."""
    return np.int64 if isinstance(dtype, int) else dtype


VIEWS: dict[str, Callable[..., Any]] = {
    "as_strided": ops.as_strided,
    "diagonal": ops.diagonal,
    "expand": _expand,
    "narrow": ops.narrow,
    "permute": jnp.transpose,
    "select": ops.select,
    "slice": ops.slice,
    "split": ops.split,
    "split_with_sizes": ops.split,
    "squeeze": ops.squeeze,
    "t": lambda input: jnp.transpose(input),
    "transpose": ops.transpose,
    "unbind": ops.unbind,
    "unfold": ops.tensor_unfold,
    "unsqueeze": jnp.expand_dims,
    "view": jnp.reshape,
    "view_as_complex": ops.view_as_complex,
    "view_as_real": ops.view_as_real,
}
SAME = (
    "alias alias_copy clone contiguous lift lift_fresh lift_fresh_copy resolve_conj resolve_neg"
)

ATEN: dict[str, Callable[..., Any]] = {
    **VIEWS,
    **{f"{name}_copy": rule for name, rule in VIEWS.items()},
    **dict.fromkeys(SAME.split(), _same),
    "_conj": jnp.conj,
    "_conj_copy": jnp.conj,
    "_conj_physical": jnp.conj,
    "_neg_view": jnp.negative,
    "_neg_view_copy": jnp.negative,
    "_reshape_alias": lambda input, size, stride: jnp.reshape(input, size),
    "_reshape_copy": jnp.reshape,
    "_stack": ops.stack,
    "_to_copy": _to_copy,
    "_unsafe_view": jnp.reshape,
    "adjoint": lambda input: jnp.conj(ops.transpose(input, -2, -1)),
    "angle": ops.angle,
    "arange": lambda end, **dtype: ops.arange(0, end, **dtype),
    "arange.start": ops.arange,
    "arange.start_step": ops.arange,
    "atleast_1d": _atleast(1),
    "atleast_2d": _atleast(2),
    "atleast_3d": _atleast(3),
    "block_diag": ops.block_diag,
    "broadcast_tensors": _broadcast_tensors,
    "broadcast_to": ops.expand,
    "cartesian_prod": ops.cartesian_prod,
    "cat": ops.cat,
    "chunk": ops.chunk,
    "column_stack": _column_stack,
    "combinations": ops.combinations,
    "complex": lambda real, imag: lax.complex(*_broadcast_tensors([real, imag])),
    "concat": ops.cat,
    "concatenate": ops.cat,
    "conj": jnp.conj,
    "conj_physical": jnp.conj,
    "copy": lambda input, src: ops.expand(ops.cast(src, input.dtype), input.shape),
    "detach": _detach,
    "detach_": _detach,
    "detach_copy": _detach,
    "diag": _diag,
    "diag_embed": ops.diag_embed,
    "diagflat": lambda input, offset: ops.diag_embed(jnp.reshape(input, -1), offset),
    "dsplit": lambda input, cuts: ops.tensor_split(input, cuts, 2),
    "dstack": _stacked(3, 2),
    "empty": ops.zeros,
    "empty_like": _filled(0),
    "empty_permuted": lambda size, layout, **dtype: ops.zeros(size, **dtype),
    "empty_strided": lambda size, stride, **dtype: ops.zeros(size, **dtype),
    "expand_as": lambda input, other: ops.expand(input, other.shape),
    "eye": ops.eye,
    "fill": lambda input, value: ops.full(input.shape, value, dtype=input.dtype),
    "flatten": ops.flatten,
    "flip": jnp.flip,
    "fliplr": jnp.fliplr,
    "flipud": jnp.flipud,
    "full": ops.full,
    "full_like": lambda input, value, **dtype: _filled(value)(input, **dtype),
    "hsplit": _hsplit,
    "hstack": _stacked(1, 1),
    "imag": jnp.imag,
    "linalg_diagonal": ops.diagonal,
    "linspace": ops.linspace,
    "logspace": ops.logspace,
    "mH": lambda input: jnp.conj(ops.transpose(input, -2, -1)),
    "mT": lambda input: ops.transpose(input, -2, -1),
    "matrix_H": lambda input: jnp.conj(jnp.transpose(input)),
    "meshgrid": ops.meshgrid,
    "moveaxis": ops.movedim,
    "movedim": ops.movedim,
    "new_empty": _filled(0),
    "new_empty_strided": lambda input, size, stride, **dtype: _filled(0)(input, size, **dtype),
    "new_full": lambda input, size, value, **dtype: _filled(value)(input, size, **dtype),
    "new_ones": _filled(1),
    "new_zeros": _filled(0),
    "numpy_T": lambda input: jnp.transpose(input),
    "one_hot": ops.one_hot,
    "ones": ops.ones,
    "ones_like": _filled(1),
    "polar": ops.polar,
    "ravel": lambda input: jnp.reshape(input, -1),
    "real": jnp.real,
    "repeat": ops.repeat,
    "repeat_interleave": ops.repeat_interleave,
    "repeat_interleave.Tensor": lambda repeats, **size: ops.repeat_interleave(
        jnp.arange(repeats.shape[0]), repeats, **size
    ),
    "reshape": jnp.reshape,
    "reshape_as": lambda input, other: jnp.reshape(input, other.shape),
    "roll": _roll,
    "rot90": lambda input, k, dims: jnp.rot90(input, k, tuple(dims)),
    "row_stack": _stacked(2, 0),
    "scalar_tensor": lambda value, **dtype: _filled(value)(ops.zeros(()), **dtype),
    "split_with_sizes_copy": ops.split,
    "stack": ops.stack,
    "swapaxes": ops.transpose,
    "swapdims": ops.transpose,
    "sym_numel": lambda input: input.size,
    "sym_size": lambda input, dim: input.shape[dim],
    "tensor_split.indices": ops.tensor_split,
    "tensor_split.sections": ops.tensor_split,
    "tile": ops.repeat,
    "to.device": lambda input, dtype, copy: ops.cast(input, dtype),
    "to.dtype": lambda input, dtype, copy: ops.cast(input, dtype),
    "to.dtype_layout": _to_copy,
    "to.other": lambda input, other, copy: ops.cast(input, other.dtype),
    "tril": ops.tril,
    "tril_indices": lambda *args, dtype: ops.tril_indices(*args, dtype=_long(dtype)),
    "triu": ops.triu,
    "triu_indices": lambda *args, dtype: ops.triu_indices(*args, dtype=_long(dtype)),
    "type_as": lambda input, other: ops.cast(input, other.dtype),
    "unflatten": ops.unflatten,
    "unsafe_chunk": ops.chunk,
    "unsafe_split": ops.split,
    "unsafe_split_with_sizes": ops.split,
    "view.dtype": ops.view_dtype,
    "view_as": lambda input, other: jnp.reshape(input, other.shape),
    "vsplit": lambda input, cuts: ops.tensor_split(input, cuts, 0),
    "vstack": _stacked(2, 0),
    "zero": lambda input: ops.zeros(input.shape, dtype=input.dtype),
    "zeros": ops.zeros,
    "zeros_like": _filled(0),
}
