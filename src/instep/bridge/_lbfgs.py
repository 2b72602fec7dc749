"""The state of torch.optim.LBFGS, whose vectors hold all parameters end to end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import torch

from .._trees import named_leaves
from ..optim import LBFGSState
from ._arrays import tensor_to_array
from ._opt_state import COUNTS, HISTORIES, NUMBERS, VECTORS
from ._places import Places
from ._weights import arrays_to_jax, arrays_to_torch


def lbfgs_from_torch(
    like: LBFGSState, optimizer: torch.optim.Optimizer, where: Places
) -> LBFGSState:
    """``like`` with the state that PyTorch keeps at its first parameter."""
    first = next(iter(where.tensors.values()))
    theirs: dict[str, Any] = dict(optimizer.state.get(first, {}))
    made = {name: np.asarray(theirs.get(name, 0), np.int32) for name in COUNTS}
    if "old_dirs" not in theirs:  # no step, or only such as stopped before they began
        return replace(like, **made)
    made |= {name: _tree(tensor_to_array(theirs[name]), like.d, where) for name in VECTORS}
    made |= {name: np.asarray(float(theirs[name]), like.t.dtype) for name in NUMBERS}
    n = len(theirs["ro"])
    ro = np.zeros_like(like.ro)
    ro[:n] = [float(x) for x in theirs["ro"]]
    for name in HISTORIES:
        trees = [_tree(tensor_to_array(row), like.d, where) for row in theirs[name]]
        made[name] = jax.tree.map(
            lambda empty, *rows: np.concatenate([np.stack(rows), empty[n:]]) if rows else empty,
            jax.tree.map(np.asarray, getattr(like, name)),
            *trees,
        )
    return replace(like, **made, ro=ro, num_old=np.asarray(n, np.int32))


def lbfgs_to_torch(state: LBFGSState, where: Places) -> dict[str, Any]:
    """What PyTorch keeps at its first parameter."""
    state = jax.device_get(state)
    counts = {name: int(getattr(state, name)) for name in COUNTS}
    if not counts["n_iter"]:
        return counts if counts["func_evals"] else {}
    n, like = int(state.num_old), next(iter(where.tensors.values()))

    def flat(tree: Any) -> torch.Tensor:
        arrays = arrays_to_torch(where.links, named_leaves(tree))
        joined = np.concatenate([np.ravel(arrays[name]) for name in where.tensors])
        return torch.from_numpy(joined).to(like)

    made: dict[str, Any] = {name: flat(getattr(state, name)) for name in VECTORS}
    made |= {name: float(getattr(state, name)) for name in NUMBERS}
    if n:  # before, it is the number 1
        made["H_diag"] = torch.tensor(made["H_diag"]).to(like)
    for name in HISTORIES:
        history = getattr(state, name)
        made[name] = [flat(jax.tree.map(lambda x, i=i: x[i], history)) for i in range(n)]
    return counts | made | {"ro": [torch.tensor(float(x)).to(like) for x in state.ro[:n]]}


def _tree(flat: np.ndarray, like: Any, where: Places) -> Any:
    """The tree of a vector that holds all parameters end to end."""
    sizes = [p.numel() for p in where.tensors.values()]
    pieces = np.split(flat, np.cumsum(sizes)[:-1])
    arrays = {
        name: piece.reshape(tuple(p.shape))
        for (name, p), piece in zip(where.tensors.items(), pieces, strict=True)
    }
    named = arrays_to_jax(where.links, arrays)
    leaves = [np.asarray(named[name], leaf.dtype) for name, leaf in named_leaves(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
