"""What the PyTorch half draws, so that the others get the same masks: JAX, and the oracle.

PyTorch draws other normals and uniforms in float64 than in float32 from the same seed, so the
float64 oracle of a float32 step has to be told.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from .._errors import ParityError
from ..bridge._arrays import tensor_to_array
from ..bridge._torch_loop import TorchLoop


# Operators that draw, and which of their results is what they drew.
DRAWING: dict[str, int | None] = {
    **dict.fromkeys(("bernoulli", "bernoulli_", "rand", "rand_like", "randn", "randn_like")),
    **dict.fromkeys(("randint", "randint_like", "randperm")),
    **dict.fromkeys(("uniform_", "normal_")),
    "native_dropout": 1,
}
# Those that transform what they draw, and the arguments that leave it as it is.
PLAIN = {"uniform_": (0.0, 1.0), "normal_": (0.0, 1.0)}


class Drawn(TorchDispatchMode):
    """Keeps a copy of the result of every operator that draws, in order."""

    def __init__(self):
        super().__init__()
        self.results: list[torch.Tensor] = []
        self._plain: list[bool] = []
        self._passes: list[slice] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        name = func._opname
        if name in DRAWING:
            which = DRAWING[name]
            with _disable_current_modes():
                drawn = made if which is None else made[which]
                self.results.append(drawn.detach().clone())
            self._plain.append(name not in PLAIN or (*args[1:3],) in ((), PLAIN[name]))
        return made

    def marking(self, loop: TorchLoop) -> TorchLoop:
        """``loop``, with a note of what each of its forward passes draws."""

        def loss_fn(model: torch.nn.Module, microbatch: Any) -> torch.Tensor:
            start = len(self.results)
            loss = loop.loss_fn(model, microbatch)
            self._passes.append(slice(start, len(self.results)))
            return loss

        return replace(loop, loss_fn=loss_fn)

    @property
    def arrays(self) -> list[np.ndarray]:
        """What was drawn plainly, all of it: what the lowered half draws."""
        return self._arrays(slice(None))

    @property
    def passes(self) -> list[list[np.ndarray]]:
        """The same, pass by pass."""
        return [self._arrays(part) for part in self._passes]

    def _arrays(self, part: slice) -> list[np.ndarray]:
        both = zip(self.results[part], self._plain[part], strict=True)
        return [tensor_to_array(x) for x, plain in both if plain]


class Redrawn(TorchDispatchMode):
    """Operators that draw give what ``drawn`` kept, in the precision in which they are asked.

    Raises:
      ParityError: they draw more often, or in other shapes.
    """

    def __init__(self, drawn: Drawn):
        super().__init__()
        self._kept = iter(drawn.results)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func._opname not in DRAWING:
            return made
        kept = next(self._kept, None)
        which = DRAWING[func._opname]
        shape = (made if which is None else made[which]).shape
        if kept is None or kept.shape != shape:
            was = "nothing" if kept is None else f"shape {tuple(kept.shape)}"
            raise ParityError(
                f"{func} draws shape {tuple(shape)} in this precision, where the step drew "
                f"{was} in another: what a step draws must not depend on how it rounds."
            )
        if which is None:
            return made.copy_(kept)
        x, p, train = args  # of native_dropout
        return made if train is False else (x * kept / (1 - p) if p < 1 else 0 * x, kept)
