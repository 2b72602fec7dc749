"""What the PyTorch half draws, so that the lowered half gets the same masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ..bridge._arrays import tensor_to_array
from ..bridge._torch_loop import TorchLoop


# Operators that draw, and which of their results is what they drew. Those that transform it
# are only here with the arguments that leave it as it is.
DRAWING: dict[str, int | None] = {
    **dict.fromkeys(("bernoulli", "bernoulli_", "rand", "rand_like", "randn", "randn_like")),
    **dict.fromkeys(("randint", "randint_like", "randperm")),
    **dict.fromkeys(("uniform_", "normal_")),
    "native_dropout": 1,
}
PLAIN = {"uniform_": (0.0, 1.0), "normal_": (0.0, 1.0)}


class Drawn(TorchDispatchMode):
    """Keeps a copy of the result of every operator that draws, in order."""

    def __init__(self):
        super().__init__()
        self.arrays: list[np.ndarray] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        name = func._opname
        if name in DRAWING and (name not in PLAIN or (*args[1:3],) in ((), PLAIN[name])):
            which = DRAWING[name]
            with _disable_current_modes():
                self.arrays.append(tensor_to_array(made if which is None else made[which]))
        return made


def recording(loop: TorchLoop) -> tuple[TorchLoop, list[list[np.ndarray]]]:
    """``loop``, and a list that takes what each of its forward passes draws."""
    passes: list[list[np.ndarray]] = []

    def loss_fn(model: torch.nn.Module, microbatch: Any) -> torch.Tensor:
        with Drawn() as drawn:
            loss = loop.loss_fn(model, microbatch)
        passes.append(drawn.arrays)
        return loss

    return replace(loop, loss_fn=loss_fn), passes
