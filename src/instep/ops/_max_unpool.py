"""What maximum pooling chose, back at its places."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ._windows import Ints, batched, per_axis


def max_unpool(input: jax.Array, indices: jax.Array, output_size: Ints) -> jax.Array:
    """``torch.nn.functional.max_unpool2d`` or ``max_unpool3d`` with an ``output_size``.

    Args:
      input: shape ``(N, C, H, W)`` or ``(N, C, D, H, W)``, or without samples.
      indices: of the shape of ``input``: places among all elements of space of the output, as
        ``max_pool2d`` returns them. Where two are the same, either is taken.
      output_size: of the axes of space.

    Returns:
      Shape ``(N, C, *output_size)``, zero elsewhere.

    Raises:
      ValueError: the shapes do not fit.
    """
    if input.shape != indices.shape:
        raise ValueError(f"input of shape {input.shape}, indices of {indices.shape}.")
    n = 2 if isinstance(output_size, int) else len(output_size)
    sizes = per_axis(output_size, n, "output_size")
    x, alone = batched(input, n, f"max_unpool{n}d")
    places = indices.reshape(*x.shape[:2], -1)

    def placed(values, at):
        zeros = jnp.zeros(math.prod(sizes), values.dtype)
        return zeros.at[at].set(values, mode="drop", unique_indices=True)

    y = jax.vmap(jax.vmap(placed))(x.reshape(places.shape), places)
    y = y.reshape(*x.shape[:2], *sizes)
    return y[0] if alone else y
