"""instep.schedules against torch.optim.lr_scheduler."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from instep import schedules
from instep.parity._tolerance import RELATIVE


BASE_LR = 0.1
ULPS = 8  # float32, wherever the rate exceeds 1e-6 of the base rate
SETTINGS = settings(derandomize=True, deadline=None, database=None, max_examples=40)

# A case is (name, arguments) or (name, members) or (name, members, milestones); from it both
# sides are made. These carry their own rates and take no base_lr:
OWN_RATES = {"cyclic_lr", "one_cycle_lr"}
TORCH = {
    "lambda_lr": lr_scheduler.LambdaLR,
    "multiplicative_lr": lr_scheduler.MultiplicativeLR,
    "step_lr": lr_scheduler.StepLR,
    "multi_step_lr": lr_scheduler.MultiStepLR,
    "constant_lr": lr_scheduler.ConstantLR,
    "linear_lr": lr_scheduler.LinearLR,
    "exponential_lr": lr_scheduler.ExponentialLR,
    "polynomial_lr": lr_scheduler.PolynomialLR,
    "cosine_annealing_lr": lr_scheduler.CosineAnnealingLR,
    "cosine_annealing_warm_restarts": lr_scheduler.CosineAnnealingWarmRestarts,
    "cyclic_lr": lr_scheduler.CyclicLR,
    "one_cycle_lr": lr_scheduler.OneCycleLR,
    "swa_lr": SWALR,
}


def torch_scheduler(optimizer, case):
    name, given, *milestones = case
    if name == "sequential_lr":
        members = [torch_scheduler(optimizer, member) for member in given]
        return lr_scheduler.SequentialLR(optimizer, members, *milestones)
    if name == "chained_scheduler":
        return lr_scheduler.ChainedScheduler([torch_scheduler(optimizer, m) for m in given])
    return TORCH[name](optimizer, **given)


def jax_schedule(case, total_steps=None):
    name, given, *milestones = case
    table = {} if total_steps is None else {"total_steps": total_steps}
    if name in ("sequential_lr", "chained_scheduler"):
        members = [jax_schedule(member) for member in given]
        return getattr(schedules, name)(members, *milestones, **table)
    if name not in ("lambda_lr", "multiplicative_lr"):
        table = {}
    own = () if name in OWN_RATES else (BASE_LR,)
    return getattr(schedules, name)(*own, **given, **table)


def torch_rates(case, steps):
    """Learning rate and momentum of the updates 0 to ``steps``."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE_LR, momentum=0.5)
    with warnings.catch_warnings():
        # Members are stepped while they are put together, before the first optimizer.step().
        warnings.simplefilter("ignore")
        scheduler = torch_scheduler(optimizer, case)
    group, rates, momenta = optimizer.param_groups[0], [], []
    optimizer.step()
    for _ in range(steps):
        rates.append(group["lr"])
        momenta.append(group["momentum"])
        scheduler.step()  # after optimizer.step(), which does not matter to the rates
    rates.append(group["lr"])
    momenta.append(group["momentum"])
    return np.array(rates), np.array(momenta)


def jax_rates(schedule, steps):
    count = jnp.arange(steps + 1, dtype=jnp.int32)
    rates = np.asarray(jax.vmap(schedule)(count))
    if schedule.momentum is None:
        return rates, None
    return rates, np.asarray(jax.vmap(schedule.momentum)(count))


def error(theirs, ours):
    """Of each rate against the largest one so far, as parity judges a learning rate."""
    return (np.abs(ours - theirs) / np.maximum.accumulate(np.abs(theirs))).max()


def ulps(theirs, ours, base):
    seen = np.abs(theirs) > 1e-6 * base
    spacing = np.spacing(np.abs(theirs).astype(np.float32)).astype(np.float64)
    return (np.abs(ours.astype(np.float64) - theirs) / spacing)[seen].max()


# ---------------------------------------------------------------- float64: every class, drawn

rate = st.floats(1e-4, 1.0)
length = st.integers(1, 400)
few = st.integers(0, 40)
LAMBDAS = {
    "constant": lambda t: 0.9,
    "rational": lambda t: 1 / (1 + t),
    "branching": lambda t: 1.2 if t % 3 == 0 else 0.9,
    "math": lambda t: 1 + 0.1 * math.sin(t),
    "first": lambda t: 0.5 if t == 0 else 0.99,
}
function = st.sampled_from(list(LAMBDAS.values()))
strategy = st.sampled_from(["cos", "linear"])


def arguments(name, **given):
    return st.tuples(st.just(name), st.fixed_dictionaries(given))


LEAVES = {
    "lambda_lr": arguments("lambda_lr", lr_lambda=function),
    "multiplicative_lr": arguments("multiplicative_lr", lr_lambda=function),
    "step_lr": arguments("step_lr", step_size=length, gamma=st.floats(0.0, 1.1)),
    "multi_step_lr": arguments(
        "multi_step_lr", milestones=st.lists(few | length, max_size=6), gamma=st.floats(0, 1.5)
    ),
    "constant_lr": arguments("constant_lr", factor=rate, total_iters=few | length),
    "linear_lr": arguments(
        "linear_lr", start_factor=rate, end_factor=rate | st.just(0.0), total_iters=few | length
    ),
    "exponential_lr": arguments("exponential_lr", gamma=st.floats(0.5, 1.05) | st.just(0.0)),
    "polynomial_lr": arguments(
        "polynomial_lr", total_iters=few | length, power=st.sampled_from([0, 0.5, 0.9, 1, 2, 3])
    ),
    "cosine_annealing_lr": arguments(
        "cosine_annealing_lr", T_max=length, eta_min=st.just(0.0) | rate
    ),
    "cosine_annealing_warm_restarts": arguments(
        "cosine_annealing_warm_restarts",
        T_0=length,
        T_mult=st.integers(1, 3),
        eta_min=st.just(0.0) | rate,
    ),
    "cyclic_lr": arguments(
        "cyclic_lr",
        base_lr=rate,
        max_lr=rate,
        step_size_up=length,
        step_size_down=st.none() | few.map(lambda n: n + 1),
        mode=st.sampled_from(["triangular", "triangular2", "exp_range"]),
        gamma=st.floats(0.9, 1.0),
        scale_fn=st.sampled_from([None, None, lambda x: 1 / (5.0 + x) ** 0.5]),
        scale_mode=st.sampled_from(["cycle", "iterations"]),
        cycle_momentum=st.booleans(),
        base_momentum=st.just(0.8) | rate,
    ),
    "one_cycle_lr": arguments(
        "one_cycle_lr",
        max_lr=rate,
        total_steps=st.integers(1000, 1100),
        pct_start=st.floats(0.0, 0.99) | st.sampled_from([0.0, 0.3, 0.25, 1 / 3]),
        anneal_strategy=strategy,
        three_phase=st.booleans(),
        cycle_momentum=st.booleans(),
        final_div_factor=st.sampled_from([1e4, 10.0, 1.0]),
    ),
    "swa_lr": arguments(
        "swa_lr", swa_lr=rate, anneal_epochs=few | length, anneal_strategy=strategy
    ),
}


def members(node):
    return st.lists(node, min_size=1, max_size=3)


def sequence(node):
    return members(node).flatmap(
        lambda several: st.tuples(
            st.just("sequential_lr"),
            st.just(several),
            st.lists(
                few, min_size=len(several) - 1, max_size=len(several) - 1
            ).map(sorted),
        )
    )  # fmt: skip


def chain(node):
    return st.tuples(st.just("chained_scheduler"), members(node))


leaf = st.one_of(*LEAVES.values())
COMPOSITES = {
    "sequential_lr": sequence(leaf),
    "chained_scheduler": chain(leaf),
    "nested": st.one_of(
        sequence(st.one_of(leaf, sequence(leaf), chain(leaf))),
        chain(st.one_of(leaf, sequence(leaf), chain(leaf))),
        sequence(sequence(sequence(leaf))),
    ),
}


def assert_rates(case, schedule, steps):
    theirs, momenta = torch_rates(case, steps)
    with jax.enable_x64(True):
        ours, our_momenta = jax_rates(schedule, steps)
    assert ours.dtype == np.float64
    assert error(theirs, ours) <= RELATIVE, case
    if our_momenta is None:
        assert (momenta == 0.5).all(), case
    else:
        assert error(momenta, our_momenta) <= RELATIVE, case


@pytest.mark.parametrize("name", LEAVES)
def test_every_class_1000_steps(name):
    @SETTINGS
    @given(LEAVES[name])
    def holds(case):
        untraceable = name in ("lambda_lr", "multiplicative_lr")
        assert_rates(case, jax_schedule(case, 1000 if untraceable else None), 1000)

    holds()


@pytest.mark.parametrize("name", COMPOSITES)
def test_members_share_an_optimizer_1000_steps(name):
    refused = []

    @SETTINGS
    @given(COMPOSITES[name])
    def holds(case):
        try:
            torch_rates(case, 1000)
        except (NotImplementedError, ZeroDivisionError, ValueError):
            refused.append(case)
            with pytest.raises(ValueError):
                jax_schedule(case, 1000)
            return
        assert_rates(case, jax_schedule(case, 1000), 1000)

    holds()
    assert len(refused) < 30
