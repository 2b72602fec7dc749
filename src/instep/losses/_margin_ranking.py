"""Which of two scores is to be the larger."""

from __future__ import annotations

import jax

from .._dtypes import promoted
from ..ops import clamp_min
from ._reduce import check_reduction, reduce


def margin_ranking_loss(
    input1: jax.Array,
    input2: jax.Array,
    target: jax.Array,
    margin: float = 0.0,
    reduction: str = "mean",
) -> jax.Array:
    """``torch.nn.functional.margin_ranking_loss``.

    .. math:: \\ell_i = \\max(0, -y_i (x_{1i} - x_{2i}) + \\text{margin})

    Where both arguments of the maximum are equal its slope is 1, as in PyTorch.

    Args:
      input1, input2: scores, floating, of the same number of axes, broadcast.
      target: 1 where ``input1`` is to be the larger, -1 where ``input2``; the same number of
        axes, broadcast.
      margin: by how much it is to be larger.
      reduction: ``"mean"`` divides by the number of elements; ``"sum"``; ``"none"`` keeps the
        shape.

    Returns:
      Shape (), or that of the inputs for ``"none"``; their widest dtype.

    Raises:
      TypeError: none of the inputs is floating.
      ValueError: numbers of axes differ, or another ``reduction``.
    """
    check_reduction(reduction)
    dtype, [x1, x2, y] = promoted(input1=input1, input2=input2, target=target)
    if not x1.ndim == x2.ndim == y.ndim:
        raise ValueError(
            f"input1, input2 and target need the same number of axes; got shapes {x1.shape}, "
            f"{x2.shape} and {y.shape}."
        )
    return reduce(clamp_min(-y * (x1 - x2) + margin, 0.0), reduction, dtype)
