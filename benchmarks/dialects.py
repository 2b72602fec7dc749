"""What optax and flax do differently from PyTorch, by how much, and what instep does.

    python benchmarks/dialects.py            measures every row and writes docs/dialects.md
    python benchmarks/dialects.py --check    exit 1 if a number has changed its magnitude

The code in a cell is the code that was run: it is evaluated from the table below. Rows whose
cells say less than a whole loop have a loop of their own under "the loops".
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple


os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax.training.dynamic_scale import DynamicScale
from torch.optim import lr_scheduler, swa_utils

import instep


PAGE = Path(__file__).parent.parent / "docs" / "dialects.md"
ROUNDING = 1e-12  # what is smaller is rounding in float64
STEPS = 50
RATES = 100


class Difference(NamedTuple):
    """From PyTorch: of instep, of the neighbour, and that over the distance travelled."""

    ours: float
    other: float
    of_the_way: float | None = None


@dataclass(frozen=True)
class Dialect:
    """One row: three pieces of code that mean to do the same."""

    torch: str
    ours: str
    other: str
    why: str
    measure: Callable[[Dialect], Difference]
    rounding: float = ROUNDING  # what instep's column may show; more only where why says it

    def __call__(self) -> Difference:
        with float64():
            return self.measure(self)


@contextmanager
def float64() -> Iterator[None]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with jax.enable_x64(True), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # schedulers stepped without an optimizer
            yield
    finally:
        torch.set_default_dtype(default)


def run(code: str, **names: Any) -> Any:
    """The value of a cell. They are all in this file: nothing else is evaluated."""
    return eval(code, {**NAMES, **names})


def optimizer_and_scheduler(code: str, params: list[torch.Tensor]) -> tuple[Any, Any]:
    """Of ``"optimizer"`` or ``"optimizer; scheduler"``."""
    first, *second = code.split("; ")
    opt = run(first, params=params)
    return opt, run(second[0], opt=opt) if second else None


NAMES = {
    "DynamicScale": DynamicScale,
    "instep": instep,
    "jnp": jnp,
    "lr_scheduler": lr_scheduler,
    "optax": optax,
    "swa_utils": swa_utils,
    "torch": torch,
}


# ------------------------------------------------------------------------------- the problem


def start() -> dict[str, np.ndarray]:
    """A network of 4, 6 and 3 units; matrices as PyTorch has them, (out, in)."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (6, 4), "b1": (6,), "w2": (3, 6), "b2": (3,)}
    return {n: 0.5 * rng.normal(size=shape) for n, shape in shapes.items()}


def data(n: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(32, 4))
    return x[:n], np.sin(x[:n] @ rng.normal(size=(4, 3)))


def loss(p, batch):
    """The mean squared error; the same text for arrays and for tensors."""
    x, y = batch
    tanh = torch.tanh if torch.is_tensor(x) else jnp.tanh
    return ((tanh(x @ p["w1"].T + p["b1"]) @ p["w2"].T + p["b2"] - y) ** 2).mean()


def mlp(params, step):
    del step
    return loss(params, data())


def matrices(params, step):
    biases = {n: v for n, v in start().items() if v.ndim == 1}
    return mlp(biases | params, step)


def table(params, step):
    """Of a table of 8 rows, each step looks up 3."""
    rows = jnp.asarray(looked_up())[step % 10]
    return jnp.mean((params["table"][rows] - 1.0 / (1.0 + rows[:, None])) ** 2)


def looked_up() -> np.ndarray:
    rng = np.random.default_rng(2)
    return np.stack([rng.choice(8, size=3, replace=False) for _ in range(10)])


class Problem(NamedTuple):
    loss: Callable[..., Any]
    start: dict[str, np.ndarray]
    absent: str = ""  # a leaf that has no gradient in the second half of the run
    rows: bool = False  # gradients are sparse


MLP = Problem(mlp, start())
ABSENT = MLP._replace(absent="w1")
MATRICES = Problem(matrices, {n: v for n, v in start().items() if v.ndim == 2})
TABLE = Problem(table, {"table": np.random.default_rng(3).normal(size=(8, 3))}, rows=True)


# ------------------------------------------------------------------------------- the loops


def trained(problem: Problem = MLP, steps: int = STEPS) -> Callable[[Dialect], Difference]:
    """Each takes ``steps`` steps with the gradient of one function at its own parameters."""

    def measure(row: Dialect) -> Difference:
        theirs = torch_trained(row.torch, problem, steps)
        ours = jax_trained(run(row.ours), problem, steps, ours=True)
        other = jax_trained(run(row.other), problem, steps)
        return compared(theirs, ours, other, problem.start)

    return measure


def compared(theirs, ours, other, start=None) -> Difference:
    return Difference(
        far(theirs, ours), far(theirs, other), start and far(theirs, other, since=start)
    )


def far(theirs, ours, since=None) -> float:
    """The worst leaf: max|difference| / max|leaf|, or / max|distance from ``since``|."""
    worst = 0.0
    for n, a in theirs.items():
        a, b = (np.asarray(x, np.float64) for x in (a, ours[n]))
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        d = np.where(same, 0.0, np.abs(a - b)).max()
        scale = np.abs(a - (0.0 if since is None else since[n]))
        finite = scale[np.isfinite(scale)].max(initial=0.0)
        worst = float(np.fmax(worst, d / finite if finite else d)) if d == d else math.nan
        if worst != worst:
            return worst
    return worst


def torch_trained(code: str, problem: Problem, steps: int) -> dict[str, np.ndarray]:
    p = {n: torch.tensor(v, requires_grad=True) for n, v in problem.start.items()}
    opt, scheduler = optimizer_and_scheduler(code, list(p.values()))
    gradient = jax.jit(jax.value_and_grad(problem.loss))

    def closure(step):
        value, grads = gradient({n: v.detach().numpy() for n, v in p.items()}, step)
        for n, g in grads.items():
            p[n].grad = torch.tensor(np.asarray(g))
            if n == problem.absent and step >= steps // 2:
                p[n].grad = None
            if problem.rows:
                rows = torch.tensor(np.sort(looked_up()[step % 10]))
                p[n].grad = torch.sparse_coo_tensor(rows[None], p[n].grad[rows], g.shape)
        return torch.tensor(float(value))

    for step in range(steps):
        opt.step(lambda step=step: closure(step))
        if scheduler:
            scheduler.step()
    return {n: v.detach().numpy() for n, v in p.items()}


def jax_trained(tx, problem: Problem, steps: int, ours: bool = False) -> dict[str, Any]:
    """Ours takes None for an absent gradient, optax's is given zeros."""
    tx = optax.with_extra_args_support(tx)
    params = jax.tree.map(jnp.asarray, problem.start)
    state = tx.init(params)

    def closure(params, step):
        return jax.value_and_grad(problem.loss)(params, step)

    def update(params, state, step, absent):
        value, grads = closure(params, step)
        if absent:
            g = grads[problem.absent]
            grads[problem.absent] = None if ours else jnp.zeros_like(g)
        extra: dict[str, Any] = {}
        if problem.rows and ours:
            touched = jnp.zeros(8, bool).at[jnp.asarray(looked_up())[step % 10]].set(True)
            extra = {"touched": {"table": touched}}
        if ours:
            extra["closure"] = lambda p: closure(p, step)
        else:
            extra |= {"grad": grads, "value_fn": lambda p: problem.loss(p, step)}
        updates, state = tx.update(grads, state, params, value=value, **extra)
        return jax.tree.map(
            lambda p, u: p if u is None else p + u, params, updates, is_leaf=lambda x: x is None
        ), state

    update = jax.jit(update, static_argnums=3)
    for step in range(steps):
        absent = bool(problem.absent) and step >= steps // 2
        params, state = update(params, state, step, absent)
    return params


def iterated(calls: int, iterations: int) -> Callable[[Dialect], Difference]:
    """LBFGS: PyTorch makes several iterations per step, optax one per update."""

    def measure(row: Dialect) -> Difference:
        theirs = torch_trained(row.torch, MLP, calls)
        ours = jax_trained(run(row.ours), MLP, calls, ours=True)
        other = jax_trained(run(row.other), MLP, calls * iterations)
        return compared(theirs, ours, other, MLP.start)

    return measure


def rates(
    steps: int = RATES, every: int = 1, of: str = "lr"
) -> Callable[[Dialect], Difference]:
    """The rates of ``steps`` updates, with ``scheduler.step()`` after each ``every``-th."""

    def measure(row: Dialect) -> Difference:
        opt = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
        scheduler = run(row.torch, opt=opt)
        theirs = []
        for n in range(1, steps + 1):
            theirs.append(opt.param_groups[0][of])
            opt.step()
            if n % every == 0:
                scheduler.step()
        found = []
        for code in (row.ours, row.other):
            schedule = run(code)
            if of == "momentum" and code == row.ours:
                schedule = schedule.momentum
            counts = jnp.arange(steps, dtype=jnp.int32)
            found.append([float(x) for x in jax.lax.map(schedule, counts)])
        return Difference(*(relative(theirs, x) for x in found))

    return measure


def relative(theirs, ours) -> float:
    """The largest relative difference of two runs of numbers."""
    a, b = np.asarray(theirs, np.float64), np.asarray(ours, np.float64)
    if not np.isfinite(b[np.isfinite(a)]).all():
        return math.nan
    return float(np.max(np.abs(a - b) / np.where(a == 0.0, np.abs(a).max(), np.abs(a))))


METRICS = [max(0.5, 1.0 - 0.1 * n) for n in range(30)]  # falls, and stays


def on_plateau(rising: bool = False) -> Callable[[Dialect], Difference]:
    """The rate after each metric. rising: one that should, and optax is given its negative."""

    def measure(row: Dialect) -> Difference:
        opt = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        scheduler, plateau, tx = run(row.torch, opt=opt), run(row.ours), run(row.other)
        state, other_state = plateau.init(), tx.init(jnp.zeros(()))
        step, other_step = jax.jit(plateau.update), jax.jit(tx.update)
        theirs, ours, other = [], [], []
        for metric in (1.5 - m if rising else m for m in METRICS):
            scheduler.step(metric)
            theirs.append(opt.param_groups[0]["lr"])
            state = step(state, metric)
            ours.append(float(state.lr))
            scaled, other_state = other_step(
                jnp.asarray(0.1), other_state, value=-metric if rising else metric
            )
            other.append(float(scaled))
        return Difference(relative(theirs, ours), relative(theirs, other))

    return measure


def clipped(norm: float = 5.0, dtype: str = "float64", entry: float | None = None):
    """Gradients of the given norm, one of them replaced by ``entry``, clipped."""

    def measure(row: Dialect) -> Difference:
        made = start()
        length = math.sqrt(sum((g**2).sum() for g in made.values()))
        grads = {n: (g * (norm / length)).astype(dtype) for n, g in made.items()}
        if entry is not None:
            grads["b1"][0] = entry
        p = {n: torch.zeros(g.shape, dtype=getattr(torch, dtype)) for n, g in grads.items()}
        for n, g in grads.items():
            p[n].grad = torch.tensor(g)
        run(row.torch, params=list(p.values()))
        theirs = {n: v.grad.numpy() for n, v in p.items()}
        arrays = jax.tree.map(jnp.asarray, grads)
        ours = run(row.ours, grads=arrays)
        tx = run(row.other)
        other, _ = tx.update(arrays, tx.init(arrays))
        return compared(theirs, ours, other)

    return measure


def scales(flags: str) -> Callable[[Dialect], Difference]:
    """The scale after each step; a 1 in ``flags`` is a step with an infinite gradient."""

    def measure(row: Dialect) -> Difference:
        p = torch.zeros(1, dtype=torch.float32, requires_grad=True)
        opt = torch.optim.SGD([p], lr=0.0)
        scaler, ours, other = run(row.torch), run(row.ours), run(row.other)
        traces: tuple[list[float], ...] = ([], [], [])
        unscale, update = (
            jax.jit(lambda s, g: s.unscale(g)[1]),
            jax.jit(lambda s, f: s.update(f)),
        )
        flax = jax.jit(lambda s, c: s.value_and_grad(lambda x: c * x)(jnp.float32(0)))
        for flag in flags:
            slope = math.inf if flag == "1" else 1.0
            opt.zero_grad()
            scaler.scale((p * slope).sum()).backward()
            scaler.step(opt)
            scaler.update()
            ours = update(ours, unscale(ours, jnp.float32(slope)))
            other = flax(other, jnp.float32(slope)).dynamic_scale
            for trace, value in zip(
                traces, (scaler.get_scale(), ours.scale, other.scale), strict=True
            ):
                trace.append(float(value))
        return Difference(relative(traces[0], traces[1]), relative(traces[0], traces[2]))

    return measure


def times(grads, factor):
    return jax.tree.map(lambda g: g * jnp.asarray(factor, g.dtype), grads)


def skipped(flags: str) -> Callable[[Dialect], Difference]:
    """Steps of which those with a 1 in ``flags`` have an infinite gradient."""

    def measure(row: Dialect) -> Difference:
        gradient = jax.jit(jax.grad(loss))
        p = {n: torch.tensor(v, requires_grad=True) for n, v in start().items()}
        opt, scheduler = optimizer_and_scheduler(row.torch, list(p.values()))
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=1000)
        tx, other_tx = run(row.ours), run(row.other)
        params = jax.tree.map(jnp.asarray, start())
        state = instep.init_state(params, tx)
        other, other_state = params, other_tx.init(params)
        ours_scaler = instep.GradScaler(1.0, growth_interval=1000)

        @jax.jit
        def step(state, scaler, one):
            acc = instep.zero_grad(state.params)
            grads = times(gradient(state.params, data()), one)
            grads, found_inf = scaler.unscale(times(grads, scaler.scale))
            state = instep.step(tx, state, replace(acc, grads=grads), found_inf=found_inf)
            return state, scaler.update(found_inf)

        @jax.jit
        def other_step(params, state, one):
            updates, state = other_tx.update(
                times(gradient(params, data()), one), state, params
            )
            return optax.apply_updates(params, updates), state

        for flag in flags:
            one = np.float64(math.inf if flag == "1" else 1.0)
            grads = times(gradient({n: v.detach().numpy() for n, v in p.items()}, data()), one)
            scaler.scale(torch.zeros(()))  # the scaler is made on its first use
            for n, g in grads.items():
                p[n].grad = torch.tensor(np.asarray(g) * scaler.get_scale())
            scaler.step(opt)
            scaler.update()
            if scheduler:
                scheduler.step()

            state, ours_scaler = step(state, ours_scaler, one)
            other, other_state = other_step(other, other_state, one)
        theirs = {n: v.detach().numpy() for n, v in p.items()}
        return compared(theirs, state.params, other, start())

    return measure


EQUAL, RAGGED = (8, 8, 8, 8), (12, 10, 7, 3)


def accumulated(
    sizes: tuple[int, ...], divide: str, steps: int = 10
) -> Callable[[Dialect], Difference]:
    """Windows of four microbatches, divided by "microbatches", "examples" or "nothing"."""
    bounds = np.cumsum((0, *sizes))
    pieces = [tuple(a[i:j] for a in data()) for i, j in pairwise(bounds)]

    def weight(batch) -> float:
        return float(len(batch[0]) if divide == "examples" else 1)

    total = 1.0 if divide == "nothing" else sum(weight(b) for b in pieces)

    def loss_fn(params, batch):
        return instep.Loss(loss(params, batch) * weight(batch), weight(batch))

    def measure(row: Dialect) -> Difference:
        p = {n: torch.tensor(v, requires_grad=True) for n, v in start().items()}
        opt = torch.optim.SGD(p.values(), lr=0.1, momentum=0.9)
        tx = instep.optim.sgd(0.1, 0.9)
        state = instep.init_state(jax.tree.map(jnp.asarray, start()), tx)
        other_tx = run(row.other)
        other = state.params
        other_state = other_tx.init(other)

        @jax.jit
        def step(state):
            acc = instep.zero_grad(state.params)
            for piece in pieces:
                acc, _ = instep.backward(loss_fn, acc, state.params, None, piece)
            return instep.step(tx, state, acc if divide == "nothing" else instep.mean(acc))

        @jax.jit
        def other_step(params, state, batch):
            updates, state = other_tx.update(jax.grad(loss)(params, batch), state, params)
            return optax.apply_updates(params, updates), state

        for _ in range(steps):
            opt.zero_grad()
            for piece in pieces:
                batch = tuple(map(torch.tensor, piece))
                (loss(p, batch) * (weight(piece) / total)).backward()
            opt.step()

            state = step(state)
            for piece in pieces:
                other, other_state = other_step(other, other_state, piece)
        theirs = {n: v.detach().numpy() for n, v in p.items()}
        return compared(theirs, state.params, other, start())

    return measure


def averaged(row: Dialect) -> Difference:
    """The average of ten models on a random walk."""
    rng = np.random.default_rng(4)
    walk = np.cumsum(rng.normal(size=(10, 6, 4)), axis=0)
    model = torch.nn.Linear(4, 6, bias=False)
    theirs = run(row.torch, model=model)
    ours = instep.optim.averaged_model({"w": jnp.zeros((6, 4))})
    other = run(row.other)
    state: Any = None
    for n, w in enumerate(walk):
        with torch.no_grad():
            model.weight.copy_(torch.tensor(w))
        theirs.update_parameters(model)
        w = jnp.asarray(w)
        ours = run(row.ours, averaged=ours, params={"w": w})
        if isinstance(other, optax.GradientTransformation):
            mean, state = other.update(w, other.init(w) if n == 0 else state)
        else:  # a function (new, old, number of models before)
            mean = w if n == 0 else other(w, mean, n)
    expected = {"w": theirs.module.weight.detach().numpy()}
    return compared(expected, ours.params, {"w": mean})


# ------------------------------------------------------------------------------- the rows

SGD = (
    Dialect(
        "torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)",
        "instep.optim.sgd(0.1, 0.9, weight_decay=0.01, nesterov=True)",
        "optax.chain(optax.add_decayed_weights(0.01), "
        "optax.sgd(0.1, momentum=0.9, nesterov=True))",
        "The same. `optax.sgd` has no weight decay: it is put in front, where PyTorch adds it.",
        trained(),
    ),
    Dialect(
        "torch.optim.SGD(params, lr=0.01, weight_decay=0.1, maximize=True)",
        "instep.optim.sgd(0.01, weight_decay=0.1, maximize=True)",
        "optax.chain(optax.scale(-1), optax.add_decayed_weights(0.1), optax.sgd(0.01))",
        "The same. PyTorch negates the gradient before it adds the weight decay, so that the "
        "decay still shrinks.",
        trained(),
    ),
    Dialect(
        "torch.optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.5)",
        "instep.optim.sgd(0.1, 0.9, dampening=0.5)",
        "optax.sgd(0.1, momentum=0.9)",
        "optax has no dampening.",
        trained(),
    ),
    Dialect(
        "torch.optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.5)",
        "instep.optim.sgd(0.1, 0.9, dampening=0.5)",
        "optax.chain(optax.scale(0.5), optax.trace(0.9), optax.scale(-0.1))",
        "PyTorch's first momentum buffer is the gradient itself, not dampened.",
        trained(),
    ),
)

ADAM = (
    Dialect(
        "torch.optim.Adam(params, lr=0.01, weight_decay=0.01)",
        "instep.optim.adam(0.01, weight_decay=0.01)",
        "optax.chain(optax.add_decayed_weights(0.01), optax.adam(0.01))",
        "The same. `optax.adam` has no weight decay; PyTorch's goes through the moments.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adam(params, lr=0.01, weight_decay=0.01)",
        "instep.optim.adam(0.01, weight_decay=0.01)",
        "optax.adamw(0.01, weight_decay=0.01)",
        "`optax.adamw` is AdamW: its weight decay goes past the moments.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adam(params, lr=0.1, amsgrad=True)",
        "instep.optim.adam(0.1, amsgrad=True)",
        "optax.amsgrad(0.1)",
        "PyTorch keeps the maximum of the raw second moment and corrects its bias; optax "
        "keeps the maximum of the corrected one.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adam(params, lr=0.1, amsgrad=True)",
        "instep.optim.adam(0.1, amsgrad=True)",
        "optax.amsgrad(0.1, bias_correction_nu=False)",
        "The maximum of the raw one, whose bias then is not corrected at all.",
        trained(),
    ),
    Dialect(
        "torch.optim.AdamW(params)",
        "instep.optim.adamw()",
        "optax.adamw(1e-3)",
        "The default weight decay is 1e-2 in PyTorch and 1e-4 in optax.",
        trained(),
    ),
    Dialect(
        "torch.optim.AdamW(params)",
        "instep.optim.adamw()",
        "optax.adamw(1e-3, weight_decay=1e-2)",
        "The same.",
        trained(),
    ),
    Dialect(
        "torch.optim.AdamW(params, amsgrad=True, lr=0.1)",
        "instep.optim.adamw(0.1, amsgrad=True)",
        "optax.chain(optax.scale_by_amsgrad(), optax.add_decayed_weights(1e-2), "
        "optax.scale_by_learning_rate(0.1))",
        "As for Adam: the maximum of the corrected second moment.",
        trained(),
    ),
    Dialect(
        "torch.optim.AdamW(params, lr=0.01); lr_scheduler.StepLR(opt, 10, 0.5)",
        "instep.optim.adamw(instep.schedules.step_lr(0.01, 10, 0.5))",
        "optax.adamw(lambda t: 0.01 * 0.5 ** (t // 10), weight_decay=1e-2)",
        "The same: weight decay is multiplied by the scheduled rate in both.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adamax(params, weight_decay=0.01)",
        "instep.optim.adamax(weight_decay=0.01)",
        "optax.chain(optax.add_decayed_weights(0.01), optax.adamax(2e-3))",
        "The same. `optax.adamax` has no weight decay.",
        trained(),
    ),
    Dialect(
        "torch.optim.NAdam(params)",
        "instep.optim.nadam()",
        "optax.nadam(2e-3)",
        "PyTorch's momentum grows with the step, 0.9 (1 - 0.96^(0.004 t) / 2), and its bias "
        "correction is their product; optax takes 0.9 throughout.",
        trained(),
    ),
    Dialect(
        "torch.optim.RAdam(params)",
        "instep.optim.radam()",
        "optax.radam(1e-3)",
        "PyTorch adds epsilon before the bias correction, optax after it.",
        trained(),
    ),
    Dialect(
        "torch.optim.RAdam(params, weight_decay=0.01, decoupled_weight_decay=True)",
        "instep.optim.radam(weight_decay=0.01, decoupled_weight_decay=True)",
        "optax.chain(optax.scale_by_radam(), optax.add_decayed_weights(0.01), "
        "optax.scale_by_learning_rate(1e-3))",
        "`optax.radam` has no weight decay; in this chain only epsilon is left.",
        trained(),
    ),
    Dialect(
        "torch.optim.SparseAdam(params)",
        "instep.optim.sparse_adam()",
        "optax.adam(1e-3)",
        "optax has none. PyTorch leaves the rows that no lookup touched alone, moments and "
        "all; a dense Adam goes on moving them. Epsilon stands before the bias correction.",
        trained(TABLE),
    ),
)

OTHERS = (
    Dialect(
        "torch.optim.Adagrad(params)",
        "instep.optim.adagrad()",
        "optax.adagrad(1e-2)",
        "The sum of squares starts at 0 in PyTorch and at 0.1 in optax.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adagrad(params)",
        "instep.optim.adagrad()",
        "optax.adagrad(1e-2, initial_accumulator_value=0.0, eps=1e-10)",
        "PyTorch adds epsilon to the root, optax under it.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adagrad(params, lr=0.1, lr_decay=0.1)",
        "instep.optim.adagrad(0.1, lr_decay=0.1)",
        "optax.adagrad(lambda t: 0.1 / (1 + 0.1 * t), 0.0, 1e-10)",
        "`lr_decay` is a schedule in optax; epsilon is left.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adadelta(params, weight_decay=0.01)",
        "instep.optim.adadelta(weight_decay=0.01)",
        "optax.adadelta(1.0, weight_decay=0.01)",
        "The same.",
        trained(),
    ),
    Dialect(
        "torch.optim.RMSprop(params)",
        "instep.optim.rmsprop()",
        "optax.rmsprop(1e-2)",
        "The decay is 0.99 in PyTorch and 0.9 in optax, which also has epsilon under the root.",
        trained(),
    ),
    Dialect(
        "torch.optim.RMSprop(params)",
        "instep.optim.rmsprop()",
        "optax.rmsprop(1e-2, decay=0.99)",
        "Epsilon under the root alone.",
        trained(),
    ),
    Dialect(
        "torch.optim.RMSprop(params, momentum=0.9, centered=True)",
        "instep.optim.rmsprop(momentum=0.9, centered=True)",
        "optax.rmsprop(1e-2, decay=0.99, eps_in_sqrt=False, momentum=0.9, centered=True)",
        "The same.",
        trained(),
    ),
    Dialect(
        "torch.optim.RMSprop(params, momentum=0.9); lr_scheduler.StepLR(opt, 10, 0.5)",
        "instep.optim.rmsprop(instep.schedules.step_lr(1e-2, 10, 0.5), momentum=0.9)",
        "optax.rmsprop(lambda t: 1e-2 * 0.5 ** (t // 10), decay=0.99, eps_in_sqrt=False, "
        "momentum=0.9)",
        "optax multiplies by the rate before the momentum, which so remembers old rates.",
        trained(),
    ),
    Dialect(
        "torch.optim.RMSprop(params, momentum=0.9); lr_scheduler.StepLR(opt, 10, 0.5)",
        "instep.optim.rmsprop(instep.schedules.step_lr(1e-2, 10, 0.5), momentum=0.9)",
        "optax.chain(optax.scale_by_rms(0.99, eps_in_sqrt=False), optax.trace(0.9), "
        "optax.scale_by_learning_rate(lambda t: 1e-2 * 0.5 ** (t // 10)))",
        "The same.",
        trained(),
    ),
    Dialect(
        "torch.optim.Rprop(params)",
        "instep.optim.rprop()",
        "optax.rprop(1e-2)",
        "optax returns the update of the step before, and zeroes it where the sign has "
        "changed since.",
        trained(),
    ),
    Dialect(
        "torch.optim.ASGD(params, lr=0.1, lambd=0.1)",
        "instep.optim.asgd(0.1, lambd=0.1)",
        "optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1))",
        "optax has none. PyTorch's rate decays as 1 / (1 + lambd lr t)^0.75, one step late.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adafactor(params)",
        "instep.optim.adafactor()",
        "optax.adafactor(1e-2)",
        "optax does not take the smaller of the rate and 1 / sqrt(t), factors only axes of "
        "128 or more, and adds 1e-30 to the squared gradient.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adafactor(params, weight_decay=0.1)",
        "instep.optim.adafactor(weight_decay=0.1)",
        "optax.chain(optax.scale_by_factored_rms(min_dim_size_to_factor=1, epsilon=0.0), "
        "optax.clip_by_block_rms(1.0), "
        "optax.scale_by_schedule(lambda t: jnp.minimum(1e-2, (1.0 + t) ** -0.5)), "
        "optax.scale_by_param_block_rms(1e-3), optax.add_decayed_weights(0.1 * 1e-2), "
        "optax.scale(-1))",
        "The parts put together by hand. optax computes t^-0.8 in float32.",
        trained(),
    ),
    Dialect(
        "torch.optim.Muon(params)",
        "instep.optim.muon()",
        "optax.contrib.muon(1e-3)",
        "The default weight decay is 0.1 in PyTorch and 0 in optax, and the shape factor "
        "of optax is that of a kernel stored as (in, out).",
        trained(MATRICES),
    ),
    Dialect(
        "torch.optim.Muon(params)",
        "instep.optim.muon()",
        "optax.contrib.muon(1e-3, eps=1e-7, weight_decay=0.1, muon_weight_dimension_numbers="
        "optax.contrib.MuonDimensionNumbers(1, 0))",
        "optax corrects the bias of the Nesterov momentum and runs the Newton-Schulz "
        "iteration in the dtype of the parameter, PyTorch in bfloat16.",
        trained(MATRICES),
    ),
    Dialect(
        "torch.optim.LBFGS(params, lr=0.1, max_iter=5)",
        "instep.optim.lbfgs(0.1, max_iter=5)",
        "optax.lbfgs(0.1, memory_size=100, linesearch=None)",
        "One call of PyTorch's is several iterations, of optax's one. PyTorch scales the first "
        "step by min(1, 1 / n) with the 1-norm of the gradient, optax with the 2-norm.",
        iterated(calls=3, iterations=5),
    ),
    Dialect(
        "torch.optim.LBFGS(params, max_iter=4, line_search_fn='strong_wolfe')",
        "instep.optim.lbfgs(max_iter=4, line_search_fn='strong_wolfe')",
        "optax.lbfgs(memory_size=100)",
        "Another line search: cubic interpolation in PyTorch, zoom in optax.",
        iterated(calls=2, iterations=4),
    ),
    Dialect(
        "torch.optim.AdamW(params, lr=0.01)  # p.grad is None from step 25",
        "instep.optim.adamw(0.01)  # the gradient is None from step 25",
        "optax.adamw(0.01, weight_decay=1e-2)  # the gradient is 0 from step 25",
        "PyTorch passes over a parameter without a gradient: no decay, no momentum, no step. "
        "optax cannot from one step to the next; with zeros it decays and coasts on.",
        trained(ABSENT),
    ),
    Dialect(
        "torch.optim.AdamW([{'params': params[::2]}, {'params': params[1::2], "
        "'weight_decay': 0.0}], lr=0.01)",
        "instep.optim.param_groups([('w', instep.optim.adamw(0.01)), "
        "('b', instep.optim.adamw(0.01, weight_decay=0.0))])",
        "optax.adamw(0.01, weight_decay=1e-2, "
        "mask={'w1': True, 'b1': False, 'w2': True, 'b2': False})",
        "The same: a mask, or `optax.partition` where more than the decay differs.",
        trained(),
    ),
)

FOREVER = 2 * RATES

SCHEDULES = (
    Dialect(
        "lr_scheduler.LambdaLR(opt, lambda t: 1 / (1 + t))",
        "instep.schedules.lambda_lr(0.1, lambda t: 1 / (1 + t), total_steps=100)",
        "lambda t: 0.1 / (1 + t)",
        "The same: a schedule of optax is a function of the count.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.LambdaLR(opt, lambda t: 1 / (1 + t))",
        "instep.schedules.lambda_lr(0.1, lambda t: 1 / (1 + t), total_steps=100)",
        "lambda t: 0.1 * (1 / (1 + t))",
        "The same, but a quotient of int32 is float32, also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.MultiplicativeLR(opt, lambda t: 0.95)",
        "instep.schedules.multiplicative_lr(0.1, lambda t: 0.95, total_steps=100)",
        "optax.exponential_decay(0.1, 1, 0.95)",
        "The same for a constant. optax divides the int32 count in float32, also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.MultiplicativeLR(opt, lambda t: 1 / (1 + 0.001 * t))",
        "instep.schedules.multiplicative_lr(0.1, lambda t: 1 / (1 + 0.001 * t), "
        "total_steps=100)",
        "lambda t: 0.1 / (1 + 0.001 * t)",
        "optax has none: PyTorch's rate is the product of all factors so far.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.StepLR(opt, 30, 0.5)",
        "instep.schedules.step_lr(0.1, 30, 0.5)",
        "optax.exponential_decay(0.1, 30, 0.5)",
        "Without `staircase=True` optax decays at every step.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.StepLR(opt, 30, 0.1)",
        "instep.schedules.step_lr(0.1, 30, 0.1)",
        "optax.exponential_decay(0.1, 30, 0.1, staircase=True)",
        "The same, in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.MultiStepLR(opt, [30, 60, 60], 0.1)",
        "instep.schedules.multi_step_lr(0.1, [30, 60, 60], 0.1)",
        "optax.piecewise_constant_schedule(0.1, {m: 0.1 for m in [30, 60, 60]})",
        "A milestone given twice counts twice in PyTorch; a dict holds it once.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.MultiStepLR(opt, [30, 60], 0.1)",
        "instep.schedules.multi_step_lr(0.1, [30, 60], 0.1)",
        "optax.piecewise_constant_schedule(0.1, {30: 0.1, 60: 0.1})",
        "The same.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.ConstantLR(opt)",
        "instep.schedules.constant_lr(0.1)",
        "optax.piecewise_constant_schedule(0.1 / 3, {5: 3.0})",
        "The same. PyTorch's defaults are a third of the rate for 5 steps.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.LinearLR(opt, total_iters=20)",
        "instep.schedules.linear_lr(0.1, total_iters=20)",
        "optax.linear_schedule(0.1 / 3, 0.1, 20)",
        "The same, in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.ExponentialLR(opt, 0.95)",
        "instep.schedules.exponential_lr(0.1, 0.95)",
        "optax.exponential_decay(0.1, 1, 0.95)",
        "The same, in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.PolynomialLR(opt, 120, 2.0)",
        "instep.schedules.polynomial_lr(0.1, 120, 2.0)",
        "optax.polynomial_schedule(0.1, 0.0, 2.0, 120)",
        "The same, in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.CosineAnnealingLR(opt, 99, 0.001)",
        "instep.schedules.cosine_annealing_lr(0.1, 99, 0.001)",
        "optax.cosine_decay_schedule(0.1, 99, alpha=0.01)",
        "The same up to `T_max`. `alpha` is a fraction, `eta_min` a rate.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.CosineAnnealingLR(opt, 100, 0.001)  # 200 steps",
        "instep.schedules.cosine_annealing_lr(0.1, 100, 0.001)",
        "optax.cosine_decay_schedule(0.1, 100, alpha=0.01)",
        "Past `T_max` PyTorch's rate rises again; optax's stays at the end.",
        rates(FOREVER),
    ),
    Dialect(
        "lr_scheduler.CosineAnnealingWarmRestarts(opt, 20, 2, 0.001)",
        "instep.schedules.cosine_annealing_warm_restarts(0.1, 20, 2, 0.001)",
        "optax.sgdr_schedule([dict(init_value=0.1, peak_value=0.1, warmup_steps=0, "
        "decay_steps=20 * 2**k, end_value=0.001) for k in range(3)])",
        "The same while the list of cycles lasts.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.CosineAnnealingWarmRestarts(opt, 20, 2, 0.001)  # 200 steps",
        "instep.schedules.cosine_annealing_warm_restarts(0.1, 20, 2, 0.001)",
        "optax.sgdr_schedule([dict(init_value=0.1, peak_value=0.1, warmup_steps=0, "
        "decay_steps=20 * 2**k, end_value=0.001) for k in range(3)])",
        "After the last cycle optax stays at the end; PyTorch restarts without end.",
        rates(FOREVER),
    ),
    Dialect(
        "lr_scheduler.OneCycleLR(opt, 0.1, total_steps=100)",
        "instep.schedules.one_cycle_lr(0.1, 100)",
        "optax.cosine_onecycle_schedule(100, 0.1)",
        "PyTorch's phases end at steps 29 and 99, optax's at 30 and 100: the last step is "
        "the one that is far off.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.OneCycleLR(opt, 0.1, total_steps=100)",
        "instep.schedules.one_cycle_lr(0.1, 100)",
        "optax.piecewise_interpolate_schedule('cosine', 0.1 / 25, {29: 25.0, 99: 4e-6})",
        "With PyTorch's ends, in float32 also under x64. Ends between two steps, as "
        "PyTorch's are for most lengths, cannot be said.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.OneCycleLR(opt, 0.1, total_steps=100, anneal_strategy='linear', "
        "three_phase=True)",
        "instep.schedules.one_cycle_lr(0.1, 100, anneal_strategy='linear', three_phase=True)",
        "optax.linear_onecycle_schedule(100, 0.1)",
        "Ends one step late, as above, and a last phase from 0.85 of the run; PyTorch's "
        "begins where the second has lasted as long as the first.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.OneCycleLR(opt, 0.1, total_steps=100)  # the momentum",
        "instep.schedules.one_cycle_lr(0.1, 100)  # .momentum",
        "lambda t: 0.95 + 0.0 * t",
        "PyTorch cycles the momentum (or beta1) against the rate, 0.95 to 0.85 and back. "
        "Nothing of optax does; `optax.inject_hyperparams` takes a schedule that you write.",
        rates(of="momentum"),
    ),
    Dialect(
        "lr_scheduler.CyclicLR(opt, 0.01, 0.1, step_size_up=10)",
        "instep.schedules.cyclic_lr(0.01, 0.1, step_size_up=10)",
        "optax.piecewise_interpolate_schedule('linear', 0.01, "
        "{10 * k: 10.0 if k % 2 else 0.1 for k in range(1, 11)})",
        "The same for as many cycles as are written down, in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.CyclicLR(opt, 0.01, 0.1, step_size_up=10, mode='exp_range', gamma=0.99)",
        "instep.schedules.cyclic_lr(0.01, 0.1, step_size_up=10, mode='exp_range', gamma=0.99)",
        "optax.piecewise_interpolate_schedule('linear', 0.01, "
        "{10 * k: 10.0 if k % 2 else 0.1 for k in range(1, 11)})",
        "optax has no cycles whose height decays.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.CyclicLR(opt, 0.01, 0.1, step_size_up=10)  # the momentum",
        "instep.schedules.cyclic_lr(0.01, 0.1, step_size_up=10)  # .momentum",
        "lambda t: 0.9 + 0.0 * t",
        "As for OneCycleLR: 0.9 to 0.8 and back, on by default.",
        rates(of="momentum"),
    ),
    Dialect(
        "lr_scheduler.SequentialLR(opt, [lr_scheduler.LinearLR(opt, 0.1, total_iters=10), "
        "lr_scheduler.CosineAnnealingLR(opt, 90, 0.001)], [10])",
        "instep.schedules.sequential_lr([instep.schedules.linear_lr(0.1, 0.1, total_iters=10), "
        "instep.schedules.cosine_annealing_lr(0.1, 90, 0.001)], [10])",
        "optax.warmup_cosine_decay_schedule(0.01, 0.1, 10, 90, 0.001)",
        "`decay_steps` of optax counts the warm-up, `T_max` of PyTorch does not.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.SequentialLR(opt, [lr_scheduler.LinearLR(opt, 0.1, total_iters=10), "
        "lr_scheduler.CosineAnnealingLR(opt, 90, 0.001)], [10])",
        "instep.schedules.sequential_lr([instep.schedules.linear_lr(0.1, 0.1, total_iters=10), "
        "instep.schedules.cosine_annealing_lr(0.1, 90, 0.001)], [10])",
        "optax.warmup_cosine_decay_schedule(0.01, 0.1, 10, 100, 0.001)",
        "The same, the warm-up in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.SequentialLR(opt, [lr_scheduler.ConstantLR(opt, 0.5, 10), "
        "lr_scheduler.MultiplicativeLR(opt, lambda t: 0.9)], [10])",
        "instep.schedules.sequential_lr([instep.schedules.constant_lr(0.1, 0.5, 10), "
        "instep.schedules.multiplicative_lr(0.1, lambda t: 0.9)], [10], total_steps=100)",
        "optax.join_schedules([optax.constant_schedule(0.05), "
        "optax.exponential_decay(0.1, 1, 0.9)], [10])",
        "MultiplicativeLR goes on from the rate that it finds, and applies its lambda(0) "
        "there; a schedule of optax starts anew.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.ChainedScheduler([lr_scheduler.LinearLR(opt, 0.1, total_iters=10), "
        "lr_scheduler.CosineAnnealingLR(opt, 100, 0.01)])",
        "instep.schedules.chained_scheduler([instep.schedules.linear_lr(0.1, 0.1, "
        "total_iters=10), instep.schedules.cosine_annealing_lr(0.1, 100, 0.01)], 100)",
        "lambda t: optax.linear_schedule(0.1, 1.0, 10)(t) * "
        "optax.cosine_decay_schedule(0.1, 100, 0.1)(t)",
        "Each member changes the rate that the one before it has written: with `eta_min` that "
        "is not a product.",
        rates(),
    ),
    Dialect(
        "swa_utils.SWALR(opt, swa_lr=0.02, anneal_epochs=20)",
        "instep.schedules.swa_lr(0.1, 0.02, anneal_epochs=20)",
        "optax.piecewise_interpolate_schedule('cosine', 0.1, {20: 0.2})",
        "The same, in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.StepLR(opt, 3, 0.5)  # scheduler.step() once per epoch of 10",
        "instep.schedules.per_epoch(instep.schedules.step_lr(0.1, 3, 0.5), 10)",
        "optax.exponential_decay(0.1, 3, 0.5, staircase=True)",
        "A schedule of optax counts updates, a scheduler its own steps: use "
        "`lambda t: schedule(t // 10)`.",
        rates(every=10),
    ),
    Dialect(
        "lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=3, cooldown=2)",
        "instep.schedules.reduce_lr_on_plateau(0.1, factor=0.5, patience=3, cooldown=2)",
        "optax.contrib.reduce_on_plateau(factor=0.5, patience=3, cooldown=2)",
        "PyTorch reduces after more than `patience` bad metrics, optax after `patience`.",
        on_plateau(),
    ),
    Dialect(
        "lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=3, cooldown=2)",
        "instep.schedules.reduce_lr_on_plateau(0.1, factor=0.5, patience=3, cooldown=2)",
        "optax.contrib.reduce_on_plateau(factor=0.5, patience=4, cooldown=2)",
        "The same.",
        on_plateau(),
    ),
    Dialect(
        "lr_scheduler.ReduceLROnPlateau(opt, 'max', factor=0.5, patience=3)",
        "instep.schedules.reduce_lr_on_plateau(0.1, 'max', factor=0.5, patience=3)",
        "optax.contrib.reduce_on_plateau(factor=0.5, patience=4)  # value=-metric",
        "optax has no mode: given minus the metric, its relative threshold asks for less "
        "than the best, and a plateau counts as better.",
        on_plateau(rising=True),
    ),
    Dialect(
        "lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=3, min_lr=0.01)",
        "instep.schedules.reduce_lr_on_plateau(0.1, factor=0.5, patience=3, min_lr=0.01)",
        "optax.contrib.reduce_on_plateau(factor=0.5, patience=4, min_scale=0.01)",
        "`min_lr` is a rate, `min_scale` a fraction.",
        on_plateau(),
    ),
)

CLIP = (
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 1.0)",
        "instep.clip_grad_norm(grads, 1.0)[0]",
        "optax.clip_by_global_norm(1.0)",
        "PyTorch divides by the norm plus 1e-6.",
        clipped(norm=5.0),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 1.0)  # norm 1 - 1e-9",
        "instep.clip_grad_norm(grads, 1.0)[0]",
        "optax.clip_by_global_norm(1.0)",
        "Within 1e-6 below the limit PyTorch scales, optax does not.",
        clipped(norm=1.0 - 1e-9),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 1e-7)  # norm 1e-9",
        "instep.clip_grad_norm(grads, 1e-7)[0]",
        "optax.clip_by_global_norm(1e-7)",
        "So tiny norms are scaled by a tenth in PyTorch and not at all in optax.",
        clipped(norm=1e-9),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 0.0)  # norm 0",
        "instep.clip_grad_norm(grads, 0.0)[0]",
        "optax.clip_by_global_norm(0.0)",
        "PyTorch gives zeros, optax 0 / 0.",
        clipped(norm=0.0),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 1.0, norm_type=1.0)",
        "instep.clip_grad_norm(grads, 1.0, norm_type=1.0)[0]",
        "optax.clip_by_global_norm(1.0)",
        "PyTorch has any order of norm, optax the second alone.",
        clipped(norm=5.0),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 1.0)  # one gradient is infinite",
        "instep.clip_grad_norm(grads, 1.0)[0]",
        "optax.clip_by_global_norm(1.0)",
        "The same: NaN there, 0 elsewhere.",
        clipped(entry=math.inf),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 1.0)  # float16, norm 9000",
        "instep.clip_grad_norm(grads, 1.0)[0]",
        "optax.clip_by_global_norm(1.0)",
        "optax squares in float16: the norm is infinite and every gradient becomes 0. PyTorch "
        "rounds the norm to float16 and instep does not, which is half a unit of float16.",
        clipped(norm=9000.0, dtype="float16"),
        rounding=2.0**-10,
    ),
    Dialect(
        "torch.nn.utils.clip_grad_value_(params, 0.5)",
        "instep.clip_grad_value(grads, 0.5)",
        "optax.clip(0.5)",
        "The same.",
        clipped(norm=5.0),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_value_(params, 0.5)  # one gradient is NaN",
        "instep.clip_grad_value(grads, 0.5)",
        "optax.clip(0.5)",
        "The same: NaN stays, and no other gradient is touched.",
        clipped(norm=5.0, entry=math.nan),
    ),
)

SCALER = (
    Dialect(
        "torch.amp.GradScaler('cpu', init_scale=4.0, growth_interval=3)",
        "instep.GradScaler(4.0, growth_interval=3)",
        "DynamicScale(scale=4.0, growth_interval=3)",
        "PyTorch grows at the third finite step in a row, flax at the fourth.",
        scales("00001000000"),
    ),
    Dialect(
        "torch.amp.GradScaler('cpu', init_scale=4.0, growth_interval=3)",
        "instep.GradScaler(4.0, growth_interval=3)",
        "DynamicScale(scale=4.0, growth_interval=2)",
        "An interval less by 1 gives the same.",
        scales("00001000000"),
    ),
    Dialect(
        "torch.amp.GradScaler('cpu', init_scale=4.0)  # 160 overflows",
        "instep.GradScaler(4.0)",
        "DynamicScale(scale=4.0)",
        "PyTorch's scale has no floor: below 1.2e-38, where flax's stays, it goes on through "
        "subnormal numbers to 0. XLA takes those for 0, and so instep is there sooner.",
        scales("1" * 160),
        rounding=1.0,
    ),
    Dialect(
        "torch.optim.AdamW(params, lr=0.01)  # scaler.step(opt), 1 overflow",
        "instep.optim.adamw(0.01)  # step(..., found_inf=found_inf)",
        "optax.apply_if_finite(optax.adamw(0.01, weight_decay=1e-2), 3)",
        "The same: parameters, moments and step hold. It has no scale.",
        skipped("0010000000"),
    ),
    Dialect(
        "torch.optim.AdamW(params, lr=0.01)  # scaler.step(opt), 5 overflows in a row",
        "instep.optim.adamw(0.01)  # step(..., found_inf=found_inf)",
        "optax.apply_if_finite(optax.adamw(0.01, weight_decay=1e-2), 3)",
        "After `max_consecutive_errors` optax applies the update all the same: NaN.",
        skipped("0011111000"),
    ),
    Dialect(
        "torch.optim.SGD(params, lr=0.1); lr_scheduler.StepLR(opt, 2, 0.5)",
        "instep.optim.sgd(instep.schedules.step_lr(0.1, 2, 0.5))",
        "optax.apply_if_finite(optax.sgd(lambda t: 0.1 * 0.5 ** (t // 2)), 3)",
        "PyTorch's scheduler steps when the optimizer is skipped; optax's count waits with "
        "the rest of the state.",
        skipped("0010000000"),
    ),
)

ACCUMULATION = (
    Dialect(
        "(loss / 4).backward()  # 4 equal microbatches",
        "acc = instep.mean(acc)",
        "optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 4)",
        "The same: the mean of means, which optax takes in float32 unless `accumulator_dtype` "
        "says otherwise.",
        accumulated(EQUAL, "microbatches"),
    ),
    Dialect(
        "loss.backward()  # 4 microbatches, not divided",
        "without `mean`",
        "optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 4)",
        "PyTorch adds gradients; optax takes their mean.",
        accumulated(EQUAL, "nothing"),
    ),
    Dialect(
        "loss.backward()  # 4 microbatches, not divided",
        "without `mean`",
        "optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 4, use_grad_mean=False, "
        "accumulator_dtype=jnp.float64)",
        "The same.",
        accumulated(EQUAL, "nothing"),
    ),
    Dialect(
        "(loss_sum / 32).backward()  # microbatches of 12, 10, 7 and 3",
        "instep.Loss(loss_sum, weight=n); acc = instep.mean(acc)",
        "optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 4)",
        "The mean of means weighs an example of a small microbatch more. "
        "`use_grad_mean=False` and losses divided by 32 are PyTorch's again.",
        accumulated(RAGGED, "examples"),
    ),
)

AVERAGES = (
    Dialect(
        "swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))",
        "instep.optim.update_parameters(averaged, params, avg_fn=instep.optim.ema_avg_fn(0.9))",
        "optax.ema(0.9)",
        "PyTorch starts from a copy of the first model; `optax.ema` from zero, and corrects "
        "the bias.",
        averaged,
    ),
    Dialect(
        "swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))",
        "instep.optim.update_parameters(averaged, params, avg_fn=instep.optim.ema_avg_fn(0.9))",
        "optax.ema(0.9, debias=False)",
        "Without the correction.",
        averaged,
    ),
    Dialect(
        "swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))",
        "instep.optim.update_parameters(averaged, params, avg_fn=instep.optim.ema_avg_fn(0.9))",
        "lambda new, old, n: optax.incremental_update(new, old, 0.1)",
        "The same, when the first model is copied by hand.",
        averaged,
    ),
    Dialect(
        "swa_utils.AveragedModel(model)",
        "instep.optim.update_parameters(averaged, params)",
        "lambda new, old, n: optax.incremental_update(new, old, 1 / (n + 1))",
        "The same, when you count the models. optax has no running mean.",
        averaged,
    ),
)

FAMILIES = {
    "SGD": SGD,
    "Adam and its relatives": ADAM,
    "The other optimizers, absent gradients, groups": OTHERS,
    "Schedules": SCHEDULES,
    "Clipping": CLIP,
    "Loss scaling": SCALER,
    "Gradient accumulation": ACCUMULATION,
    "Averaged weights": AVERAGES,
}


# ------------------------------------------------------------------------------- the page

PACKAGES = ("torch", "optax", "flax", "jax")
INTRODUCTION = """\
# Dialects

What PyTorch, instep and the nearest thing in optax or flax make of the same training, and by
how much the second and the third differ from the first. `python benchmarks/dialects.py` makes
it, and evaluates the code in the cells.
Measured with {versions}.

All in float64, unless a cell says otherwise. *Optimizers* take {steps} steps (LBFGS: a few
calls) on the mean squared error of a tanh network of 4, 6 and 3 units, each with the gradients
of that one function at its own parameters. A difference is max|difference| / max|leaf| of the
worst parameter at the end; "of the way" is the same over the largest distance that an element
of the leaf has travelled in PyTorch. *Schedules*: the largest relative difference of the
rate in {rates} steps, with a base rate of 0.1. *Clipping*: the gradients. *Loss scaling*: the
scale, or the parameters after ten steps. What is below 1e-12 is rounding.
"""
HEAD = ("PyTorch", "instep", "instep's difference", "nearest in optax or flax")


Numbers = dict[tuple[str, str], Difference]


def measured(rows: dict[str, tuple[Dialect, ...]] = FAMILIES) -> Numbers:
    found = {}
    for family in rows.values():
        for row in family:
            found[row.torch, row.other] = row()
            print(f"{row.torch[:60]:<60} {row.other[:60]:<60}", end=" ")
            print(*(number(x) for x in found[row.torch, row.other]), flush=True)
    return found


def render(numbers: Numbers, versions: str) -> str:
    parts = [INTRODUCTION.format(versions=versions, steps=STEPS, rates=RATES)]
    for family, rows in FAMILIES.items():
        way = any(numbers[row.torch, row.other].of_the_way is not None for row in rows)
        head = (*HEAD, "its difference", *(("of the way",) if way else ()), "why")
        lines = [f"## {family}", "", cells(head), cells("---" for _ in head)]
        for row in rows:
            found = numbers[row.torch, row.other]
            other = (number(found.other), *((number(found.of_the_way),) if way else ()))
            ours = row.ours if "`" in row.ours else f"`{row.ours}`"
            first = (f"`{row.torch}`", ours, number(found.ours), f"`{row.other}`")
            lines.append(cells((*first, *other, row.why)))
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def cells(texts) -> str:
    return f"| {' | '.join(texts)} |"


def number(x: float | None) -> str:
    if x is None:
        return ""
    return "0" if x == 0 else f"{x:.1e}"


def read(page: str) -> tuple[Numbers, str]:
    """The numbers of a page, and the versions that it names."""
    numbers, way = {}, False
    for line in page.splitlines():
        texts = line.strip("| ").split(" | ")
        if texts[0] == HEAD[0]:
            way = "of the way" in texts
        elif texts[0].startswith("`"):
            key = (texts[0].strip("`"), texts[3].strip("`"))
            values = (texts[2], texts[4], *(texts[5:6] if way else ()))
            numbers[key] = Difference(*(float(x) if x else None for x in values))
    (versions,) = re.findall(r"^Measured with (.*)\.$", page, re.MULTILINE)
    return numbers, versions


def changed(old: Numbers, new: Numbers, factor: float) -> list[str]:
    """The rows of which a number differs by more than ``factor``; rounding is not compared."""
    lines = []
    for key, now in new.items():
        then = old.get(key)
        if then is None:
            lines.append(f"{key}: not on the page")
            continue
        for a, b in zip(then[1:], now[1:], strict=True):
            if not alike(a, b, factor):
                lines.append(f"{key}: {number(a)} on the page, {number(b)} now")
    return lines


def alike(a: float | None, b: float | None, factor: float) -> bool:
    if a is None or b is None or math.isnan(a) or math.isnan(b):
        return str(a) == str(b)
    a, b = max(a, ROUNDING), max(b, ROUNDING)
    return a <= factor * b and b <= factor * a


def out_of_step(numbers: Numbers) -> list[str]:
    """The rows in which instep's own column is not rounding."""
    return [
        f"{row.ours}: {number(numbers[row.torch, row.other].ours)} from PyTorch"
        for rows in FAMILIES.values()
        for row in rows
        if not numbers[row.torch, row.other].ours <= row.rounding
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the page, write nothing"
    )
    args = parser.parse_args()
    numbers = measured()
    failed = out_of_step(numbers)
    if args.check:
        failed += changed(read(PAGE.read_text())[0], numbers, factor=10.0)
    else:
        versions = ", ".join(f"{p} {version(p).partition('+')[0]}" for p in PACKAGES)
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(render(numbers, versions))
    print(*failed, sep="\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
