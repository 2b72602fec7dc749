"""What torch.optim.LBFGS keeps, as leaves by the names of the parameters, from both sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

from .._loop import JaxLoop, OpaqueLoop
from .._state import PyTree
from .._trees import named_leaves
from ..bridge._arrays import tensor_to_array
from ..bridge._lbfgs import COUNTS, HISTORIES, NUMBERS, VECTORS
from ..bridge._rule import Link
from ..bridge._torch_loop import TorchLoop
from ..bridge._weights import arrays_to_jax, arrays_to_torch
from ..optim import LBFGSState
from ._leaf import Leaf, Observation


WHOLE = "LBFGS"  # the name before a slot that belongs to all parameters together


def of_torch(optimizer: torch.optim.LBFGS, model: nn.Module) -> Observation:
    """The state of PyTorch's optimizer; none before its first step.

    Vectors are cut into parameters, and histories padded with zeros to ``history_size`` rows.
    """
    (group,) = optimizer.param_groups
    state: dict[str, Any] = dict(optimizer.state.get(group["params"][0], {}))
    seen = {_whole(name): np.array(state[name], np.int32) for name in COUNTS if name in state}
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
    seen |= {_whole(name): _number(state[name]) for name in NUMBERS}
    ro = np.array([float(x) for x in state["ro"]])
    seen[_whole("ro")] = _padded(ro, size)
    seen[_whole("num_old")] = np.array(len(ro), np.int32)
    return seen


def of_jax(opt_state: PyTree, links: tuple[Link, ...]) -> Observation:
    """The same of the LBFGSState in ``opt_state``; nothing without one."""
    seen: Observation = {}
    for state in _records(opt_state):
        seen |= {_whole(name): np.asarray(getattr(state, name)) for name in COUNTS}
        if not state.n_iter:
            continue
        for slot in VECTORS:
            arrays = arrays_to_torch(links, _arrays(getattr(state, slot)))
            seen |= {Leaf("state", f"{name}.{slot}"): x for name, x in arrays.items()}
        for slot in HISTORIES:
            named = _arrays(getattr(state, slot))
            rows = [
                arrays_to_torch(links, {name: x[i] for name, x in named.items()})
                for i in range(len(state.ro))
            ]
            for name in rows[0]:
                stacked = np.stack([row[name] for row in rows])
                seen[Leaf("state", f"{name}.{slot}")] = stacked
        for name in (*NUMBERS, "ro", "num_old"):
            seen[_whole(name)] = np.asarray(getattr(state, name))
    return seen


def can_be_synced(loop: TorchLoop, half: JaxLoop | OpaqueLoop) -> bool:
    """Whether PyTorch's optimizer is an LBFGS, and the JAX half has a state like it."""
    if not isinstance(loop.optimizer, torch.optim.LBFGS) or not isinstance(half, JaxLoop):
        return False
    records = _records(jax.eval_shape(half.tx.init, half.params))
    size = loop.optimizer.param_groups[0]["history_size"]
    return [x.ro.shape for x in records] == [(size,)]


def synced(opt_state: PyTree, links: tuple[Link, ...], torch: Observation) -> PyTree | None:
    """``opt_state`` where PyTorch stands; None if it has no LBFGSState, or of another size."""
    records = _records(opt_state)
    ro = torch.get(_whole("ro"))
    if len(records) != 1 or (ro is not None and ro.shape != records[0].ro.shape):
        return None

    def write(state: LBFGSState) -> LBFGSState:
        whole = (*COUNTS, *NUMBERS, "ro", "num_old")
        made = {n: torch[_whole(n)] for n in whole if _whole(n) in torch}
        if ro is None:
            return replace(state, **made)
        for slot in (*VECTORS, *HISTORIES):
            ends = f".{slot}"
            arrays: dict[str, Any] = {
                leaf.name.removesuffix(ends): value
                for leaf, value in torch.items()
                if leaf.kind == "state" and leaf.name.endswith(ends)
            }
            like = getattr(state, slot)
            made[slot] = _tree(arrays, like, links, rows=slot in HISTORIES)
        return replace(state, **made)

    return jax.tree.map(
        lambda x: write(x) if _is_record(x) else x, opt_state, is_leaf=_is_record
    )


def _tree(
    arrays: Mapping[str, Any], like: PyTree, links: tuple[Link, ...], rows: bool
) -> PyTree:
    if rows:
        count = len(next(iter(arrays.values())))
        each = [
            arrays_to_jax(links, {n: x[i] for n, x in arrays.items()}) for i in range(count)
        ]
        named = {name: np.stack([row[name] for row in each]) for name in each[0]}
    else:
        named = arrays_to_jax(links, arrays)
    leaves = [named[name] for name in named_leaves(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


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


def _whole(slot: str) -> Leaf:
    return Leaf("state", f"{WHOLE}.{slot}")


def _number(value: Any) -> np.ndarray:
    return tensor_to_array(value) if torch.is_tensor(value) else np.array(float(value))


def _arrays(tree: PyTree) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in named_leaves(tree).items()}


def _records(opt_state: PyTree) -> list[LBFGSState]:
    leaves: Iterable[Any] = jax.tree.leaves(opt_state, is_leaf=_is_record)
    return [x for x in leaves if _is_record(x)]


def _is_record(x: Any) -> bool:
    return isinstance(x, LBFGSState)
