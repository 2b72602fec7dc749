"""Affine and bilinear maps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from .._dtypes import wide


def linear(input: jax.Array, weight: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """``torch.nn.functional.linear``.

    .. math:: y = x A^T + b

    Args:
      input: :math:`x`, shape ``(..., in)``.
      weight: :math:`A`, shape ``(out, in)`` or ``(in,)``, the dtype of ``input``.
      bias: :math:`b`, shape ``(out,)`` or ``()``, or None.

    Returns:
      Shape ``(..., out)`` or ``(...)``; in few bits the sum is rounded once, at the end.
    """
    axes = ((input.ndim - 1,), (weight.ndim - 1,))
    dtype = wide(input.dtype)
    output = lax.dot_general(input, weight, (axes, ((), ())), preferred_element_type=dtype)
    if bias is not None:
        # Cast before it is repeated: its gradient is a sum, of which XLA rounds every part.
        output = output + jnp.broadcast_to(bias.astype(dtype), output.shape)
    return output.astype(input.dtype)


def bilinear(
    input1: jax.Array, input2: jax.Array, weight: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """``torch.nn.functional.bilinear``.

    .. math:: y_k = x_1^T A_k x_2 + b_k

    Args:
      input1, input2: :math:`x_1, x_2`, shapes ``(..., in1)`` and ``(..., in2)``, floating.
      weight: :math:`A`, shape ``(out, in1, in2)``.
      bias: :math:`b`, shape ``(out,)``, or None.

    Returns:
      Shape ``(..., out)``.
    """
    output = jnp.einsum("...i,kij,...j->...k", input1, weight, input2)
    return output if bias is None else output + jnp.broadcast_to(bias, output.shape)
