"""The loops of the optimizers: the same steps of each at its own parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from ._problem import MLP, Problem, looked_up
from ._row import Dialect, Difference, compared, optimizer_and_scheduler, run


STEPS = 50


def trained(problem: Problem = MLP, steps: int = STEPS) -> Callable[[Dialect], Difference]:
    """Each takes ``steps`` steps with the gradient of one function at its own parameters."""

    def measure(row: Dialect) -> Difference:
        theirs = torch_trained(row.torch, problem, steps)
        ours = jax_trained(run(row.ours), problem, steps, ours=True)
        other = jax_trained(run(row.other), problem, steps)
        return compared(theirs, ours, other, problem.start)

    return measure


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
