"""Nearer to the positive than to the negative."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._dtypes import promoted
from ..ops import clamp_min, pairwise_distance
from ._reduce import check_reduction, reduce


def triplet_margin_loss(
    anchor: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> jax.Array:
    """``torch.nn.functional.triplet_margin_loss``.

    .. math:: \\ell_i = \\max(0, d(a_i, p_i) - d(a_i, n_i) + \\text{margin}), \\qquad
              d(u, v) = \\lVert u - v + \\epsilon \\rVert_p

    Where both arguments of the maximum are equal its slope is 1, as in PyTorch.

    Args:
      anchor, positive, negative: :math:`a, p, n`, shape ``(D,)`` or ``(N, D)``, floating.
      margin: least distance wanted between the two, positive.
      p: exponent of the norm.
      eps: :math:`\\epsilon`.
      swap: take the distance from ``positive`` to ``negative`` where it is the smaller.
      reduction: ``"mean"`` divides by :math:`N`; ``"sum"``; ``"none"`` has shape ``()`` or
        ``(N,)``.

    Returns:
      Shape (), or ``(N,)`` for ``"none"``; the widest dtype of the inputs.

    Raises:
      TypeError: none of the inputs is floating.
      ValueError: shapes do not fit, ``margin`` is not positive, or another ``reduction``.

    References:
      Balntas et al., `Learning Local Feature Descriptors with Triplets and Shallow
      Convolutional Neural Networks <https://doi.org/10.5244/C.30.119>`_, 2016.
    """

    def distance(u, v):
        return pairwise_distance(u, v, p, eps)

    return triplet_margin_with_distance_loss(
        anchor,
        positive,
        negative,
        distance_function=distance,
        margin=margin,
        swap=swap,
        reduction=reduction,
    )


def triplet_margin_with_distance_loss(
    anchor: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    *,
    distance_function: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> jax.Array:
    """``torch.nn.functional.triplet_margin_with_distance_loss``.

    ``triplet_margin_loss`` with a distance of one's own.

    Args:
      anchor, positive, negative: any shape of the same number of axes, floating.
      distance_function: of two of them; None: ``instep.ops.pairwise_distance``.
      margin, swap: as in ``triplet_margin_loss``.
      reduction: ``"mean"`` divides by the number of distances; ``"sum"``; ``"none"`` keeps
        their shape.

    Returns:
      Shape (), or that of the distances for ``"none"``; the widest dtype of the inputs.

    Raises:
      TypeError: none of the inputs is floating.
      ValueError: numbers of axes differ, ``margin`` is not positive, or another
        ``reduction``.
    """
    check_reduction(reduction)
    if not margin > 0:
        raise ValueError(f"margin must be positive; got {margin}.")
    dtype, [a, p, n] = promoted(anchor=anchor, positive=positive, negative=negative)
    if not a.ndim == p.ndim == n.ndim:
        raise ValueError(
            f"anchor, positive and negative need the same number of axes; got shapes "
            f"{a.shape}, {p.shape} and {n.shape}."
        )
    distance = distance_function or pairwise_distance
    to_positive, to_negative = distance(a, p), distance(a, n)
    if swap:
        to_negative = jnp.minimum(to_negative, distance(p, n))
    return reduce(clamp_min(margin + to_positive - to_negative, 0.0), reduction, dtype)
