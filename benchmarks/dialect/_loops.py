"""The loops of what stands around an optimizer: rates, clipping, scaling, windows, averages."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

import instep

from ._problem import data, loss, start
from ._row import Dialect, Difference, compared, optimizer_and_scheduler, relative, run


RATES = 100
METRICS = [max(0.5, 1.0 - 0.1 * n) for n in range(30)]  # falls, and stays

EQUAL, RAGGED = (8, 8, 8, 8), (12, 10, 7, 3)


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
