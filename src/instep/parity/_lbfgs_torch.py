"""What torch.optim.LBFGS keeps, as leaves by the names of the parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ..bridge._arrays import tensor_to_array
from ..bridge._opt_state import COUNTS, HISTORIES, NUMBERS, VECTORS
from ._lbfgs import whole
from ._leaf import Leaf, Observation


def of_torch(optimizer: torch.optim.LBFGS, model: nn.Module) -> Observation:
    """The state of PyTorch's optimizer; none before its first step.

    Vectors are cut into parameters, and histories padded with zeros to ``history_size`` rows.
    """
    (group,) = optimizer.param_groups
    state: dict[str, Any] = dict(optimizer.state.get(group["params"][0], {}))
    seen = {whole(name): np.array(state[name], np.int32) for name in COUNTS if name in state}
    if "old_dirs" not in state:  # no step, or only such as stopped before they began
        return seen
    names = {id(p): name for name, p in model.named_parameters()}
    shapes = {names[id(p)]: tuple(p.shape) for p in group["params"]}
    size = group["history_size"]
    for slot in VECTORS:
        seen |= _cut(tensor_to_array(state[slot]), shapes, slot)
    for slot in HISTORIES:
        rows = [tensor_to_array(row) for row in state[slot]]
        width = sum(int(np.prod(shape)) for shape in shapes.values())
        flat = np.stack(rows) if rows else np.zeros((0, width))
        seen |= _cut(_padded(flat, size), shapes, slot)
    seen |= {whole(name): _number(state[name]) for name in NUMBERS}
    ro = np.array([float(x) for x in state["ro"]])
    seen[whole("ro")] = _padded(ro, size)
    seen[whole("num_old")] = np.array(len(ro), np.int32)
    return seen


def history_size(optimizer: torch.optim.Optimizer) -> int | None:
    """Of an LBFGS; None of another optimizer."""
    lbfgs = isinstance(optimizer, torch.optim.LBFGS)
    return optimizer.param_groups[0]["history_size"] if lbfgs else None


def _cut(flat: np.ndarray, shapes: dict[str, tuple[int, ...]], slot: str) -> Observation:
    """The last axis of ``flat``, all parameters end to end, as one leaf for each."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    pieces = np.split(flat, ends[:-1], axis=-1)
    return {
        Leaf("state", f"{name}.{slot}"): piece.reshape(*flat.shape[:-1], *shape)
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    full = np.zeros((size, *rows.shape[1:]), rows.dtype)
    full[: len(rows)] = rows
    return full


def _number(value: Any) -> np.ndarray:
    return tensor_to_array(value) if torch.is_tensor(value) else np.array(float(value))
