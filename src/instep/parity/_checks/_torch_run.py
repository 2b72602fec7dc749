"""The PyTorch half, run for some steps, with a note of what it calls."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ...bridge._copy import copy_loop
from ...bridge._tensors import map_tensors
from ...bridge._torch_loop import TorchLoop, run_step
from .._drawn import Drawn


LOW = ("bfloat16", "float16")


@dataclass
class TorchRun:
    """What was seen in the steps."""

    lookups: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    # ("ignore_index", 3) -> [integers that were it, all integers]; and "padding_idx"
    ignored: set[int] = field(default_factory=set)  # every ignore_index, the default too
    low: set[str] = field(default_factory=set)  # floating dtypes of 16 bits that were computed
    norms: list[float] = field(default_factory=list)  # before clipping
    rates: list[float] = field(default_factory=list)  # of group 0, and before the first step
    drawn: list[list[list[np.ndarray]]] = field(default_factory=list)  # step, pass, draw


# Functions that treat one integer apart: the argument that says which, and the integers.
APART = {
    F.cross_entropy: ("ignore_index", "target"),
    F.nll_loss: ("ignore_index", "target"),
    F.embedding: ("padding_idx", "input"),
}
DEFAULT = -100  # of ignore_index: nobody asked for it


def torch_run(loop: TorchLoop, windows: list[list[Any]]) -> TorchRun:
    """Run a copy of ``loop`` over ``windows``, in the precision in which it is."""
    loop, run = copy_loop(loop), TorchRun()
    run.rates.append(float(loop.optimizer.param_groups[0]["lr"]))

    def watch(stage: str, value: Any) -> None:
        if stage == "clip" and value is not None:
            run.norms.append(float(value))

    for n, window in enumerate(windows, 1):
        own = [map_tensors(torch.clone, microbatch) for microbatch in window]
        with torch.enable_grad(), Drawn() as drawn, _Low(run), _Apart(run):
            run_step(drawn.marking(loop), own, n, watch)
        run.drawn.append(drawn.passes)
        run.rates.append(float(loop.optimizer.param_groups[0]["lr"]))
    return run


class _Apart(TorchFunctionMode):
    def __init__(self, run: TorchRun):
        self.run = run

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in APART:
            option, integers = APART[func]
            given = inspect.signature(func).bind(*args, **kwargs).arguments
            index, values = given.get(option), given[integers]
            if option == "ignore_index":
                self.run.ignored.add(DEFAULT if index is None else index)
            if index not in (None, DEFAULT) and not values.is_floating_point():
                if option == "padding_idx":
                    index %= len(given["weight"])
                counts = self.run.lookups.setdefault((option, index), [0, 0])
                counts[0] += int((values == index).sum())
                counts[1] += values.numel()
        return func(*args, **kwargs)


class _Low(TorchDispatchMode):
    def __init__(self, run: TorchRun):
        super().__init__()
        self.run = run

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, tuple | list) else (made,):
            name = str(getattr(x, "dtype", "")).removeprefix("torch.")
            if name in LOW:
                self.run.low.add(name)
        return made
