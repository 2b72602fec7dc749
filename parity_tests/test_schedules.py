"""instep.schedules against torch.optim.lr_scheduler."""

import inspect
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import Phase, assume, given, settings, strategies as st
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from instep import schedules
from instep.parity._tolerance import RELATIVE


BASE_LR = 0.1
ULPS = 8  # float32, wherever the rate exceeds 1e-6 of the base rate
SETTINGS = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=40,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes and rarely helps here
)

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
    count = jnp.arange(max(steps, 1000) + 1, dtype=jnp.int32)  # few shapes, few compilations
    rates = np.asarray(jax.vmap(schedule)(count))[: steps + 1]
    if schedule.momentum is None:
        return rates, None
    return rates, np.asarray(jax.vmap(schedule.momentum)(count))[: steps + 1]


def error(theirs, ours, scale=0.0):
    """Of each rate against the largest one so far, as parity judges a learning rate."""
    largest = np.maximum(np.maximum.accumulate(np.abs(theirs)), scale)
    return (np.abs(ours - theirs) / np.where(largest > 0, largest, 1e-300)).max()


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
    "cosine_annealing_lr": arguments(  # between them: see test_cosine_past_its_minimum
        "cosine_annealing_lr",
        T_max=st.integers(1, 60) | st.integers(1000, 2000),
        eta_min=st.just(0.0) | st.floats(0.0, 0.09),
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


def assert_rates(case, schedule, steps, scale=0.0):
    theirs, momenta = torch_rates(case, steps)
    with jax.enable_x64(True):
        ours, our_momenta = jax_rates(schedule, steps)
    assert ours.dtype == np.float64
    assert error(theirs, ours, scale) <= RELATIVE, case
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


CLOSED = set(LEAVES) - {"multiplicative_lr", "swa_lr", "cyclic_lr", "one_cycle_lr", "lambda_lr"}


@SETTINGS
@given(sequence(st.one_of(*(LEAVES[name] for name in sorted(CLOSED)))))
def test_sequence_without_a_table(case):
    zero = any(
        given.get("total_iters") == 0 for name, given in case[1] if name != "constant_lr"
    )
    assume(not zero)  # see test_a_table_is_asked_for
    assert_rates(case, jax_schedule(case), 1000)


@pytest.mark.parametrize("eta_min", [0.0, 0.01, 0.099, 1.0])
@pytest.mark.parametrize("T_max", [2, 35, 261, 278, 400])
def test_cosine_past_its_minimum(T_max, eta_min):
    """One step past the minimum PyTorch's recursion starts again from 1 - cos(pi / T_max).

    That has few digits if T_max is large: at 261 PyTorch is 1.4e-12 off its own closed form
    from there on. We are judged by the closed form.
    """
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE_LR)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max, eta_min)
    theirs = []
    for scheduler.last_epoch in range(1001):
        theirs += scheduler._get_closed_form_lr()
    with jax.enable_x64(True):
        ours, _ = jax_rates(schedules.cosine_annealing_lr(BASE_LR, T_max, eta_min), 1000)
    assert error(np.array(theirs), ours) <= RELATIVE


# PyTorch's habits, one by one. The drawn cases have them too; these name them.
HALF = ("multiplicative_lr", dict(lr_lambda=lambda t: 0.5))
DECAY = ("exponential_lr", dict(gamma=0.9))
HABITS = {
    "a factor enters with lambda(0)": ("sequential_lr", [DECAY, HALF], [3]),
    "of two members with one milestone the last": (
        "sequential_lr",
        [DECAY, HALF, ("step_lr", dict(step_size=2))],
        [4, 4],
    ),
    "milestone 0": ("sequential_lr", [HALF, DECAY], [0]),
    "an inner sequence is one step ahead": (
        "sequential_lr",
        [("sequential_lr", [DECAY, ("step_lr", dict(step_size=2))], [5]), DECAY],
        [9],
    ),
    "an inner milestone of 1 is jumped at": (
        "sequential_lr",
        [("sequential_lr", [DECAY, HALF], [1]), DECAY],
        [9],
    ),
    "a chain in a sequence decays at step 0": (
        "sequential_lr",
        [("chained_scheduler", [DECAY, HALF]), DECAY],
        [6],
    ),
    "constant_lr without steps, first and entered": (
        "sequential_lr",
        [("constant_lr", dict(total_iters=0)), ("constant_lr", dict(total_iters=0))],
        [4],
    ),
    "swa_lr goes on from where it is": (
        "sequential_lr",
        [DECAY, ("swa_lr", dict(swa_lr=0.02, anneal_epochs=5))],
        [10],
    ),
    "swa_lr counts its steps, not its epochs": (
        "sequential_lr",
        [("chained_scheduler", [("swa_lr", dict(swa_lr=0.02, anneal_epochs=5))]), DECAY],
        [10],
    ),
    "one_cycle_lr moves initial_lr": (
        "sequential_lr",
        [DECAY, ("one_cycle_lr", dict(max_lr=1.0, total_steps=50)), DECAY],
        [5, 40],
    ),
    "cyclic_lr starts at initial_lr": (
        "chained_scheduler",
        [DECAY, ("cyclic_lr", dict(base_lr=0.01, max_lr=0.5, step_size_up=7)), HALF],
    ),
    "a cosine is not a factor": (
        "chained_scheduler",
        [("linear_lr", {}), ("cosine_annealing_lr", dict(T_max=30, eta_min=0.02))],
    ),
    "two momenta, the last wins": (
        "chained_scheduler",
        [
            ("one_cycle_lr", dict(max_lr=1.0, total_steps=60)),
            ("cyclic_lr", dict(base_lr=0.01, max_lr=0.5, step_size_up=7)),
        ],
    ),
    "the levels of the last one_cycle_lr": (
        "sequential_lr",
        [
            ("one_cycle_lr", dict(max_lr=1.0, total_steps=60)),
            ("one_cycle_lr", dict(max_lr=0.2, total_steps=60, max_momentum=0.7)),
        ],
        [20],
    ),
}


@pytest.mark.parametrize("habit", HABITS)
def test_habit(habit):
    assert_rates(HABITS[habit], jax_schedule(HABITS[habit], 60), 60)


@pytest.mark.parametrize("pct_start", [0.0, 0.05, 0.3, 0.55, 0.7])
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
@pytest.mark.parametrize("total_steps", [1, 2, 9, 20])
def test_one_cycle_to_its_last_step(total_steps, anneal_strategy, three_phase, pct_start):
    """At ``total_steps`` itself PyTorch extrapolates."""
    given = dict(max_lr=0.1, total_steps=total_steps, pct_start=pct_start)
    given |= dict(anneal_strategy=anneal_strategy, three_phase=three_phase)
    case = ("one_cycle_lr", given)
    if pct_start * total_steps == 1:
        with pytest.raises(ZeroDivisionError):
            torch_rates(case, 0)
        with pytest.raises(ValueError, match=r"pct_start \* total_steps = 0.05 \* 20 is 1"):
            jax_schedule(case)
        return
    assert_rates(case, jax_schedule(case), total_steps, scale=given["max_lr"])


# ------------------------------------------------------- float32: 100,000 steps, every class

N = 100_000
FLOAT32 = {
    "step_lr": ("step_lr", dict(step_size=100, gamma=0.987)),
    "multi_step_lr": ("multi_step_lr", dict(milestones=[7, 7, 30_000, 99_999], gamma=0.3)),
    "constant_lr": ("constant_lr", dict(factor=0.1, total_iters=50_000)),
    "linear_lr, up": ("linear_lr", dict(start_factor=1e-5, total_iters=N)),
    "linear_lr, down": ("linear_lr", dict(start_factor=0.9, end_factor=0.0, total_iters=N - 7)),
    "exponential_lr, down": ("exponential_lr", dict(gamma=0.9999)),
    "exponential_lr, up": ("exponential_lr", dict(gamma=1.00003)),
    "polynomial_lr, 1": ("polynomial_lr", dict(total_iters=N)),
    "polynomial_lr, 0.5": ("polynomial_lr", dict(total_iters=N - 1, power=0.5)),
    "polynomial_lr, 0.9": ("polynomial_lr", dict(total_iters=N, power=0.9)),
    "polynomial_lr, 2": ("polynomial_lr", dict(total_iters=N - 3, power=2.0)),
    "polynomial_lr, 3.7": ("polynomial_lr", dict(total_iters=N, power=3.7)),
    "polynomial_lr, 10": ("polynomial_lr", dict(total_iters=N, power=10.0)),
    "cosine_annealing_lr": ("cosine_annealing_lr", dict(T_max=N)),
    "cosine_annealing_lr, periods": ("cosine_annealing_lr", dict(T_max=777, eta_min=1e-5)),
    "cosine_annealing_warm_restarts": (
        "cosine_annealing_warm_restarts",
        dict(T_0=3_001, eta_min=1e-6),
    ),
    "cosine_annealing_warm_restarts, 2": (
        "cosine_annealing_warm_restarts",
        dict(T_0=10, T_mult=2),
    ),
    "cyclic_lr, triangular": (
        "cyclic_lr",
        dict(base_lr=1e-4, max_lr=0.1, step_size_up=1_000, step_size_down=77),
    ),
    "cyclic_lr, triangular2": (
        "cyclic_lr",
        dict(base_lr=0.0, max_lr=0.1, step_size_up=9_000, mode="triangular2"),
    ),
    "cyclic_lr, exp_range": (
        "cyclic_lr",
        dict(base_lr=1e-4, max_lr=0.1, mode="exp_range", gamma=0.9999),
    ),
    "one_cycle_lr, cos": ("one_cycle_lr", dict(max_lr=0.1, total_steps=N)),
    "one_cycle_lr, linear": (
        "one_cycle_lr",
        dict(max_lr=0.1, total_steps=N, pct_start=1 / 3, anneal_strategy="linear"),
    ),
    "one_cycle_lr, three phases": (
        "one_cycle_lr",
        dict(max_lr=0.1, total_steps=N, pct_start=0.234567, three_phase=True),
    ),
    "swa_lr": ("swa_lr", dict(swa_lr=1e-6, anneal_epochs=N - 10)),
    "lambda_lr": ("lambda_lr", dict(lr_lambda=lambda t: 0.9999**t)),
    "multiplicative_lr": ("multiplicative_lr", dict(lr_lambda=lambda t: 0.9999)),
    "chained_scheduler": (
        "chained_scheduler",
        [
            ("linear_lr", dict(total_iters=500)),
            ("cosine_annealing_lr", dict(T_max=N, eta_min=1e-3)),
        ],
    ),
    "sequential_lr": (
        "sequential_lr",
        [
            ("linear_lr", dict(start_factor=1e-3, total_iters=1_000)),
            ("cosine_annealing_lr", dict(T_max=N - 1_000)),
        ],
        [1_000],
    ),
}
TABULATED = {"lambda_lr", "multiplicative_lr", "chained_scheduler"}


@pytest.mark.parametrize("name", FLOAT32)
def test_float32_8_ulp_for_100_000_steps(name):
    case = FLOAT32[name]
    theirs, momenta = torch_rates(case, N)
    schedule = jax_schedule(case, N if name in TABULATED else None)
    ours, our_momenta = jax_rates(schedule, N)
    if name.startswith("one_cycle_lr"):  # at N itself PyTorch extrapolates: judged in float64
        theirs, ours, momenta = theirs[:-1], ours[:-1], momenta[:-1]
    assert ours.dtype == np.float32
    assert ulps(theirs, ours, BASE_LR) <= ULPS
    if our_momenta is not None:
        assert ulps(momenta, our_momenta[: len(momenta)], 1.0) <= ULPS


# ------------------------------------------------------------------ as JAX functions

SMALL = {name: case for name, case in FLOAT32.items() if "," not in name}


@pytest.mark.parametrize("name", SMALL)
def test_eager_jit_vmap_and_scan(name, x64):
    """With no silent promotion, and one trace."""
    schedule = jax_schedule(SMALL[name], 50 if name in TABULATED else None)
    traces = []

    @jax.jit
    def jitted(count):
        traces.append(count)
        return schedule(count)

    eager = [schedule(count) for count in range(20)]
    assert all(x.shape == () and x.dtype == np.float64 for x in eager)
    eager = np.array(eager)
    counts = jnp.arange(20, dtype=jnp.int32)
    scanned = jax.lax.scan(lambda c, _: (c + 1, schedule(c)), counts[0], length=20)[1]
    for ours in ([jitted(c) for c in counts], jax.vmap(schedule)(counts), scanned):
        assert error(eager, np.array(ours)) <= 1e-15
    assert len(traces) == 1


@pytest.mark.parametrize("name", SMALL)
def test_made_before_x64_is_switched_on(name):
    case, total_steps = SMALL[name], 50 if name in TABULATED else None
    early = jax_schedule(case, total_steps)
    early(3)
    with jax.enable_x64(True):
        late = jax_schedule(case, total_steps)
        for count in (0, 1, 7, 50):
            assert early(count) == late(count) and early(count).dtype == np.float64
            if early.momentum:
                assert early.momentum(count) == late.momentum(count)


def test_lambda_in_jax_is_tabulated_in_float64():
    case = ("lambda_lr", dict(lr_lambda=lambda t: jnp.exp(-0.01 * t)))
    schedule = jax_schedule(case, 30)
    with jax.enable_x64(True):
        ours, _ = jax_rates(schedule, 30)
    assert error(BASE_LR * np.exp(-0.01 * np.arange(31)), ours) <= RELATIVE


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.lambda_lr(0.1, lambda t: 0.9**t, total_steps=10),
        schedules.multiplicative_lr(0.1, lambda t: 0.9, total_steps=10),
        schedules.chained_scheduler([schedules.step_lr(0.1, 3)], total_steps=10),
        schedules.sequential_lr([schedules.step_lr(0.1, 3)], [], total_steps=10),
        schedules.one_cycle_lr(0.1, total_steps=10),
        schedules.one_cycle_lr(0.1, total_steps=10).momentum,
    ],
)
def test_past_total_steps(schedule):
    assert np.isfinite(schedule(10)) and np.isfinite(jax.jit(schedule)(10))
    for count in (11, np.int32(11), jnp.int32(11), -1):
        with pytest.raises(ValueError, match=r"is outside 0..10, .*total_steps=10 .*larger"):
            schedule(count)
        assert np.isnan(jax.jit(schedule)(count))


# ------------------------------------------------------------------ once per epoch


@pytest.mark.parametrize("name", SMALL)
def test_per_epoch(name):
    epochs, steps_per_epoch = 40, 3
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE_LR, momentum=0.5)
    scheduler = torch_scheduler(optimizer, SMALL[name])
    theirs, momenta = [], []
    for _ in range(epochs):
        for _ in range(steps_per_epoch):
            theirs.append(optimizer.param_groups[0]["lr"])
            momenta.append(optimizer.param_groups[0]["momentum"])
            optimizer.step()
        scheduler.step()

    epochwise = jax_schedule(SMALL[name], epochs - 1 if name in TABULATED else None)
    schedule = schedules.per_epoch(epochwise, steps_per_epoch)
    with jax.enable_x64(True):
        ours, our_momenta = jax_rates(schedule, epochs * steps_per_epoch - 1)
    assert error(np.array(theirs), ours) <= RELATIVE
    if our_momenta is not None:
        assert error(np.array(momenta), our_momenta) <= RELATIVE
    if name in TABULATED:
        with pytest.raises(ValueError, match="total_steps"):
            schedule(epochs * steps_per_epoch)


# ------------------------------------------------------------------ errors

STEP = schedules.step_lr(0.1, 3)
ERRORS = [
    (lambda: schedules.cosine_annealing_lr(0.1, 0), "T_max must be a positive.*got T_max=0"),
    (lambda: schedules.cosine_annealing_lr(0.1, -3), "got T_max=-3"),
    (lambda: schedules.cosine_annealing_lr(0.1, 1.5), "got T_max=1.5"),
    (
        lambda: schedules.step_lr(0.1, 0),
        "step_size must be a positive integer; got step_size=0",
    ),
    (lambda: schedules.step_lr(0.1, "3"), "step_size='3'"),
    (lambda: schedules.multi_step_lr(0.1, [3, -1]), "milestone=-1"),
    (lambda: schedules.constant_lr(0.1, 0.0), "factor=0.0"),
    (lambda: schedules.constant_lr(0.1, 1.1), "factor=1.1"),
    (lambda: schedules.linear_lr(0.1, 0.0), "start_factor=0.0"),
    (lambda: schedules.linear_lr(0.1, 1.0, 1.5), "end_factor=1.5"),
    (lambda: schedules.linear_lr(0.1, total_iters=-1), "total_iters=-1"),
    (lambda: schedules.polynomial_lr(0.1, power=-1.0), "power=-1.0"),
    (lambda: schedules.cosine_annealing_warm_restarts(0.1, 0), "T_0=0"),
    (lambda: schedules.cosine_annealing_warm_restarts(0.1, 2, 0), "T_mult=0"),
    (lambda: schedules.cyclic_lr(0.1, 1.0, 2.5), "step_size_up=2.5"),
    (lambda: schedules.cyclic_lr(0.1, 1.0, mode="square"), "mode='square'"),
    (lambda: schedules.one_cycle_lr(0.1), "total_steps, or epochs and steps_per_epoch"),
    (lambda: schedules.one_cycle_lr(0.1, 0), "total_steps=0"),
    (lambda: schedules.one_cycle_lr(0.1, epochs=3, steps_per_epoch=0), "steps_per_epoch=0"),
    (lambda: schedules.one_cycle_lr(0.1, 9, pct_start=1), "pct_start=1"),
    (lambda: schedules.one_cycle_lr(0.1, 9, anneal_strategy="up"), "anneal_strategy='up'"),
    (lambda: schedules.swa_lr(0.1, 0.05, -1), "anneal_epochs=-1"),
    (lambda: schedules.per_epoch(STEP, 0), "steps_per_epoch=0"),
    (lambda: schedules.sequential_lr([], []), "at least one member"),
    (lambda: schedules.chained_scheduler([]), "at least one member"),
    (lambda: schedules.sequential_lr([STEP, STEP], []), "2 members and milestones=\\[\\]"),
    (lambda: schedules.sequential_lr([STEP] * 3, [5, 4]), "must ascend; got .*\\[5, 4\\]"),
    (
        lambda: schedules.chained_scheduler([STEP, schedules.constant_lr(0.2)], 9),
        "step_lr.base_lr=0.1., constant_lr.base_lr=0.2.",
    ),
    (
        lambda: schedules.sequential_lr([STEP, schedules.chained_scheduler([STEP])], [4], 9),
        "chained_scheduler cannot be entered at a milestone",
    ),
    (
        lambda: schedules.sequential_lr(
            [STEP, schedules.linear_lr(0.1, total_iters=0)], [4], 9
        ),
        "stops at step 4 with ZeroDivisionError.*total_iters",
    ),
    (
        lambda: schedules.chained_scheduler([schedules.one_cycle_lr(0.1, 8), STEP], 9),
        "total_steps=8. is stepped 9 times",
    ),
]


@pytest.mark.parametrize("make, message", ERRORS)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.lambda_lr(0.1, lambda t: 1.0 if t < 5 else 0.1),
        schedules.lambda_lr(0.1, lambda t: math.cos(t)),
        schedules.multiplicative_lr(0.1, lambda t: 0.9),
        schedules.chained_scheduler([STEP]),
        schedules.sequential_lr([STEP, schedules.swa_lr(0.1, 0.01)], [5]),
        schedules.sequential_lr([schedules.sequential_lr([STEP], []), STEP], [5]),
        schedules.sequential_lr([STEP, schedules.linear_lr(0.1, total_iters=0)], [5]),
        schedules.sequential_lr([STEP, schedules.cyclic_lr(0.1, 1.0)], [5]),
    ],
)
def test_a_table_is_asked_for(schedule):
    for called in (schedule, jax.jit(schedule)):
        with pytest.raises(ValueError, match="is tabulated: give it total_steps"):
            called(0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.lambda_lr(0.1, [lambda t: 1.0]),
        lambda: schedules.multiplicative_lr(0.1, 0.9),
        lambda: schedules.step_lr([0.1, 0.2], 3),
        lambda: schedules.chained_scheduler([lambda t: 0.1]),
        lambda: schedules.sequential_lr([schedules.per_epoch(STEP, 3)], []),
    ],
)
def test_arguments_of_the_wrong_type(make):
    with pytest.raises(TypeError, match="must be a"):
        make()


@pytest.mark.parametrize("name", TORCH)
def test_arguments_and_defaults_are_those_of_torch(name):
    theirs = dict(inspect.signature(TORCH[name]).parameters)
    ours = dict(inspect.signature(getattr(schedules, name)).parameters)
    del theirs["optimizer"], theirs["last_epoch"]
    if name not in OWN_RATES:
        del ours["base_lr"]
    if name in ("lambda_lr", "multiplicative_lr"):
        del ours["total_steps"]
    assert [(p.name, p.default) for p in ours.values()] == [
        (p.name, p.default) for p in theirs.values()
    ]


def test_a_traced_lambda_divides_in_float64_under_x64():
    schedule = schedules.lambda_lr(0.1, lambda t: 1 / (1 + t))
    with jax.enable_x64(True):
        rates = np.asarray(jax.vmap(schedule)(np.arange(100, dtype=np.int32)))
    exact = 0.1 / (1 + np.arange(100))
    assert np.abs(rates - exact).max() <= RELATIVE * 0.1
