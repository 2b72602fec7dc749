"""Binary cross entropy, averaged over the classes of an example."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._dtypes import promoted
from ._checks import broadcast, check_same_shape
from ._reduce import check_reduction, reduce


def multilabel_soft_margin_loss(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """``torch.nn.functional.multilabel_soft_margin_loss``.

    .. math:: \\ell_i = -\\frac1C \\sum_c w_c \\left( y_{ic} \\log \\sigma(x_{ic})
                + (1 - y_{ic}) \\log \\sigma(-x_{ic}) \\right)

    Args:
      input: logits :math:`x`, shape ``(..., C)``, floating.
      target: :math:`y`, the shape of ``input``.
      weight: :math:`w`, broadcast to the shape of ``input``.
      reduction: ``"mean"`` divides by the number of examples; ``"sum"``; ``"none"`` has the
        shape of ``input`` without the last axis.

    Returns:
      Shape (), or that of the examples for ``"none"``; the wider dtype of ``input`` and
      ``target``.

    Raises:
      TypeError: neither ``input`` nor ``target`` is floating.
      ValueError: shapes differ, or another ``reduction``.
    """
    check_reduction(reduction)
    check_same_shape(input=input, target=target)
    dtype, [x, y] = promoted(input=input, target=target)
    losses = -(y * jax.nn.log_sigmoid(x) + (1 - y) * jax.nn.log_sigmoid(-x))
    if weight is not None:
        losses = losses * broadcast("weight", weight, losses)
    return reduce(jnp.sum(losses, -1) / x.shape[-1], reduction, dtype)
