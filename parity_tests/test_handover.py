"""A training that changes hands: PyTorch, JAX, PyTorch, against PyTorch alone."""

import copy
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.optim import lr_scheduler

from conftest import assert_in_step
from instep import bridge
from optimizers import (
    batch,
    give_gradients,
    jax_loss,
    optim_db,
    start,
    torch_gradients,
    torch_loss,
    touched,
)


# Steps of each of the three legs. L-BFGS is chaotic: PyTorch against itself, moved by one ulp,
# is apart by 1e-4 after 10 steps.
LEGS = dict.fromkeys((info.optim_cls.__name__ for info in optim_db), 10) | {"LBFGS": 2}


def torch_leg(p, optimizer, scheduler, steps) -> None:
    for step in steps:
        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(lambda step=step: closure(p, step))
        else:
            rows = touched(type(optimizer).__name__, step)
            give_gradients(p, torch_gradients(p, step), rows)
            optimizer.step()
        if scheduler is not None:
            scheduler.step()


def closure(p, step):
    loss = torch_loss(p, *batch(step))
    for tensor, g in zip(p.values(), torch.autograd.grad(loss, list(p.values())), strict=True):
        tensor.grad = g
    return loss


def jax_leg(params, tx, opt_state, name, steps):
    tx = optax.with_extra_args_support(tx)

    @jax.jit
    def update(params, opt_state, batch, touched):
        def closure(params):
            return jax.value_and_grad(jax_loss)(params, *batch)

        value, grads = closure(params)
        extra = {"value": value, "closure": closure, "touched": touched}
        updates, opt_state = tx.update(grads, opt_state, params, **extra)
        return optax.apply_updates(params, updates), opt_state

    for step in steps:
        params, opt_state = update(params, opt_state, batch(step), touched(name, step))
    assert update._cache_size() == 1
    return params, opt_state


def parameters(name):
    return {n: torch.tensor(v, requires_grad=True) for n, v in start(name).items()}


def groups(p, several):
    """One group, or two: what has several axes, with a rate of its own, and the rest."""
    named = list(p.items())
    if not several:
        return named
    wide = [(n, v) for n, v in named if v.ndim > 1]
    return [
        {"params": wide, "lr": 0.02},
        {"params": [(n, v) for n, v in named if v.ndim < 2]},
    ]


SCHEDULERS = {
    "none": None,
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
    "warm-up": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.LinearLR(o, 0.1, 1.0, 5), lr_scheduler.StepLR(o, 7)],
        [5],
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ExponentialLR(o, 0.97), lr_scheduler.CosineAnnealingLR(o, 20, 1e-3)]
    ),
}
SINGLE = ("LBFGS", "Muon")  # of one group, or of one leaf here


def recipes():
    """Every optimizer in one group and in two, without and with each scheduler in flight.

    The whole product is exhaustive; SGD and Adam meet every scheduler anyway, and the others
    the warm-up.
    """
    for name, several, scheduling in product(LEGS, (False, True), SCHEDULERS):
        if several and name in SINGLE:
            continue
        usual = name in ("SGD", "Adam") or (
            (several or name in SINGLE) and scheduling == "warm-up"
        )
        marks = () if usual else pytest.mark.exhaustive
        groups = "two groups" if several else "one group"
        yield pytest.param(
            name, several, scheduling, marks=marks, id=f"{name}-{groups}-{scheduling}"
        )


@pytest.mark.parametrize(("name", "several", "scheduling"), list(recipes()))
def test_ten_ten_ten_is_thirty(name, several, scheduling, x64):
    options = {"momentum": 0.9, "dampening": 0.5} if name == "SGD" else {}
    options |= {"line_search_fn": "strong_wolfe", "max_iter": 2} if name == "LBFGS" else {}

    n_steps = LEGS[name]

    def fresh():
        p = parameters(name)
        optimizer = getattr(torch.optim, name)(groups(p, several), lr=0.01, **options)
        make = SCHEDULERS[scheduling]
        return p, optimizer, make and make(optimizer)

    p, optimizer, scheduler = fresh()
    torch_leg(p, optimizer, scheduler, range(3 * n_steps))

    q, other, other_scheduler = fresh()
    torch_leg(q, other, other_scheduler, range(n_steps))
    untouched = copy.deepcopy(other.state_dict())

    tx, opt_state = bridge.optimizer_from_torch(
        other, scheduler=other_scheduler, total_steps=3 * n_steps
    )
    assert_same_state(untouched, other.state_dict())
    params = {n: jnp.asarray(v.detach().numpy()) for n, v in q.items()}
    params, opt_state = jax_leg(params, tx, opt_state, name, range(n_steps, 2 * n_steps))

    with torch.no_grad():
        for n in q:
            q[n].copy_(bridge.array_to_tensor(params[n]))
    bridge.optimizer_to_torch(opt_state, other, scheduler=other_scheduler)
    torch_leg(q, other, other_scheduler, range(2 * n_steps, 3 * n_steps))

    for n in p:
        assert_in_step(p[n], q[n].detach().numpy(), n)
    for one in (optimizer, other):
        for slots in one.state.values():
            slots.pop("al", None)  # scratch of L-BFGS: written before it is read
    assert_same_state(optimizer.state_dict(), other.state_dict())


def assert_same_state(a, b, what="state"):
    """Two state dicts: the same keys and types; numbers and tensors to 1e-12."""
    assert type(a) is type(b), what
    if isinstance(a, dict):
        assert a.keys() == b.keys(), what
        for key in a:
            assert_same_state(a[key], b[key], f"{what}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), what
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same_state(x, y, f"{what}.{i}")
    elif torch.is_tensor(a):
        assert a.dtype == b.dtype, what
        assert_in_step(a, b.numpy(), what)
    elif isinstance(a, float):
        assert_in_step(np.array(a), np.array(b), what)
    else:
        assert a == b, what
