"""Cross entropy of yes or no, from probabilities and from logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._dtypes import promoted
from ._checks import check_same_shape, check_values, fitted
from ._reduce import check_reduction, reduce


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
      ValueError: shapes differ, another ``reduction``, or ``input`` outside [0, 1]; inside
        ``jax.jit`` the loss is then NaN, see ``checked``.
    """
    check_reduction(reduction)
    check_same_shape(input=input, target=target)
    check_values(
        "input",
        input,
        lambda x: (x >= 0) & (x <= 1),
        "is not in [0, 1]. Take the sigmoid, or binary_cross_entropy_with_logits.",
    )
    dtype, [x, y] = promoted(input=input, target=target)
    losses = _binary_cross_entropy(x, y)
    if weight is not None:
        losses = losses * fitted(weight, losses)
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
    p = jnp.ones_like(x) if pos_weight is None else fitted(pos_weight, x)
    losses = _with_logits(x, y, p)
    if weight is not None:
        losses = losses * fitted(weight, losses)
    return reduce(losses, reduction, dtype)


@jax.custom_jvp
def _binary_cross_entropy(x, y):
    log_not_x, log_x = _held_logs(x)
    return (y - 1) * log_not_x - y * log_x


@_binary_cross_entropy.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    log_not_x, log_x = _held_logs(x)
    return _binary_cross_entropy(x, y), _slope(x, y) * dx + (log_not_x - log_x) * dy


@jax.custom_jvp
def _slope(x, y):
    return (x - y) / jnp.maximum((1 - x) * x, 1e-12)


@_slope.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    eps = 1e-12
    curvature = (x * x - 2 * x * y + y) / ((x + eps) ** 2 * (1 - x + eps) ** 2)
    return _slope(x, y), curvature * dx - dy / jnp.maximum((1 - x) * x, eps)


@jax.custom_jvp
def _with_logits(x, y, p):
    return (1 - y) * x - ((p - 1) * y + 1) * jax.nn.log_sigmoid(x)


@_with_logits.defjvp
def _(primals, tangents):
    (x, y, p), (dx, dy, dp) = primals, tangents
    # sigmoid(x) - y, not the difference of 1 - y and 1 - sigmoid(x) that the value suggests.
    slope = (p * y + 1 - y) * jax.nn.sigmoid(x) - p * y
    log_sigmoid = jax.nn.log_sigmoid(x)
    of_targets = -(x + (p - 1) * log_sigmoid) * dy - y * log_sigmoid * dp
    return _with_logits(x, y, p), slope * dx + of_targets


def _held_logs(x):
    return jnp.maximum(jnp.log1p(-x), -100), jnp.maximum(jnp.log(x), -100)
