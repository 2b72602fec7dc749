"""The per-parameter state of a PyTorch optimizer as slots of JAX leaves, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ._arrays import array_to_tensor, tensor_to_array
from ._layout import SAME
from ._opt_state import STARTED
from ._places import Places
from ._rule import Link
from ._weights import arrays_to_jax, arrays_to_torch


Slots = dict[tuple[str, str], Any]  # by (JAX leaf, slot)

# Kept in PyTorch's default dtype, whatever that of the parameter; SparseAdam counts in int.
SCALARS = ("step", "mu_product", "eta", "mu")

# Of another shape than the parameter, though for a kernel of one element it is the same.
FACTORED = ("row_var", "col_var")


def read_torch_slots(optimizer: torch.optim.Optimizer, where: Places) -> Slots:
    """Everything in ``optimizer.state``, by JAX leaf.

    Raises:
      ValueError: one leaf is made of parameters whose states do not go together.
    """
    named = where.tensors
    found: Slots = {}
    for link in where.links:
        tensors = [named.get(name) for name in link.torch]
        states = [{} if p is None else _arrays(optimizer.state.get(p, {})) for p in tensors]
        names = dict.fromkeys(slot for state in states for slot in state)
        partial = sorted(slot for slot in names if not all(slot in s for s in states))
        if partial:
            raise ValueError(
                f"{', '.join(link.torch)} form {', '.join(link.jax)} together, but not all of "
                f"them have {partial}. Let all of them take a step first."
            )
        for slot in names:
            values = [state[slot] for state in states]
            shapes = [named[name].shape for name in link.torch]
            found |= _across(link, slot, values, shapes)
        if "momentum_buffer" in names:  # whether there is one is state too, with dampening
            found |= {(leaf, STARTED): np.array(True) for leaf in link.jax}
    return found


def torch_slots(found: Mapping[tuple[str, str], Any], cls: type, where: Places) -> dict:
    """The ``"state"`` of a ``state_dict``: by number of the parameter, then by slot.

    Raises:
      ValueError: the leaves that form one parameter disagree on a number.
    """
    by_slot: dict[str, dict[str, np.ndarray]] = {}
    for (leaf, slot), value in found.items():
        by_slot.setdefault(slot, {})[leaf] = np.asarray(value)
    state: dict[int, dict[str, Any]] = {}
    for number, (name, p) in enumerate(where.tensors.items()):
        (link,) = [x for x in where.links if name in x.torch]
        kept = {
            slot: _back(link, slot, leaves, name)
            for slot, leaves in by_slot.items()
            if all(leaf in leaves for leaf in link.jax)
        }
        if kept and _taken_a_step(kept, cls):
            kept.pop(STARTED, None)
            state[number] = {s: _tensor(s, value, p, cls) for s, value in kept.items()}
    return state


def _arrays(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {slot: tensor_to_array(x) for slot, x in state.items() if x is not None}


def _across(link: Link, slot: str, values: list[np.ndarray], shapes: list[Any]) -> Slots:
    like_it = all(v.shape == s for v, s in zip(values, shapes, strict=True))
    if slot not in (*SCALARS, *FACTORED) and like_it:
        arrays = arrays_to_jax([link], dict(zip(link.torch, values, strict=True)))
        return {(leaf, slot): value for leaf, value in arrays.items()}
    if slot not in SCALARS and link.layout is not SAME:
        raise ValueError(
            f"{slot} of {', '.join(link.torch)} has the shape {values[0].shape}, which the "
            f"layout {link.layout.name!r} does not carry across. Keep this parameter in "
            f"PyTorch's layout on the JAX side."
        )
    if any(value != values[0] for value in values[1:]):
        raise ValueError(
            f"{', '.join(link.torch)} form {', '.join(link.jax)} together, but their {slot} "
            f"differ: {[v.item() for v in values]}."
        )
    return {(leaf, slot): values[0] for leaf in link.jax}


def _back(link: Link, slot: str, leaves: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    values = [leaves[leaf] for leaf in link.jax]
    if slot in (*SCALARS, STARTED) or link.layout is SAME:
        if any(value.shape == () and value != values[0] for value in values):
            raise ValueError(
                f"{', '.join(link.jax)} form {name} together, but not at one {slot}."
            )
        return values[0]
    return arrays_to_torch([link], dict(zip(link.jax, values, strict=True)))[name]


def _taken_a_step(kept: Mapping[str, np.ndarray], cls: type) -> bool:
    if cls is torch.optim.Adagrad:
        return True  # its state is there from the beginning
    if "step" in kept:
        return bool(kept["step"] > 0)
    return bool(kept.get(STARTED, any(np.any(value != 0) for value in kept.values())))


def _tensor(slot: str, value: np.ndarray, p: torch.Tensor, cls: type) -> Any:
    if slot == "step" and cls is torch.optim.SparseAdam:
        return int(value)
    if slot in SCALARS:
        double = torch.get_default_dtype() == torch.float64
        return torch.tensor(float(value), dtype=torch.float64 if double else torch.float32)
    return array_to_tensor(value).to(p)
