"""instep.optim.lbfgs against torch.optim.LBFGS, re-synchronised before every step."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.testing._internal.common_optimizers import optim_db

import instep
from conftest import array
from instep.optim import lbfgs
from instep.parity._floor import OneUlp
from instep.parity._tolerance import DRAWS, FLOOR_FACTOR, NOISE


RELATIVE = 1e-10
STEPS = 100
CONVERGED = 1e-6  # norm of the gradient

SHAPES = {"kernel": (5, 2, 2, 2), "bias": (5,), "matrix": (5, 3), "scale": ()}


def start() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(16, 2, 2, 2))
    return x, np.stack([x[:, 0, 0, 0], np.sin(x[:, 1, 1, 0]), x.mean((1, 2, 3))], axis=1)


def torch_loss(p):
    x, y = (torch.tensor(a, dtype=p["scale"].dtype) for a in batch())
    h = torch.tanh(torch.einsum("nabc,kabc->nk", x, p["kernel"]) + p["bias"])
    return torch.mean((p["scale"] * (h @ p["matrix"]) - y) ** 2)


def jax_loss(p):
    x, y = (jnp.asarray(a, p["scale"].dtype) for a in batch())
    h = jnp.tanh(jnp.einsum("nabc,kabc->nk", x, p["kernel"]) + p["bias"][None])
    return jnp.mean((p["scale"] * (h @ p["matrix"]) - y) ** 2)


class Torch:
    """Parameters, ``torch.optim.LBFGS`` and a closure."""

    def __init__(self, params, loss=torch_loss, absent=(), **options):
        self.p = {n: torch.tensor(v, requires_grad=True) for n, v in params.items()}
        self.optimizer = torch.optim.LBFGS(self.p.values(), **options)
        self.loss, self.absent = loss, absent

    @property
    def state(self) -> dict:
        return self.optimizer.state[next(iter(self.p.values()))]

    def closure(self):
        self.optimizer.zero_grad()
        loss = self.loss(self.p)
        loss.backward()
        for name in self.absent:
            self.p[name].grad = None
        return loss

    def step(self) -> float:
        return self.optimizer.step(self.closure).item()

    def copy(self) -> "Torch":
        twin = copy.deepcopy(self)
        twin.optimizer._params = twin.optimizer.param_groups[0]["params"]  # lost by torch
        twin.optimizer._numel_cache = None
        return twin

    def moved(self, seed: int) -> "Torch":
        """A copy that makes the next step with every parameter moved by one ulp."""
        twin = self.copy()
        one_ulp = OneUlp(seed)
        with torch.no_grad():
            for p in twin.p.values():
                one_ulp.move(p)
        twin.step()
        return twin

    def seen(self) -> dict[str, np.ndarray]:
        return observe(self.p, self.state)


def observe(params, state: dict) -> dict[str, np.ndarray]:
    """Every parameter and every number of an LBFGS state, by name; ``al`` is scratch."""
    seen = {f"param {name}": array(value) for name, value in params.items()}
    for name, value in state.items():
        if isinstance(value, list) and name != "al":
            seen |= {f"{name}[{i}]": array(x) for i, x in enumerate(value)}
        elif name != "al":
            seen[name] = np.asarray(array(value))
    return {name: value.astype(float) for name, value in seen.items()}


def from_torch(state: dict, like):
    """The LBFGSState of a torch.optim.LBFGS state; ``like`` is tx.init(params)."""
    counts = {n: jnp.asarray(state.get(n, 0), jnp.int32) for n in ("func_evals", "n_iter")}
    if not counts["n_iter"]:
        return dataclasses.replace(like, **counts)

    def tree(flat):
        pieces = torch.split(flat, [int(np.prod(s)) for s in SHAPES.values()])
        named = zip(SHAPES.items(), pieces, strict=True)
        return {n: array(piece).reshape(shape) for (n, shape), piece in named}

    def rows(vectors):
        trees = [tree(v) for v in vectors]
        return {
            n: jnp.zeros_like(zeros).at[: len(trees)].set(np.array([t[n] for t in trees]))
            if trees
            else zeros
            for n, zeros in like.old_dirs.items()
        }

    def scalar(x):
        return jnp.asarray(float(x), like.t.dtype)

    return dataclasses.replace(
        like,
        **counts,
        d=jax.tree.map(jnp.asarray, tree(state["d"])),
        t=scalar(state["t"]),
        old_dirs=rows(state["old_dirs"]),
        old_stps=rows(state["old_stps"]),
        ro=like.ro.at[: len(state["ro"])].set(jnp.array([scalar(r) for r in state["ro"]] or 0.0)),
        num_old=jnp.asarray(len(state["old_dirs"]), jnp.int32),
        H_diag=scalar(state["H_diag"]),
        prev_flat_grad=jax.tree.map(jnp.asarray, tree(state["prev_flat_grad"])),
        prev_loss=scalar(state["prev_loss"]),
    )


def to_torch(state) -> dict:
    """The torch.optim.LBFGS state of an LBFGSState."""
    counts = {"func_evals": int(state.func_evals), "n_iter": int(state.n_iter)}
    if not counts["n_iter"]:
        return counts
    n = int(state.num_old)

    def flat(tree):
        return torch.cat([torch.tensor(np.asarray(tree[name])).reshape(-1) for name in SHAPES])

    def rows(tree):
        assert all(not np.any(np.asarray(x[n:])) for x in tree.values())
        return [flat({name: x[i] for name, x in tree.items()}) for i in range(n)]

    assert not np.any(np.asarray(state.ro[n:]))
    return counts | {
        "d": flat(state.d),
        "t": float(state.t),
        "old_dirs": rows(jax.device_get(state.old_dirs)),
        "old_stps": rows(jax.device_get(state.old_stps)),
        "ro": list(torch.tensor(np.asarray(state.ro[:n]))),
        "H_diag": float(state.H_diag),
        "prev_flat_grad": flat(state.prev_flat_grad),
        "prev_loss": float(state.prev_loss),
    }
