"""Hinge loss over sets of classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._dtypes import promoted
from ._checks import check_same_shape, check_values, nan_unless
from ._labels import widened
from ._reduce import check_reduction, reduce


def multilabel_margin_loss(
    input: jax.Array, target: jax.Array, reduction: str = "mean"
) -> jax.Array:
    """``torch.nn.functional.multilabel_margin_loss``.

    .. math:: \\ell_i = \\frac{1}{C} \\sum_{y \\in Y_i} \\sum_{c \\notin Y_i}
                \\max(0, 1 - x_{iy} + x_{ic})

    At the kink the gradient is 0. A label that is listed twice counts twice. Memory grows
    with :math:`N C^2`.

    Args:
      input: scores :math:`x`, shape ``(C,)`` or ``(N, C)``, floating.
      target: labels :math:`Y`, integers, the shape of ``input``: each row lists its labels
        and is filled up with -1; what follows the first -1 is not looked at.
      reduction: ``"mean"`` divides by :math:`N`; ``"sum"``; ``"none"`` has shape ``()`` or
        ``(N,)``.

    Returns:
      Shape (), or ``(N,)`` for ``"none"``; the dtype of ``input``. PyTorch has no second
      gradient.

    Raises:
      TypeError: ``input`` is not floating.
      ValueError: shapes do not fit, another ``reduction``, or a label outside [-1, C); where
        JAX traces the labels (``jit``, ``vmap``) the loss is NaN instead; see ``checked``.
    """
    check_reduction(reduction)
    check_same_shape(input=input, target=target)
    dtype, [x] = promoted(input=input)
    x, y = jnp.atleast_1d(x), jnp.atleast_1d(widened(target))
    classes = x.shape[-1]
    if not classes:
        raise ValueError(f"input of shape {x.shape} has no classes.")

    def valid(y):
        return (y >= -1) & (y < classes)

    fault = f"are out of range for {classes} classes. Labels are 0 to {classes - 1}, then -1."
    check_values("target", widened(target), valid, fault)
    listed = jnp.cumprod(y >= 0, -1).astype(bool)
    index = jnp.clip(y, 0, classes - 1)
    # (..., label, class): is the class that label, and is it none of the labels?
    is_label = listed[..., None] & jax.nn.one_hot(index, classes, dtype=bool)
    other = ~jnp.any(is_label, -2, keepdims=True)
    score = jnp.take_along_axis(x, index, -1)
    z = 1 - score[..., None] + x[..., None, :]
    hinge = jnp.where(listed[..., None] & other & (z > 0), z, 0)
    losses = jnp.sum(hinge, (-2, -1)) / classes * nan_unless(jnp.all(valid(y), -1))
    return reduce(losses, reduction, dtype)
