"""Distances of similar and dissimilar pairs."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._dtypes import promoted
from ..ops import clamp_min
from ._reduce import check_reduction, reduce


def hinge_embedding_loss(
    input: jax.Array, target: jax.Array, margin: float = 1.0, reduction: str = "mean"
) -> jax.Array:
    """``torch.nn.functional.hinge_embedding_loss``.

    .. math:: \\ell_i = \\begin{cases} x_i & y_i = 1 \\\\
                \\max(0, \\text{margin} - x_i) & y_i = -1 \\end{cases}

    A target that is neither 1 nor -1 adds both terms, as in PyTorch.

    Args:
      input: distances :math:`x`, any shape, floating.
      target: :math:`y`, 1 or -1, broadcast against ``input``.
      margin: from where on a dissimilar pair is far enough.
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
    near = jnp.where(y != -1, x, 0)
    far = jnp.where(y != 1, clamp_min(margin - x, 0.0), 0)
    return reduce(near + far, reduction, dtype)
