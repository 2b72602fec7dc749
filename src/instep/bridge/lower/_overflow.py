"""``if`` on whether numbers are finite, which a program that is traced once cannot ask.

Models look for infinities and NaN and mend them: ``if not torch.isfinite(x).all(): clamp``. The
program is that of finite numbers. Where they are not, PyTorch goes another way, so everything
that the program returns becomes NaN, and its gradients: that is seen, and a scaler skips it.
"""

from __future__ import annotations

from typing import Any

import torch


# What is True of a finite tensor, and what is False; whatever reduces or reads keeps it.
ASKS = {"isfinite": True, "isinf": False, "isnan": False}
REDUCES = {"all": True, "any": False}
READS = ("__bool__", "item")


class Overflow:
    """The questions of one forward pass."""

    def __init__(self):
        self._kept: list[torch.Tensor] = []  # an id is that of a tensor while it is kept
        self._of_finite: dict[int, bool] = {}  # the answer if all is finite
        self._unlike: list[torch.Tensor] = []  # shape (): it is not

    def answer(self, func: Any, args: tuple) -> bool | None:
        """The number that is read from a tensor, if it is such an answer; else None."""
        if getattr(func, "__name__", "") not in READS:
            return None
        of_finite = self._of_finite.get(id(args[0]))
        if of_finite is not None:
            asked = args[0].reshape(())
            self._unlike.append(asked.logical_not() if of_finite else asked)
        return of_finite

    def watch(self, func: Any, args: tuple, made: Any) -> None:
        """Remember what answers."""
        name = getattr(func, "__name__", "")
        if name in ASKS:
            self._remember(made, ASKS[name])
        elif name in REDUCES and self._of_finite.get(id(args[0])) == REDUCES[name]:
            self._remember(made, REDUCES[name])

    def _remember(self, made: torch.Tensor, of_finite: bool) -> None:
        self._kept.append(made)
        self._of_finite[id(made)] = of_finite

    def marked(self, x: torch.Tensor) -> torch.Tensor:
        """``x``, and NaN in place of it if an answer was not that of finite numbers."""
        if not self._unlike or not (x.is_floating_point() or x.is_complex()):
            return x
        unlike = torch.stack(self._unlike).any()
        return x * torch.where(unlike, torch.nan, 1.0).to(x.dtype)
