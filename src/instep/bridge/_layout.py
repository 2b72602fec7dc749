"""Layouts: the same numbers, arranged as PyTorch and as Flax keep them.

A layout follows from the kind of layer, never from shapes, so a square weight is transposed
like any other. Only axes move and arrays are cut or joined, so every bit survives.

Letters in names: O out, I in, C channels, E embedding, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Layout:
    """A bijection between arrays of a ``state_dict`` and JAX leaves, and its inverse.

    PyTorch: of ``nn.Module.state_dict``. Dtypes and bits stay.

    Args:
      name: as the table prints it.
      to_jax: takes the PyTorch arrays as arguments and returns a tuple of JAX arrays.
      to_torch: its inverse.
    """

    name: str
    to_jax: Callable[..., Arrays]
    to_torch: Callable[..., Arrays]


def one(
    name: str,
    to_jax: Callable[[np.ndarray], np.ndarray],
    to_torch: Callable[[np.ndarray], np.ndarray],
) -> Layout:
    """The layout of one array on each side, of those in ``nn.Module.state_dict``.

    Args:
      name: as the table prints it, shapes in parentheses.
      to_jax: takes the array of PyTorch, of any dtype, to that of JAX; only moves elements.
      to_torch: its inverse.
    """
    return Layout(name, lambda w: (to_jax(w),), lambda w: (to_torch(w),))


SAME = one("same", lambda w: w, lambda w: w)
"""The same shape on both sides: any bias, the weight of ``nn.Embedding``, plain pytrees."""
LINEAR = one("(out, in) -> (in, out)", lambda w: w.T, lambda w: w.T)
"""``nn.Linear``: weight (out, in) is kernel (in, out)."""
CONV = one(
    "(out, in, *kernel) -> (*kernel, in, out)",
    lambda w: np.moveaxis(w, (1, 0), (-2, -1)),
    lambda w: np.moveaxis(w, (-2, -1), (1, 0)),
)
"""``nn.Conv1d/2d/3d``: weight (O, I/groups, *k) is kernel (*k, I/groups, O)."""
CONV_TRANSPOSE = one(
    "(in, out, *kernel) -> (*kernel flipped, in, out)",
    lambda w: _flip(np.moveaxis(w, (0, 1), (-2, -1)), range(w.ndim - 2)),
    lambda w: _flip(np.moveaxis(w, (-2, -1), (0, 1)), range(2, w.ndim)),
)
"""``nn.ConvTranspose1d/2d/3d``: weight (I, O, *k) is kernel (*k, I, O), space flipped."""
CONV_TRANSPOSE_KERNEL = one(
    "(in, out, *kernel) -> (*kernel, out, in)",
    lambda w: np.moveaxis(w, (1, 0), (-2, -1)),
    lambda w: np.moveaxis(w, (-2, -1), (1, 0)),
)
"""``nn.ConvTranspose1d/2d/3d`` with Flax's ``transpose_kernel=True``: (*k, O, I)."""


def flattened(shape: tuple[int, ...], *, transposed: bool = True) -> Layout:
    """``nn.Linear`` after ``nn.Flatten``: features (C, *spatial) become (*spatial, C).

    Args:
      shape: ``(C, *spatial)`` of what was flattened.
      transposed: the JAX side keeps (in, out), as Flax does.
    """
    channels, *spatial = shape
    last = [*range(2, 2 + len(spatial)), 1]
    first = [1 + len(spatial), *range(1, 1 + len(spatial))]

    def to_jax(w_OF):
        w = w_OF.reshape(-1, channels, *spatial).transpose(0, *last)
        w = w.reshape(w_OF.shape[0], -1)
        return w.T if transposed else w

    def to_torch(w):
        w_OF = w.T if transposed else w
        w = w_OF.reshape(-1, *spatial, channels).transpose(0, *first)
        return w.reshape(w_OF.shape[0], -1)

    features = "in, out" if transposed else "out, in"
    return one(f"(out, {shape} flattened) -> ({features}), channels last", to_jax, to_torch)


def heads_in(heads: int) -> Layout:
    """A projection of ``nn.MultiheadAttention`` into ``heads`` H: (H*D, E) is (E, H, D)."""
    return one(
        "(heads*d, in) -> (in, heads, d)",
        lambda w: w.T.reshape(w.shape[1], heads, -1),
        lambda w: w.reshape(w.shape[0], -1).T,
    )


def heads_bias(heads: int) -> Layout:
    """A bias of ``nn.MultiheadAttention``, into ``heads`` H: (H*D,) is (H, D)."""
    return one("(heads*d) -> (heads, d)", lambda b: b.reshape(heads, -1), lambda b: b.ravel())


def heads_out(heads: int) -> Layout:
    """The projection of ``nn.MultiheadAttention`` out of ``heads`` H: (E, H*D) is (H, D, E)."""
    return one(
        "(out, heads*d) -> (heads, d, out)",
        lambda w: w.T.reshape(heads, -1, w.shape[0]),
        lambda w: w.reshape(-1, w.shape[-1]).T,
    )


def rows(parts: int, each: Layout) -> Layout:
    """PyTorch stacks ``parts`` arrays along axis 0; JAX has each alone, in layout ``each``.

    So ``in_proj_weight`` (3E, E) of ``nn.MultiheadAttention`` is three kernels.
    """

    def to_jax(w):
        return tuple(each.to_jax(part)[0] for part in np.split(w, parts))

    def to_torch(*leaves):
        return (np.concatenate([each.to_torch(leaf)[0] for leaf in leaves]),)

    return Layout(f"{parts} stacked, each {each.name}", to_jax, to_torch)


SUM = Layout(
    "sum of both; back (sum, 0)",
    lambda b_i, b_h: (b_i + b_h,),
    lambda b: (b, np.zeros_like(b)),
)


def sum_rows(parts: int) -> Layout:
    """``SUM``, then ``rows``."""
    stacked = rows(parts, SAME)
    return Layout(
        f"sum of both, {parts} stacked; back (sum, 0)",
        lambda b_i, b_h: stacked.to_jax(b_i + b_h),
        lambda *leaves: SUM.to_torch(*stacked.to_torch(*leaves)),
    )


def _gru_to_jax(b_i, b_h):
    (r_i, z_i, n_i), (r_h, z_h, n_h) = np.split(b_i, 3), np.split(b_h, 3)
    return r_i + r_h, z_i + z_h, n_i, n_h


def _gru_to_torch(r, z, n_i, n_h):
    zero = np.zeros_like(r)
    return np.concatenate([r, z, n_i]), np.concatenate([zero, zero, n_h])


GRU_BIASES = Layout("r, z: sum of both; n: each; back (sum, 0)", _gru_to_jax, _gru_to_torch)


def _flip(w: np.ndarray, axes) -> np.ndarray:
    return np.flip(w, tuple(axes))
