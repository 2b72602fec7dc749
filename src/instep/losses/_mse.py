"""Mean squared error."""

from __future__ import annotations

import jax

from .._dtypes import promoted
from ._checks import check_same_shape
from ._reduce import check_reduction, reduce_weighted


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
    check_same_shape(input=input, target=target, weight=weight)
    dtype, [x, y] = promoted(input=input, target=target)
    losses = (x - y) ** 2
    return reduce_weighted(losses, reduction, dtype, weight)
