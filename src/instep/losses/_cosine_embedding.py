"""Angles of similar and dissimilar pairs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import promoted
from ..ops import clamp_min
from ._checks import check_same_shape
from ._reduce import check_reduction, reduce


EPS = float(np.float32(1e-12))  # a float32 in PyTorch


def cosine_embedding_loss(
    input1: jax.Array,
    input2: jax.Array,
    target: jax.Array,
    margin: float = 0.0,
    reduction: str = "mean",
) -> jax.Array:
    """``torch.nn.functional.cosine_embedding_loss``.

    .. math:: \\ell_i = \\begin{cases} 1 - \\cos(a_i, b_i) & y_i = 1 \\\\
                \\max(0, \\cos(a_i, b_i) - \\text{margin}) & y_i = -1 \\end{cases}, \\qquad
              \\cos(a, b) = \\frac{a \\cdot b}{\\sqrt{(|a|^2 + 10^{-12})(|b|^2 + 10^{-12})}}

    A target that is neither 1 nor -1 adds nothing, as in PyTorch.

    Args:
      input1, input2: :math:`a, b`, shape ``(D,)`` or ``(N, D)``, floating.
      target: :math:`y`, 1 or -1, shape ``()`` or ``(N,)``.
      margin: in [-1, 1].
      reduction: ``"mean"`` divides by :math:`N`; ``"sum"``; ``"none"`` keeps the shape of
        ``target``.

    Returns:
      Shape (), or that of ``target`` for ``"none"``; the wider dtype of the inputs.

    Raises:
      TypeError: none of the inputs is floating.
      ValueError: shapes do not fit, or another ``reduction``.
    """
    check_reduction(reduction)
    check_same_shape(input1=input1, input2=input2)
    if np.ndim(input1) not in (1, 2) or np.shape(target) != np.shape(input1)[:-1]:
        raise ValueError(
            f"inputs have shape (D,) or (N, D) and target () or (N,); got "
            f"{np.shape(input1)} and {np.shape(target)}."
        )
    dtype, [a, b, y] = promoted(input1=input1, input2=input2, target=target)
    squares = (jnp.sum(a * a, -1) + EPS) * (jnp.sum(b * b, -1) + EPS)
    cosine = jnp.sum(a * b, -1) / jnp.sqrt(squares)
    near = jnp.where(y == 1, 1 - cosine, 0)
    far = jnp.where(y == -1, clamp_min(cosine - margin, 0.0), 0)
    return reduce(near + far, reduction, dtype)
