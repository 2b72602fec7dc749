"""instep.optim.lbfgs against torch.optim.LBFGS, re-synchronised before every step."""

import copy
import math
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.testing._internal.common_optimizers import optim_db

from conftest import array, assert_bitwise
from instep.optim import LBFGSState, lbfgs
from instep.parity._floor import OneUlp
from instep.parity._tolerance import DRAWS, FLOOR_FACTOR, NOISE


RELATIVE = 1e-10
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

    def __init__(self, params, options, loss=torch_loss, absent=(), dtype=torch.float64):
        self.p = {
            n: torch.tensor(v, dtype=dtype, requires_grad=True) for n, v in params.items()
        }
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
        twin.optimizer._params = twin.optimizer.param_groups[0]["params"]  # torch loses it
        twin.optimizer._numel_cache = None
        return twin

    def moved(self, seed: int) -> dict[str, np.ndarray]:
        """What a copy shows that makes this step from parameters moved by one ulp."""
        twin, one_ulp = self.copy(), OneUlp(seed, size=1 << 10)
        with torch.no_grad():
            for p in twin.p.values():
                one_ulp.move(p)
        twin.step()
        return observe(twin.p, twin.state)

    def gradient_norm(self) -> float:
        return math.sqrt(sum(float((p.grad**2).sum()) for p in self.p.values()))


def observe(params, state: dict) -> dict[str, np.ndarray]:
    """Every parameter and every number of an LBFGS state: rows, each one tensor of torch's."""
    seen = {f"param {name}": array(value).reshape(1, -1) for name, value in params.items()}
    for name, value in state.items():
        if name != "al":  # scratch: written before it is read
            tensors = value if isinstance(value, list) else [value]
            rows = [np.ravel(array(x)) for x in tensors]
            seen[name] = np.array(rows, float).reshape(len(rows), rows[0].size if rows else 0)
    return seen


def from_torch(state: dict, like: LBFGSState, names) -> LBFGSState:
    """The LBFGSState of a torch.optim.LBFGS state.

    Args:
      like: tx.init(params).
      names: of the parameters, in the order of torch's.
    """
    counts = {n: jnp.asarray(state.get(n, 0), jnp.int32) for n in ("func_evals", "n_iter")}
    if not counts["n_iter"]:
        return replace(like, **counts)

    def tree(flat, leading=()):
        ends = np.cumsum([like.d[n].size for n in names])
        pieces = zip(names, np.split(flat, ends[:-1], axis=-1), strict=True)
        return {n: jnp.asarray(x.reshape(leading + like.d[n].shape)) for n, x in pieces}

    def rows(vectors):
        flat = np.zeros((like.ro.size, array(state["d"]).size), like.t.dtype)
        for i, vector in enumerate(vectors):
            flat[i] = array(vector)
        return tree(flat, like.ro.shape)

    def scalar(x):
        return jnp.asarray(float(x), like.t.dtype)

    ro = np.zeros(like.ro.size, like.t.dtype)
    ro[: len(state["ro"])] = [float(r) for r in state["ro"]]
    return replace(
        like,
        **counts,
        d=tree(array(state["d"])),
        t=scalar(state["t"]),
        old_dirs=rows(state["old_dirs"]),
        old_stps=rows(state["old_stps"]),
        ro=jnp.asarray(ro),
        num_old=jnp.asarray(len(state["old_dirs"]), jnp.int32),
        H_diag=scalar(state["H_diag"]),
        prev_flat_grad=tree(array(state["prev_flat_grad"])),
        prev_loss=scalar(state["prev_loss"]),
    )


def to_torch(state: LBFGSState, names) -> dict:
    """The torch.optim.LBFGS state of an LBFGSState; ``names`` as for ``from_torch``."""
    state = jax.device_get(state)
    counts = {"func_evals": int(state.func_evals), "n_iter": int(state.n_iter)}
    if not counts["n_iter"]:
        return counts
    n, m = int(state.num_old), state.ro.size

    def flat(tree):
        return torch.tensor(np.concatenate([tree[name].ravel() for name in names]))

    def rows(tree):
        flat = np.concatenate([tree[name].reshape(m, -1) for name in names], axis=1)
        assert not flat[n:].any()
        return list(torch.tensor(flat[:n]))

    assert not state.ro[n:].any()
    return counts | {
        "d": flat(state.d),
        "t": float(state.t),
        "old_dirs": rows(state.old_dirs),
        "old_stps": rows(state.old_stps),
        "ro": list(torch.tensor(state.ro[:n])),
        "H_diag": float(state.H_diag),
        "prev_flat_grad": flat(state.prev_flat_grad),
        "prev_loss": float(state.prev_loss),
    }


@dataclass
class Tally:
    """How many leaves agree, why, and how far the worst of them is off."""

    leaves: int = 0
    floors: int = 0  # beyond RELATIVE, within the floor
    noise: int = 0  # of which the floor is beyond NOISE: they prove nothing
    relative: float = 0.0  # worst error / max|leaf|
    ratio: float = 0.0  # worst error / floor, where beyond RELATIVE

    def judge(self, before: Torch, right: dict, ours: dict, what: str) -> None:
        assert right.keys() == ours.keys(), what
        draws: list[dict] = []
        for name, rows in right.items():
            assert rows.shape == ours[name].shape, f"{what}: {name}"
            largest = np.max(np.abs(rows), axis=1, initial=0.0)
            error = np.max(np.abs(rows - ours[name]), axis=1, initial=0.0)
            error = np.where(np.all((rows == ours[name]), axis=1), 0.0, error)
            self.leaves += len(rows)
            self.relative = max(self.relative, *(error / np.maximum(largest, 1e-300)), 0.0)
            for i in np.flatnonzero(~(error <= RELATIVE * largest)):
                draws = draws or [before.moved(seed) for seed in range(DRAWS)]
                floor = max(change(draw[name], rows, i) for draw in draws)
                self.floors += 1
                self.noise += bool(floor > NOISE * largest[i])
                self.ratio = max(self.ratio, error[i] / floor)
                message = f"{error[i]:.3g} of {largest[i]:.3g}, floor {floor:.3g}"
                assert error[i] <= FLOOR_FACTOR * floor, f"{what}: {name}[{i}]: {message}"


def change(moved: np.ndarray, rows: np.ndarray, i: int) -> float:
    """How far torch's own row moved; not at all where one of the two has no such row."""
    return float(np.max(np.abs(moved[i] - rows[i]))) if len(moved) == len(rows) else 0.0


def compiled(tx, loss=jax_loss, absent=()):
    """The step of a JAX user: ``(params, state) -> (params, state)``."""

    def closure(params):
        loss_value, grads = jax.value_and_grad(loss)(params)
        return loss_value, {n: None if n in absent else g for n, g in grads.items()}

    @jax.jit
    def step(params, state):
        value, grads = closure(params)
        updates, state = tx.update(grads, state, params, value=value, closure=closure)
        return optax.apply_updates(params, updates), state

    return step


def walk(options, steps, params=None, losses=(torch_loss, jax_loss), absent=()) -> Tally:
    """Both sides beside each other; JAX starts every step from where torch stands."""
    params = start() if params is None else params
    side = Torch(params, options, losses[0], absent)
    tx = lbfgs(**{k: float(v) if torch.is_tensor(v) else v for k, v in options.items()})
    like = tx.init({n: jnp.asarray(v) for n, v in params.items()})
    step, tally = compiled(tx, losses[1], absent), Tally()
    for i in range(steps):
        ours = {n: jnp.asarray(array(p)) for n, p in side.p.items()}
        ours, state = step(ours, from_torch(side.state, like, params))
        before = side.copy()
        side.step()
        right = observe(side.p, side.state)
        tally.judge(before, right, observe(ours, to_torch(state, params)), f"step {i}")
        if not absent and side.gradient_norm() <= CONVERGED:
            break
    return tally


LBFGS = next(info for info in optim_db if info.optim_cls is torch.optim.LBFGS)
CONFIGURATIONS = {x.desc: x.kwargs for x in LBFGS.optim_inputs_func("cpu")}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_torch_configurations_100_steps(name, x64):
    tally = walk(CONFIGURATIONS[name], 100)
    print(name, tally)
    assert tally.leaves > 1000
    assert tally.noise * 1000 < tally.leaves


WOLFE = {"line_search_fn": "strong_wolfe"}
CASES = {
    "history shifts": {"history_size": 3, "lr": 0.1},
    "history of one, searched": {"history_size": 1} | WOLFE,
    "one iteration": {"max_iter": 1, "lr": 0.1},
    "one iteration, searched": {"max_iter": 1} | WOLFE,
    "no iteration": {"max_iter": 0},
    "few evaluations": {"max_eval": 3, "lr": 0.1},
    "few evaluations, searched": {"max_eval": 5} | WOLFE,
    "no evaluation left to search": {"max_eval": 1} | WOLFE,
    "far first trial": {"lr": 300.0, "max_iter": 5} | WOLFE,
    "near first trial": {"lr": 1e-3, "max_iter": 3} | WOLFE,
    "gradient tolerance": {"tolerance_grad": 0.3, "lr": 0.1},
    "gradient tolerance, searched": {"tolerance_grad": 0.3} | WOLFE,
    "change tolerance": {"tolerance_change": 1e-2, "lr": 0.1},
    "change tolerance, searched": {"tolerance_change": 1e-2} | WOLFE,
    "flat at once": {"tolerance_change": 1e6},
    "no tolerance": {"tolerance_change": -1, "tolerance_grad": -1, "lr": 0.1},
    "no move": {"lr": 0.0},
}


@pytest.mark.parametrize("name", CASES)
def test_small_cases(name, x64):
    if name == "no iteration":
        return no_iteration()
    tally = walk(CASES[name], 10)
    assert tally.noise == 0


def no_iteration():
    """torch stores None for all of its state then, so there is nothing to compare with."""
    tx = lbfgs(max_iter=0)
    params = {n: jnp.asarray(v) for n, v in start().items()}
    moved, state = compiled(tx)(params, tx.init(params))
    assert_bitwise(moved, params)
    assert_bitwise(state, replace(tx.init(params), func_evals=jnp.ones((), jnp.int32)), "")
