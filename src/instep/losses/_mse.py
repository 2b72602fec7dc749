"""Mean squared error."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import wide
from ._reduce import check_reduction, reduce


def mse_loss(
    input: jax.Array,
    target: jax.Array,
    reduction: str = "mean",
    weight: jax.Array | None = None,
) -> jax.Array:
    """``torch.nn.functional.mse_loss``.

    .. math:: \\ell_i = w_i (x_i - y_i)^2

    Args:
      input: :math:`x`, any shape, floating.
      target: :math:`y`, the shape of ``input``. PyTorch broadcasts other shapes with a
        warning; here they are an error, since ``(n,)`` against ``(n, 1)`` is a known bug.
      reduction: ``"mean"`` divides by the number of elements, with ``weight`` by the sum of
        the weights; ``"sum"``; ``"none"`` keeps the shape.
      weight: :math:`w`, the shape of ``input``.

    Returns:
      Shape (), or the shape of ``input`` for ``"none"``; the wider dtype of ``input`` and
      ``target``. Without elements the mean is NaN.

    Raises:
      TypeError: neither ``input`` nor ``target`` is floating.
      ValueError: shapes differ, or another ``reduction``.
    """
    check_reduction(reduction)
    for name, other in (("target", target), ("weight", weight)):
        if other is not None and np.shape(other) != np.shape(input):
            raise ValueError(
                f"{name} has shape {np.shape(other)}, input has {np.shape(input)}. Reshape "
                f"one of them: broadcasting would pair every example with every other."
            )
    dtype = jnp.promote_types(jnp.result_type(input), jnp.result_type(target))
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"input and target are {dtype}; cast one of them to a float.")
    losses = (input.astype(wide(dtype)) - target.astype(wide(dtype))) ** 2
    denominator = float(np.size(input))
    if weight is not None:
        weight = weight.astype(wide(dtype))
        losses, denominator = losses * weight, jnp.sum(weight)
    return reduce(losses, reduction, denominator).astype(dtype)
