"""Products of matrices and vectors, and what is added to them.

Shapes and dtypes: matrices ``(M, K)`` and vectors ``(K,)``, in a batch ``(B, M, K)``, of one
dtype, which the result has; what is added to a product broadcasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._elementwise import alike, computing


def matmul(input: jax.Array, other: jax.Array) -> jax.Array:
    """``torch.matmul``, of arrays of one dtype; half precision is summed in float32."""
    return jnp.matmul(input, other)


def mm(input: jax.Array, mat2: jax.Array) -> jax.Array:
    """``torch.mm``: ``(M, K)`` times ``(K, N)``."""
    return jnp.matmul(input, mat2)


def bmm(input: jax.Array, mat2: jax.Array) -> jax.Array:
    """``torch.bmm``: ``(B, M, K)`` times ``(B, K, N)``."""
    return jnp.matmul(input, mat2)


def mv(input: jax.Array, vec: jax.Array) -> jax.Array:
    """``torch.mv``: ``(M, K)`` times ``(K,)``."""
    return jnp.matmul(input, vec)


def dot(input: jax.Array, tensor: jax.Array) -> jax.Array:
    """``torch.dot`` of two vectors."""
    return jnp.matmul(input, tensor)


def vdot(input: jax.Array, other: jax.Array) -> jax.Array:
    """``torch.vdot``: ``dot`` with the first one conjugated."""
    return jnp.matmul(jnp.conj(input), other)


def outer(input: jax.Array, vec2: jax.Array) -> jax.Array:
    """``torch.outer`` of two vectors."""
    x, y = alike(jnp.result_type(input, vec2), input[:, None], vec2[None, :])
    return x * y


def inner(input: jax.Array, other: jax.Array) -> jax.Array:
    """``torch.inner``: over the last axes; of an array without axes, the product."""
    if input.ndim == 0 or other.ndim == 0:
        return input * other
    return jnp.inner(input, other)


def tensordot(
    input: jax.Array, other: jax.Array, dims_self: Sequence[int], dims_other: Sequence[int]
) -> jax.Array:
    """``torch.tensordot``, over pairs of axes."""
    x, y = tuple(dims_self), tuple(dims_other)
    for a, b in zip(x, y, strict=True):  # an axis of length 1 is broadcast
        if input.shape[a] != other.shape[b]:
            if input.shape[a] == 1:
                other = jnp.sum(other, b, keepdims=True)
            else:
                input = jnp.sum(input, a, keepdims=True)
    return jnp.tensordot(input, other, (x, y))


def addmm(
    input: jax.Array, mat1: jax.Array, mat2: jax.Array, *, beta: Any = 1, alpha: Any = 1
) -> jax.Array:
    """``torch.addmm``: ``beta * input + alpha * mat1 @ mat2``.

    With ``beta`` of 0 ``input`` is not read.
    """
    return _added(input, jnp.matmul(mat1, mat2), beta, alpha)


def addmv(
    input: jax.Array, mat: jax.Array, vec: jax.Array, *, beta: Any = 1, alpha: Any = 1
) -> jax.Array:
    """``torch.addmv``: ``beta * input + alpha * mat @ vec``."""
    return _added(input, jnp.matmul(mat, vec), beta, alpha)


def addr(
    input: jax.Array, vec1: jax.Array, vec2: jax.Array, *, beta: Any = 1, alpha: Any = 1
) -> jax.Array:
    """``torch.addr``: ``beta * input + alpha * outer(vec1, vec2)``."""
    return _added(input, outer(vec1, vec2), beta, alpha)


def baddbmm(
    input: jax.Array, batch1: jax.Array, batch2: jax.Array, *, beta: Any = 1, alpha: Any = 1
) -> jax.Array:
    """``torch.baddbmm``: ``beta * input + alpha * batch1 @ batch2``."""
    return _added(input, jnp.matmul(batch1, batch2), beta, alpha)


def addbmm(
    input: jax.Array, batch1: jax.Array, batch2: jax.Array, *, beta: Any = 1, alpha: Any = 1
) -> jax.Array:
    """``torch.addbmm``: ``baddbmm`` summed over the batch."""
    return _added(input, jnp.einsum("bik,bkj->ij", batch1, batch2), beta, alpha)


def kron(input: jax.Array, other: jax.Array) -> jax.Array:
    """``torch.kron``."""
    x, y = alike(jnp.result_type(input, other), input, other)
    apart = [n for i in range(x.ndim) for n in (x.shape[i], 1)]
    inside = [n for i in range(y.ndim) for n in (1, y.shape[i])]
    shape = [a * b for a, b in zip(x.shape, y.shape, strict=True)]
    return (x.reshape(apart) * y.reshape(inside)).reshape(shape)


def _added(input, product, beta, alpha):
    dtype = product.dtype
    if beta == 0:
        x, y = alike(computing(dtype), jnp.zeros((), dtype), product)
    else:
        x, y = alike(computing(dtype), input, product)
    x = x if beta in (0, 1) else beta * x
    y = y if alpha == 1 else alpha * y
    total = jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, y.shape)) + y
    return total.astype(dtype)
