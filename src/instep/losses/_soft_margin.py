"""Logistic loss of signs."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._dtypes import promoted
from ._reduce import check_reduction, reduce


def soft_margin_loss(input: jax.Array, target: jax.Array, reduction: str = "mean") -> jax.Array:
    """``torch.nn.functional.soft_margin_loss``.

    .. math:: \\ell_i = \\log(1 + e^{-y_i x_i})

    As in PyTorch the exponential overflows: :math:`y x` below about -88.7 in float32 gives an
    infinite loss and a gradient of NaN; ``binary_cross_entropy_with_logits`` does not.

    Args:
      input: :math:`x`, any shape, floating.
      target: signs :math:`y`, 1 or -1, broadcast against ``input``.
      reduction: ``"mean"`` divides by the number of elements; ``"sum"``; ``"none"`` keeps the
        shape.

    Returns:
      Shape (), or that of ``input`` against ``target`` for ``"none"``; their wider dtype.

    Raises:
      TypeError: neither ``input`` nor ``target`` is floating.
      ValueError: another ``reduction``.
    """
    check_reduction(reduction)
    dtype, [x, y] = promoted(input=input, target=target)
    x, y = jnp.broadcast_arrays(x, y)
    return reduce(_softplus(-y * x), reduction, dtype)


@jax.custom_jvp
def _softplus(z):
    return jnp.log1p(jnp.exp(z))


@_softplus.defjvp
def _(primals, tangents):
    ([z], [dz]) = primals, tangents
    return _softplus(z), _sigmoid(z) * dz


@jax.custom_jvp
def _sigmoid(z):
    return jnp.exp(z) / (1 + jnp.exp(z))


@_sigmoid.defjvp
def _(primals, tangents):
    ([z], [dz]) = primals, tangents
    return _sigmoid(z), _sigmoid(z) / (1 + jnp.exp(z)) * dz
