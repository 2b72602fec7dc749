"""Cross entropy of yes or no, from probabilities and from logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import promoted
from ._checks import broadcast, check_same_shape, check_values, nan_unless
from ._reduce import check_reduction, reduce


EPS = float(np.float32(1e-12))  # a float32 in PyTorch, in the first derivative only


def binary_cross_entropy(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """``torch.nn.functional.binary_cross_entropy``.

    .. math:: \\ell_i = -w_i \\left( y_i \\log x_i + (1 - y_i) \\log(1 - x_i) \\right)

    PyTorch holds both logarithms at -100 or more, and divides in the gradient
    :math:`w (x - y) / (x (1 - x))` by 1e-12 or more; so do we, in the second gradient too.

    Args:
      input: probabilities :math:`x` in [0, 1], any shape, floating.
      target: :math:`y`, the shape of ``input``.
      weight: :math:`w`, broadcast to the shape of ``input``.
      reduction: ``"mean"`` divides by the number of elements, with ``weight`` as well;
        ``"sum"``; ``"none"`` keeps the shape.

    Returns:
      Shape (), or the shape of ``input`` for ``"none"``; the wider dtype of ``input`` and
      ``target``. Without elements the mean is NaN.

    Raises:
      TypeError: neither ``input`` nor ``target`` is floating.
      ValueError: shapes differ, another ``reduction``, or ``input`` outside [0, 1]. Where
        JAX traces it (``jit``, ``vmap``, ``grad``) the loss and its gradient are NaN instead;
        see ``checked``.
    """
    check_reduction(reduction)
    check_same_shape(input=input, target=target)

    def valid(x):
        return (x >= 0) & (x <= 1)

    remedy = "Take the sigmoid, or binary_cross_entropy_with_logits."
    check_values("input", input, valid, f"is not in [0, 1]. {remedy}")
    dtype, [x, y] = promoted(input=input, target=target)
    x = x * nan_unless(valid(x))
    losses = _of_probabilities(x, y)
    if weight is not None:
        losses = losses * broadcast("weight", weight, losses)
    return reduce(losses, reduction, dtype)


def binary_cross_entropy_with_logits(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    reduction: str = "mean",
    pos_weight: jax.Array | None = None,
) -> jax.Array:
    """``torch.nn.functional.binary_cross_entropy_with_logits``.

    .. math:: \\ell_i = -w_i \\left( p\\, y_i \\log \\sigma(x_i)
                        + (1 - y_i) \\log(1 - \\sigma(x_i)) \\right)

    Args:
      input: logits :math:`x`, any shape, floating.
      target: :math:`y`, the shape of ``input``.
      weight: :math:`w`, broadcast to the shape of ``input``.
      reduction: ``"mean"`` divides by the number of elements, with weights as well;
        ``"sum"``; ``"none"`` keeps the shape.
      pos_weight: :math:`p`, of the positive examples, broadcast to the shape of ``input``.

    Returns:
      Shape (), or the shape of ``input`` for ``"none"``; the wider dtype of ``input`` and
      ``target``. Without elements the mean is NaN.

    Raises:
      TypeError: neither ``input`` nor ``target`` is floating.
      ValueError: shapes differ, or another ``reduction``.
    """
    check_reduction(reduction)
    check_same_shape(input=input, target=target)
    dtype, [x, y] = promoted(input=input, target=target)
    p = None if pos_weight is None else broadcast("pos_weight", pos_weight, x)
    losses = _of_logits(x, y, p)
    if weight is not None:
        losses = losses * broadcast("weight", weight, losses)
    return reduce(losses, reduction, dtype)


@jax.custom_jvp
def _of_probabilities(x, y):
    return (y - 1) * jnp.maximum(jnp.log1p(-x), -100) - y * jnp.maximum(jnp.log(x), -100)


@_of_probabilities.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    of_target = jnp.log1p(-x) - jnp.log(x)  # which PyTorch does not hold
    return _of_probabilities(x, y), _slope(x, y) * dx + of_target * dy


@jax.custom_jvp
def _slope(x, y):
    return (x - y) / jnp.maximum((1 - x) * x, EPS)


@_slope.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    curvature = (x * x - 2 * x * y + y) / ((x + 1e-12) ** 2 * (1 - x + 1e-12) ** 2)
    return _slope(x, y), curvature * dx - dy / jnp.maximum((1 - x) * x, 1e-12)


@jax.custom_jvp
def _of_logits(x, y, p):
    log_sigmoid = jax.nn.log_sigmoid(x)
    return (1 - y) * x - (log_sigmoid if p is None else ((p - 1) * y + 1) * log_sigmoid)


@_of_logits.defjvp
def _(primals, tangents):
    (x, y, p), (dx, dy, dp) = primals, tangents
    # sigmoid(x) - y, not the difference of 1 - y and 1 - sigmoid(x) that the value suggests.
    if p is None:
        return _of_logits(x, y, p), (jax.nn.sigmoid(x) - y) * dx - x * dy
    log_sigmoid = jax.nn.log_sigmoid(x)
    slope = (p * y + 1 - y) * jax.nn.sigmoid(x) - p * y
    of_target = -x - (p - 1) * log_sigmoid
    return _of_logits(x, y, p), slope * dx + of_target * dy - y * log_sigmoid * dp
