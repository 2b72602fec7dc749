"""instep.optim.lbfgs against torch.optim.LBFGS, re-synchronised before every step."""

import copy
import math
from dataclasses import dataclass, replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.optim.lbfgs import _strong_wolfe
from torch.testing._internal.common_optimizers import optim_db

import instep
from conftest import array, assert_bitwise, assert_in_step
from instep.optim import LBFGSState, lbfgs
from instep.optim._wolfe import Point, strong_wolfe
from instep.parity._floor import OneUlp
from instep.parity._tolerance import (
    DRAWS,
    FLOOR_FACTOR,
    LOOKS,
    NOISE,
    ROUNDING_FACTOR,
    ROUNDING_ULPS,
)


RELATIVE = 1e-10
CONVERGED = 1e-6  # norm of the gradient

SHAPES = {"kernel": (5, 2, 2, 2), "bias": (5,), "matrix": (5, 3), "scale": ()}


def start() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


@cache
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


VALLEY = {"x": np.array([-1.2, 1.0, -0.5, 0.8])}  # the minimum is 0, at ones


def rosenbrock(p):
    """For both: a tensor of either library has these operators."""
    x, y = p["x"][:-1], p["x"][1:]
    return ((1.0 - x) ** 2 + 100.0 * (y - x**2) ** 2).sum()


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
        """Not by deepcopy: torch.optim.LBFGS loses its parameters there."""
        params = {n: array(p) for n, p in self.p.items()}
        dtype = next(iter(self.p.values())).dtype
        twin = Torch(params, self.optimizer.defaults, self.loss, self.absent, dtype)
        for name, value in self.state.items():
            twin.state[name] = value.clone() if torch.is_tensor(value) else copy.copy(value)
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
                floor = 0.0
                for seed in range(DRAWS):  # further ones can but raise the floor
                    if len(draws) == seed:
                        draws.append(before.moved(seed))
                    floor = max(floor, change(draws[seed][name], rows, i))
                    if error[i] <= FLOOR_FACTOR * floor:
                        break
                self.floors += 1
                self.noise += bool(floor > NOISE * largest[i])
                message = f"{error[i]:.3g} of {largest[i]:.3g}, floor {floor:.3g}"
                assert error[i] <= FLOOR_FACTOR * floor, f"{what}: {name}[{i}]: {message}"
                self.ratio = max(self.ratio, error[i] / floor)


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
    "few evaluations": {"max_eval": 3, "lr": 0.1},
    "few evaluations, searched": {"max_eval": 5} | WOLFE,
    "no evaluation left to search": {"max_eval": 1} | WOLFE,
    "far first trial": {"lr": 300.0, "max_iter": 5} | WOLFE,
    "near first trial": {"lr": 1e-3, "max_iter": 3} | WOLFE,
    "gradient tolerance": {"tolerance_grad": 3.0, "lr": 0.1},
    "gradient tolerance, searched": {"tolerance_grad": 3.0} | WOLFE,
    "change tolerance": {"tolerance_change": 1e-2, "lr": 0.1},
    "change tolerance, searched": {"tolerance_change": 1e-2} | WOLFE,
    "flat at once": {"tolerance_change": 1e6},
    "no tolerance": {"tolerance_change": -1.0, "tolerance_grad": -1.0, "lr": 0.1},
    "no move": {"lr": 0.0},
}


@pytest.mark.parametrize("name", CASES)
def test_small_cases(name, x64):
    tally = walk(CASES[name], 10, VALLEY, (rosenbrock, rosenbrock))
    print(name, tally)
    assert tally.noise == 0


@pytest.mark.parametrize("options", [{}, WOLFE], ids=["fixed", "searched"])
def test_absent_gradient_counts_as_zeros(options, x64):
    """In the first gradient and in those of the closure."""
    assert walk({"max_iter": 4} | options, 3, absent=("matrix",)).leaves > 50


@pytest.mark.parametrize("options", [{"lr": 0.1}, WOLFE], ids=["fixed", "searched"])
def test_reaches_the_minimum_of_rosenbrock(options, x64):
    tx = lbfgs(**options, tolerance_change=1e-16)
    params = {"x": jnp.array([-1.2, 1.0])}
    step, state = compiled(tx, rosenbrock), tx.init(params)
    for _ in range(20):
        params, state = step(params, state)
    np.testing.assert_allclose(params["x"], 1.0, rtol=1e-7)


@pytest.mark.parametrize(
    "options", [{"max_iter": 1}, {}, WOLFE], ids=["once", "fixed", "searched"]
)
def test_nan_goes_where_torch_takes_it(options, x64):
    """No comparison with NaN ends a step, neither there nor here."""
    nan = {"x": np.array([np.nan, 1.0])}
    side = Torch(nan, options, rosenbrock)
    tx = lbfgs(**options)
    params = {"x": jnp.asarray(nan["x"])}
    params, state = compiled(tx, rosenbrock)(params, tx.init(params))
    side.step()
    right, ours = observe(side.p, side.state), observe(params, to_torch(state, nan))
    assert right.keys() == ours.keys()
    for name, value in right.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_no_iteration_changes_nothing(x64):
    """PyTorch stores None for all of its state then: nothing to compare with."""
    tx = lbfgs(max_iter=0)
    params = {"x": jnp.asarray(VALLEY["x"])}
    moved, state = compiled(tx, rosenbrock)(params, tx.init(params))
    assert_bitwise(moved, params)
    expected = replace(tx.init(params), func_evals=jnp.ones((), jnp.int32))
    assert_bitwise(replace(state, hyperparams=expected.hyperparams), expected)


def wave(x, a):
    """Functions of one number, bounded below, with one valley or many."""
    sin = torch.sin if torch.is_tensor(x) else jnp.sin
    return a[0] * x + a[1] * x**2 + a[2] ** 2 * x**4 + a[3] * sin(a[4] * x)


def wave_slope(x, a):
    return float(jax.grad(wave)(jnp.asarray(x), a))


def torch_search(a, x, t, max_ls) -> np.ndarray:
    """Down the gradient from x: step length, loss, gradient, evaluations."""

    def evaluate(x, t, d):
        x = (x + t * d).detach().requires_grad_()
        f = wave(x, a).sum()
        f.backward()
        return f.item(), x.grad

    here = torch.tensor([x])
    f, g = evaluate(here, 0.0, here)
    f, g, t, evals = _strong_wolfe(evaluate, here, t, -g, f, g, g.dot(-g), max_ls=max_ls)
    return np.array([float(t), f, float(g[0]), evals])


@jax.jit
def jax_search(a, x, t, max_ls):
    f, g = jax.value_and_grad(wave)(x, a)

    def at(t):
        f, g_new = jax.value_and_grad(wave)(x - t * g, a)
        return Point(t, f, g_new, -g_new * g)

    start = Point(jnp.zeros_like(t), f, g, -g * g)
    best, evals = strong_wolfe(at, start, t, jnp.abs(g), max_ls)
    return best.t, best.f, best.g, evals


def test_line_search_alone(x64):
    """The same point after as many evaluations, from 300 places on 300 functions."""
    rng, evaluations, noise = np.random.default_rng(0), [], 0
    for i in range(300):
        a = rng.normal(size=5) * [1.0, 1.0, 0.3, 2.0, 3.0]
        x, t, max_ls = 2 * rng.normal(), 10.0 ** rng.uniform(-3, 2), int(rng.integers(0, 25))
        right = torch_search(a, x, t, max_ls)
        error = np.abs(right - np.array(jax_search(a, jnp.asarray(x), jnp.asarray(t), max_ls)))
        evaluations.append(right[-1])
        if np.all(error <= RELATIVE * np.abs(right)):
            continue
        floor = np.zeros(4)
        for seed in range(LOOKS):  # the sign of a square near zero turns the search elsewhere
            with OneUlp(seed, size=1 << 10):
                moved = torch_search(a, x, t, max_ls)
            floor = np.maximum(floor, np.abs(moved - right))
            if np.all(error <= np.maximum(RELATIVE * np.abs(right), FLOOR_FACTOR * floor)):
                break
        else:
            raise AssertionError(f"function {i}: {error} beyond {floor}")
        noise += bool(np.any(floor > NOISE * np.abs(right)))
    assert min(evaluations) == 1 and max(evaluations) > 10
    assert noise < 10


def test_of_two_equal_losses_the_first_wins(x64):
    """From 1 to -1 on a parabola, with no evaluation left: PyTorch stays."""

    def parabola(p):
        return (p["x"] ** 2).sum()

    options = {"lr": 2.0, "max_eval": 1} | WOLFE
    side, tx = Torch({"x": np.ones(1)}, options, parabola), lbfgs(**options)
    side.step()
    params = {"x": jnp.ones(1)}
    params, state = compiled(tx, parabola)(params, tx.init(params))
    assert side.p["x"].item() == float(params["x"][0]) == 1.0
    assert float(side.state["t"]) == float(state.t) == 0.0


def test_the_second_trial_may_be_higher_than_the_first(x64):
    """PyTorch compares with the trial before from the third on; the book from the second."""
    a, x, t = np.array([-0.8, 0.64, 0.1, -0.6, 2.53]), 2.3, 0.45
    right = torch_search(a, x, t, 20)
    np.testing.assert_allclose(jax_search(a, jnp.asarray(x), jnp.asarray(t), 20), right, 1e-10)
    assert right[-1] == 2 and right[1] > wave(x - t * wave_slope(x, a), a)


@pytest.mark.parametrize("options", [{}, WOLFE], ids=["fixed", "searched"])
def test_float32_rounds_no_worse_than_torch(options):
    """One step, against PyTorch's in float64 from the same bits."""
    options = {"max_iter": 4, "lr": 0.5} | options
    params = {n: np.float32(v) for n, v in start().items()}
    low, exact = (Torch(params, options, dtype=d) for d in (torch.float32, torch.float64))
    low.step()
    exact.step()
    tx = lbfgs(**options)
    ours = {n: jnp.asarray(v) for n, v in params.items()}
    ours, state = compiled(tx)(ours, tx.init(ours))
    assert (int(state.n_iter), int(state.func_evals)) == (
        low.state["n_iter"],
        low.state["func_evals"],
    )
    for n, p in exact.p.items():
        oracle = array(p)
        error, torch_error = (
            np.sqrt(np.mean((array(x).astype(float) - oracle) ** 2))
            for x in (ours[n], low.p[n])
        )
        assert ours[n].dtype == np.float32
        ulp = np.spacing(np.float32(np.abs(oracle).max()))
        assert error <= ROUNDING_FACTOR * torch_error + ROUNDING_ULPS * ulp, n


def test_bfloat16_parameters_have_float32_state():
    """The loss goes down, and what is returned has the dtype of the parameters."""
    params = {"x": jnp.asarray(VALLEY["x"], jnp.bfloat16)}
    tx = lbfgs(lr=0.1, max_iter=5)
    step, state = compiled(tx, rosenbrock), tx.init(params)
    for _ in range(5):
        params, state = step(params, state)
    assert rosenbrock(params) < 0.1 * rosenbrock(jax.tree.map(jnp.asarray, VALLEY))
    assert (params["x"].dtype, state.d["x"].dtype) == (jnp.bfloat16, jnp.float32)


def test_mixed_dtypes_compute_in_the_widest(x64):
    params = {"x": jnp.ones(3, jnp.float32), "y": (jnp.ones(()), None)}
    tx = lbfgs(max_iter=3)
    closure = jax.value_and_grad(lambda p: jnp.sum(p["x"] ** 2).astype(float) + p["y"][0] ** 2)
    loss, grads = closure(params)
    updates, state = tx.update(grads, tx.init(params), params, value=loss, closure=closure)
    assert jax.tree.map(jnp.result_type, updates) == jax.tree.map(jnp.result_type, params)
    assert {x.dtype.name for x in jax.tree.leaves(state.d)} == {"float64"}


def test_traced_once_whatever_the_learning_rate(x64):
    """Set by hand, as param_groups[0]["lr"] is: the closure is traced once for all steps."""
    side = Torch(VALLEY, {"lr": 0.1, "max_iter": 3}, rosenbrock)
    tx = lbfgs(lr=0.1, max_iter=3)
    params = {"x": jnp.asarray(VALLEY["x"])}
    state, traces = tx.init(params), 0

    def counted(params):
        nonlocal traces
        traces += 1
        return rosenbrock(params)

    step = compiled(tx, counted)
    for lr in (0.1, 0.03, 0.7):
        side.optimizer.param_groups[0]["lr"] = lr
        state = instep.optim.set_hyperparams(state, lr=lr)
        side.step()
        params, state = step(params, state)
        assert_in_step(side.p["x"], params["x"])
    assert traces == 2  # value and grads, and the closure in the loop
    assert float(instep.optim.hyperparams(state)["lr"]) == 0.7


def test_a_schedule_counts_updates(x64):
    rates = [0.1, 0.05, 0.025]
    tx = lbfgs(lr=lambda count: 0.1 * 0.5 ** count.astype(float), max_iter=3)
    side = Torch(VALLEY, {"lr": 0.1, "max_iter": 3}, rosenbrock)
    params = {"x": jnp.asarray(VALLEY["x"])}
    step, state = compiled(tx, rosenbrock), tx.init(params)
    for lr in rates:
        side.optimizer.param_groups[0]["lr"] = lr
        side.step()
        params, state = step(params, state)
        assert_in_step(side.p["x"], params["x"])


def test_composes_with_optax(x64):
    """The closure passes through the chain; powers of two, so that equality is exact."""
    alone, chained = lbfgs(max_iter=3), optax.chain(lbfgs(max_iter=3), optax.scale(0.5))
    params = {"x": jnp.asarray(VALLEY["x"])}
    closure = jax.value_and_grad(rosenbrock)
    loss, grads = closure(params)
    given = {"value": loss, "closure": closure}
    a, state = alone.update(grads, alone.init(params), params, **given)
    b, chain_state = chained.update(grads, chained.init(params), params, **given)
    assert_bitwise({"x": 0.5 * a["x"]}, b)
    assert_bitwise(state, chain_state[0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": -0.1}, ValueError, r"Invalid lr: -0.1. It must lie in \[0, inf\)"),
        ({"lr": np.ones(2)}, ValueError, r"lr must be a scalar; got shape \(2,\)"),
        ({"line_search_fn": "armijo"}, ValueError, "'strong_wolfe' or None; got 'armijo'"),
        ({"history_size": 0}, ValueError, "Invalid history_size: 0. It must be at least 1"),
        ({"max_eval": 0} | WOLFE, ValueError, "Invalid max_eval: 0. A line search needs"),
        ({"max_iter": 2.5}, TypeError, "max_iter must be an integer; got 2.5"),
        ({"max_eval": "3"}, TypeError, "max_eval must be an integer; got '3'"),
        ({"history_size": 1.0}, TypeError, "history_size must be an integer; got 1.0"),
        ({"tolerance_grad": lambda count: 0.1}, TypeError, "tolerance_grad must be a number"),
        ({"tolerance_change": None}, TypeError, "tolerance_change must be a number"),
    ],
)
def test_out_of_range(options, error, message):
    with pytest.raises(error, match=message):
        lbfgs(**options)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("closure", r"needs \['closure'\] too.*jax.value_and_grad.*closure=closure"),
        ("value", r"needs \['value'\] too.*value=loss"),
        ("params", r"needs \['params'\] too.*tx.update\(grads, state, params"),
    ],
)
def test_what_update_needs(missing, message):
    tx, params = lbfgs(), {"x": jnp.ones(2)}
    closure = jax.value_and_grad(rosenbrock)
    loss, grads = closure(params)
    given = {"params": params, "value": loss, "closure": closure}
    del given[missing]
    with pytest.raises(ValueError, match=message):
        tx.update(grads, tx.init(params), **given)


def test_a_loss_that_is_no_scalar():
    tx, params = lbfgs(), {"x": jnp.ones(2)}
    closure = jax.value_and_grad(lambda p: (rosenbrock(p), jnp.ones(2)), has_aux=True)
    (loss, _), grads = closure(params)
    with pytest.raises(ValueError, match=r"the loss must be a scalar.*value_and_grad"):
        tx.update(grads, tx.init(params), params, value=loss, closure=closure)


def test_parameters_that_cannot_be_trained():
    with pytest.raises(TypeError, match="real floating arrays"):
        lbfgs().init({"x": jnp.ones(2, int)})
    with pytest.raises(ValueError, match="no leaves"):
        lbfgs().init({})


@pytest.mark.parametrize("name", ["instep", "optax"])
def test_the_fused_step_gives_the_closure(name, x64):
    """One step is one .step(closure) of PyTorch; optax's line search finds its value_fn."""
    p = {n: torch.tensor(v, requires_grad=True) for n, v in start().items()}
    optimizer = torch.optim.LBFGS(p.values(), line_search_fn="strong_wolfe", max_iter=3)
    x, y = batch()

    def closure():
        optimizer.zero_grad()
        loss = torch_loss(p)
        loss.backward()
        return loss

    tx = instep.optim.lbfgs(line_search_fn="strong_wolfe", max_iter=3)
    tx = tx if name == "instep" else optax.lbfgs()
    step = instep.make_train_step(lambda params, batch: jax_loss(params), tx)
    state = instep.init_state(jax.tree.map(jnp.asarray, start()), tx)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers
        state, first = step(state, (x, y))
        state, second = step(state, (x, y))
    assert step._cache_size() == 1
    assert second.loss < first.loss
    if name == "instep":
        theirs = [optimizer.step(closure).item() for _ in range(2)]
        assert_in_step(np.array(theirs), np.array([first.loss, second.loss]))
