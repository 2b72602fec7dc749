"""The state of our LBFGS, as leaves by the names that torch.optim.LBFGS has for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from .._loop import JaxLoop, OpaqueLoop
from .._state import PyTree
from .._trees import named_leaves
from ..bridge._opt_state import COUNTS, HISTORIES, NUMBERS, VECTORS
from ..bridge._rule import Link
from ..bridge._weights import arrays_to_jax, arrays_to_torch
from ..optim import LBFGSState
from ._leaf import Leaf, Observation


WHOLE = "LBFGS"  # the name before a slot that belongs to all parameters together


def of_jax(opt_state: PyTree, links: tuple[Link, ...]) -> Observation:
    """The same of the LBFGSState in ``opt_state``; nothing without one."""
    seen: Observation = {}
    for state in _records(opt_state):
        seen |= {whole(name): np.asarray(getattr(state, name)) for name in COUNTS}
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
            seen[whole(name)] = np.asarray(getattr(state, name))
    return seen


def can_be_synced(history: int | None, half: JaxLoop | OpaqueLoop) -> bool:
    """Whether PyTorch's optimizer is an LBFGS, and the JAX half has a state like it.

    Args:
      history: its ``history_size``; None: it is another optimizer.
      half: of the walk.
    """
    if history is None or not isinstance(half, JaxLoop):
        return False
    records = _records(jax.eval_shape(half.tx.init, half.params))
    return [x.ro.shape for x in records] == [(history,)]


def synced(opt_state: PyTree, links: tuple[Link, ...], torch: Observation) -> PyTree | None:
    """``opt_state`` where PyTorch stands; None if it has no LBFGSState, or of another size."""
    records = _records(opt_state)
    ro = torch.get(whole("ro"))
    if len(records) != 1 or (ro is not None and ro.shape != records[0].ro.shape):
        return None

    def write(state: LBFGSState) -> LBFGSState:
        slots = (*COUNTS, *NUMBERS, "ro", "num_old")
        made = {n: torch[whole(n)] for n in slots if whole(n) in torch}
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


def whole(slot: str) -> Leaf:
    """A slot that belongs to all parameters together."""
    return Leaf("state", f"{WHOLE}.{slot}")


def _arrays(tree: PyTree) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in named_leaves(tree).items()}


def _records(opt_state: PyTree) -> list[LBFGSState]:
    leaves: Iterable[Any] = jax.tree.leaves(opt_state, is_leaf=_is_record)
    return [x for x in leaves if _is_record(x)]


def _is_record(x: Any) -> bool:
    return isinstance(x, LBFGSState)
