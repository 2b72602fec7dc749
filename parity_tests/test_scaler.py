"""GradScaler, its verbs and the fused step, against torch.amp.GradScaler."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import optax
import pytest
import torch
from torch import nn

import instep
from conftest import array, assert_bitwise, assert_in_step
from instep import bridge, parity
from instep._loop import initial_state, train_step
from instep.parity import Leaf, Status
from instep.parity._judge import Ledger
from instep.parity._leaf import FOUND_INF
from instep.parity._records import Plan


INF = float("inf")
MANY = 300


def torch_trace(flags, **options):
    """Scale and tracker after each step; a flag is a step that overflows."""
    p = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([p], lr=0.0)
    scaler = torch.amp.GradScaler("cpu", **options)
    scaler.scale(torch.ones(()))
    for overflow in flags:
        p.grad = torch.full((2,), INF if overflow else 1.0)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        state = scaler.state_dict()
        yield state["scale"], state["_growth_tracker"]


TRACES = [
    ([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], {"init_scale": 4.0, "growth_interval": 3}),
    ([0, 1, 1, 0, 0], {"init_scale": 4.0, "growth_interval": 1}),
    ([1] * MANY, {}),  # down to 0.0
    ([1] * MANY + [0] * 3, {"growth_interval": 2}),  # and never up again
    ([0] * 8, {"init_scale": 2.0**126, "growth_interval": 2}),  # stays below infinity
    ([0] * 5, {"growth_interval": 2000}),
]
# Factors that are no float32 numbers: PyTorch multiplies in double precision.
TRACES_X64 = [
    ([0, 0, 1] * 20, {"init_scale": 3.0, "growth_factor": 1.7, "growth_interval": 2}),
    ([0, 1] * 20, {"growth_factor": 1.1, "backoff_factor": 0.9, "growth_interval": 1}),
]


@pytest.mark.parametrize(
    ("flags", "options", "enabled"),
    [(*trace, enabled) for enabled in (True, False) for trace in TRACES]
    + [(*trace, True) for trace in TRACES_X64],
)
def test_trace_to_the_bit(flags, options, enabled):
    with jax.enable_x64(enabled):
        scaler, update = instep.GradScaler(**options), jax.jit(lambda s, x: s.update(x))
        for n, (scale, tracker) in enumerate(torch_trace(flags, **options)):
            scaler = update(scaler, bool(flags[n]))
            flushed = scale if scale >= jnp.finfo(jnp.float32).tiny else 0.0  # by XLA
            found = float(scaler.get_scale()), int(scaler.growth_tracker)
            assert found == (flushed, tracker), f"step {n}"
        assert (scaler.scale.dtype, scaler.growth_tracker.dtype) == (jnp.float32, jnp.int32)
        assert update._cache_size() <= 2  # NumPy numbers at first


@pytest.mark.parametrize("scale", [2.0**127, 2.0**16, 3.0, 1e-3, 2.0**-140, 0.0])
@pytest.mark.parametrize("bad", [None, INF, -INF, float("nan")])
def test_unscale_to_the_bit(scale, bad):
    rng = np.random.default_rng(0)
    grads = {"w": rng.uniform(0.1, 1.0, (3, 4)), "b": -rng.uniform(0.1, 1.0, 5)}
    grads = {name: (g * max(scale, 1.0)).astype("f") for name, g in grads.items()}
    if bad is not None:
        grads["w"][1, 2] = bad
    p = {name: nn.Parameter(torch.zeros(g.shape)) for name, g in grads.items()}
    for name, g in grads.items():
        p[name].grad = torch.tensor(g)
    optimizer = torch.optim.SGD(p.values(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scaler.scale(torch.ones(()))
    scaler.unscale_(optimizer)

    unscaled, found_inf = instep.GradScaler(scale).unscale(grads | {"frozen": None})
    assert bool(found_inf) == (bad is not None)  # of what came in, not of what goes out
    assert unscaled["frozen"] is None
    for name in grads:
        np.testing.assert_array_equal(p[name].grad.numpy(), unscaled[name])


def test_no_gradients_are_finite():
    grads, found_inf = instep.GradScaler().unscale({"w": None})
    assert grads == {"w": None} and not found_inf


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"growth_factor": 1.0}, "growth_factor: 1.0. It must satisfy growth_factor > 1"),
        ({"backoff_factor": 1.0}, "backoff_factor: 1.0. It must satisfy backoff_factor < 1"),
        ({"growth_factor": float("nan")}, "Invalid growth_factor: nan"),
    ],
)  # fmt: skip
def test_range_errors_name_the_value(options, told):
    with pytest.raises(ValueError, match=told):
        instep.GradScaler(**options)
    if "nan" not in told:
        with pytest.raises(AssertionError, match="factor must be"):
            torch.amp.GradScaler("cpu", **options)


def test_float16_gradients_are_refused_as_in_torch():
    with pytest.raises(ValueError, match=r"\['w'\] are float16.*accumulates in float32"):
        instep.GradScaler().unscale({"w": jnp.ones(2, jnp.float16), "b": jnp.ones(2)})
    p = nn.Parameter(torch.ones(2, dtype=torch.float16))
    p.grad = torch.ones_like(p)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    with pytest.raises(ValueError, match="FP16"):
        scaler.unscale_(torch.optim.SGD([p], lr=0.1))


def test_a_pytree_of_data_on_the_host():
    scaler = instep.GradScaler(growth_interval=3)
    leaves, treedef = jax.tree.flatten(scaler)
    assert len(leaves) == 5 and not any(isinstance(x, jax.Array) for x in leaves)
    assert_bitwise(treedef.unflatten(leaves), scaler)
    assert treedef.unflatten([object()] * 5).scale is not None  # anything may be a leaf
    assert replace(scaler, growth_tracker=2).scale == 2.0**16
    assert float(scaler.scaled(jnp.float16(2.0))) == 2.0**17  # in float32


# Whole loops. A batch whose flag is 0 has a finite loss and gradients that are not: the root
# has an infinite slope there.


IN, OUT, B = 4, 3, 5


def batch(n, overflow):
    rng = np.random.default_rng(n)
    return rng.normal(size=(B, IN)), np.array(0.0 if overflow else 1e-3)


def weights(seed=1):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(IN, OUT)), "b": rng.normal(size=OUT)}


def torch_loss(p, batch):
    x, flag = map(torch.tensor, batch)
    y = x @ p["w"] + p["b"]
    return (y**2).mean() + ((y * flag) ** 2).sum().sqrt()


def jax_loss(p, batch):
    x, flag = batch
    y = x @ p["w"] + p["b"][None]
    return (y**2).mean() + jnp.sqrt(((y * flag) ** 2).sum())


@pytest.mark.parametrize(
    ("torch_optimizer", "make"),
    [
        (lambda p: torch.optim.SGD(p, 0.1, 0.9), lambda lr: instep.optim.sgd(lr, 0.9)),
        (lambda p: torch.optim.Adam(p, 0.1), instep.optim.adam),
    ],
    ids=["sgd", "adam"],
)
def test_both_loops_in_full(torch_optimizer, make, x64):
    """30 steps, of which 11, 12 and 20 overflow: the optimizer holds, the scheduler goes on."""
    p = {name: torch.tensor(value, requires_grad=True) for name, value in weights().items()}
    optimizer = torch_optimizer(p.values())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    torch_scaler = torch.amp.GradScaler("cpu", growth_interval=4)

    tx = make(instep.schedules.cosine_annealing_lr(0.1, T_max=40))
    state = instep.init_state(weights(), tx)
    scaler = instep.GradScaler(growth_interval=4)

    skipped = []
    for n in range(1, 31):
        microbatch = batch(n, n in (11, 12, 20))

        optimizer.zero_grad()
        torch_scaler.scale(torch_loss(p, microbatch)).backward()
        torch_scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(p.values(), 1.0)
        torch_scaler.step(optimizer)
        torch_scaler.update()
        scheduler.step()

        acc = instep.zero_grad(state.params)
        acc, _ = instep.backward(
            jax_loss, acc, state.params, None, microbatch, scale=scaler.scale
        )
        grads, found_inf = scaler.unscale(acc.grads)
        grads, _ = instep.clip_grad_norm(grads, 1.0)
        before = state
        state = instep.step(tx, state, replace(acc, grads=grads), found_inf=found_inf)
        scaler = scaler.update(found_inf)

        assert float(scaler.scale) == torch_scaler.get_scale()
        for name in p:
            assert_in_step(p[name], state.params[name], f"step {n}, {name}")
            for slot, value in optimizer.state[p[name]].items():
                assert_in_step(value, state.opt_state.slots[slot][name], f"{n} {name}.{slot}")
        rate = instep.optim.hyperparams(state.opt_state)["lr"]
        assert_in_step(np.array(scheduler.get_last_lr()[0]), rate, "learning rate")
        assert int(state.step) == n
        if found_inf:
            skipped.append(n)
            assert_bitwise(state.params, before.params)
            assert_bitwise(state.opt_state.slots, before.opt_state.slots)
    assert skipped == [11, 12, 20]
    for slot in optimizer.state[p["w"]]:
        if slot == "step":
            assert int(state.opt_state.slots["step"]["w"]) == 27


def test_two_optimizers_skip_by_themselves_and_update_once(x64):
    """A GAN: only the first overflows at step 3, only the second at step 5."""
    names, overflows = ("w", "b"), {"w": 3, "b": 5}
    p = {name: torch.tensor(weights()[name], requires_grad=True) for name in names}
    optimizers = {name: torch.optim.Adam([p[name]], 0.1) for name in names}
    torch_scaler = torch.amp.GradScaler("cpu", growth_interval=3)

    tx, scaler = instep.optim.adam(0.1), instep.GradScaler(growth_interval=3)
    states = {name: instep.init_state({name: weights()[name]}, tx) for name in names}

    def loss_fn(params, flag):
        (value,) = params.values()
        return (value**2).sum() + jnp.sqrt((flag * value**2).sum())

    for n in range(1, 9):
        flags = {name: 0.0 if n == overflows[name] else 1.0 for name in names}

        for name in names:
            optimizers[name].zero_grad()
            loss = (p[name] ** 2).sum() + (flags[name] * p[name] ** 2).sum().sqrt()
            torch_scaler.scale(loss).backward()
            torch_scaler.step(optimizers[name])
        torch_scaler.update()

        found = {}
        for name in names:
            acc = instep.zero_grad(states[name].params)
            acc, _ = instep.backward(
                loss_fn, acc, states[name].params, None, flags[name], scale=scaler.scale
            )
            grads, found[name] = scaler.unscale(acc.grads)
            acc = replace(acc, grads=grads)
            states[name] = instep.step(tx, states[name], acc, found_inf=found[name])
        scaler = scaler.update(found["w"] | found["b"])

        assert float(scaler.scale) == torch_scaler.get_scale()
        for name in names:
            assert bool(found[name]) == (n == overflows[name])
            assert_in_step(p[name], states[name].params[name], f"step {n}, {name}")


@pytest.mark.parametrize("k", [1, 2, 4])  # dividing by these rounds nothing
def test_the_fused_step_is_its_verbs_to_the_bit(k):
    tx = instep.optim.adam(instep.schedules.cosine_annealing_lr(0.1, 20))
    start = instep.GradScaler(growth_interval=2)
    fused_step = instep.make_train_step(jax_loss, tx, accumulate=k, clip_grad_norm=1.0)
    fused = instep.init_state(weights(), tx, scaler=start)
    by_hand = instep.init_state(weights(), tx, scaler=start)

    @jax.jit
    def by_verbs(state, batch):
        scaler = state.scaler

        def forward_loss_backward(acc, microbatch):
            return instep.backward(
                jax_loss, acc, state.params, None, microbatch, scale=scaler.scale / k
            )[0], None

        acc = instep.zero_grad(state.params)
        if k == 1:
            acc, _ = forward_loss_backward(acc, batch)
        else:
            acc, _ = jax.lax.scan(forward_loss_backward, acc, batch)
        grads, found_inf = scaler.unscale(acc.grads)
        acc = instep.mean(replace(acc, grads=grads, loss=acc.loss / k, weight=acc.weight / k))
        grads, _ = instep.clip_grad_norm(acc.grads, 1.0)
        state = instep.step(tx, state, replace(acc, grads=grads), found_inf=found_inf)
        return replace(state, scaler=scaler.update(found_inf))

    for n in range(8):
        window = [batch(10 * n + i, n == 4 and i == k - 1) for i in range(k)]
        window = jax.tree.map(lambda *x: np.stack(x).astype("f"), *window)
        window = jax.tree.map(lambda x: x[0], window) if k == 1 else window
        fused, metrics = fused_step(fused, window)
        by_hand = by_verbs(by_hand, window)
        assert_bitwise(fused, by_hand, f"step {n}")
        assert bool(metrics.skipped) == (n == 4)
        assert float(metrics.weight) == k and np.isfinite(float(metrics.loss))
    assert fused_step._cache_size() == 1


def test_the_accumulated_loss_is_not_scaled_and_the_sum_overflows_as_in_torch():
    """Of four microbatches, each is scaled as loss / 4: no overflow where the mean has none."""
    tx = instep.optim.sgd(0.0)
    state = instep.init_state(jnp.ones(()), tx, scaler=instep.GradScaler(2.0**16))
    step = instep.make_train_step(lambda p, x: p * x, tx, accumulate=4)
    large = np.float32(2.0**127 / 2.0**16)
    state, metrics = step(state, np.full(4, large))
    assert (bool(metrics.skipped), float(metrics.loss)) == (False, large)
    p = nn.Parameter(torch.ones(()))
    scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD([p], lr=0.0)
    for _ in range(4):
        scaler.scale(p * large / 4).backward()
    scaler.unscale_(optimizer)
    assert float(p.grad) == large
    state, metrics = step(state, np.full(4, 2 * large))
    assert bool(metrics.skipped)


def test_without_a_scaler_nothing_is_skipped():
    tx = instep.optim.sgd(0.1)
    state, metrics = instep.make_train_step(lambda p, x: p * x, tx)(
        instep.init_state(jnp.ones(()), tx), jnp.float32(INF)
    )
    assert metrics.skipped is None and state.scaler is None
    assert not np.isfinite(float(state.params))


@pytest.mark.parametrize(
    ("tx", "rate"),
    [
        (
            optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(lambda n: -0.1 * n)),
            lambda s: s[1].count,
        ),
        (
            optax.inject_hyperparams(optax.adam)(lambda n: 0.1 * n),
            lambda s: s.count,
        ),
    ],
    ids=["scale_by_schedule", "inject_hyperparams"],
)
def test_optax_schedules_advance_while_its_moments_hold(tx, rate):
    step = instep.make_train_step(lambda p, x: (p * x).sum(), tx, donate=False)
    state = instep.init_state(jnp.ones(2), tx, scaler=instep.GradScaler())
    for n, x in enumerate([1.0, INF, 1.0], start=1):
        before = state
        state, _ = step(state, jnp.float32(x))
        assert int(rate(state.opt_state)) == n
        counts = [
            int(s.count)
            for s in jax.tree.leaves(
                state.opt_state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState)
            )
            if isinstance(s, optax.ScaleByAdamState)
        ]
        assert counts == [n if n == 1 else n - 1]
        if n == 2:
            assert_bitwise(state.params, before.params)


def test_buffers_and_randomness_go_on_after_a_skipped_step():
    def loss_fn(params, buffers, batch, rng):
        drawn = jax.random.uniform(rng)
        return instep.Loss(params * batch, buffers=buffers + 1, metrics=drawn)

    tx = instep.optim.sgd(0.1)
    state = instep.init_state(
        jnp.ones(()), tx, jnp.zeros(()), jax.random.key(0), instep.GradScaler()
    )
    step, drawn = instep.make_train_step(loss_fn, tx), []
    for _ in range(3):
        state, metrics = step(state, jnp.float32(INF))
        drawn.append(float(metrics.aux))
    assert (float(state.buffers), int(state.step), float(state.params)) == (3.0, 3, 1.0)
    assert len(set(drawn)) == 3


# Pairs in step, and the mistakes people make.

OVERFLOW, INTERVAL = 4, 3


@dataclass(frozen=True)
class ByHand:
    """Someone's own step, in parts that can be got wrong."""

    loss_fn: Any
    tx: Any
    update: Any = instep.GradScaler.update
    step: Any = instep.step
    clip_scaled: bool = False

    def __call__(self, state, batch):
        scaler = state.scaler
        acc = instep.zero_grad(state.params)
        acc, _ = instep.backward(
            self.loss_fn, acc, state.params, None, batch, scale=scaler.scale
        )
        grads, found_inf = scaler.unscale(acc.grads)
        if self.clip_scaled:
            scaled, norm = instep.clip_grad_norm(acc.grads, 0.5)
            clipped, _ = scaler.unscale(scaled)
        else:
            clipped, norm = instep.clip_grad_norm(grads, 0.5)
        acc = replace(acc, grads=clipped)
        new = self.step(self.tx, state, acc, found_inf=found_inf)
        new = replace(new, scaler=self.update(scaler, found_inf))
        return new, (acc.loss, grads, clipped, norm, found_inf)


def view(state, seen):
    loss, grads, clipped, norm, found_inf = seen
    return instep.View(
        loss, state.params, None, state.opt_state, grads, clipped, norm, state.scaler, found_inf
    )


def pair(accumulate=1, steps=8, by_hand=None, init_scale=2.0**16, **jax_options):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    batches = [
        (torch.randn(8, 3), torch.tensor(0.0 if n // accumulate == OVERFLOW - 1 else 1e-3))
        for n in range(steps * accumulate)
    ]

    def of_torch(model, batch):
        x, flag = batch
        y = model(x)
        return (y**2).mean() + ((y * flag) ** 2).sum().sqrt()

    def of_jax(params, batch):
        x, flag = batch
        y = x @ params["kernel"] + params["bias"]
        return (y**2).mean() + jnp.sqrt(((y * flag) ** 2).sum())

    options = {"init_scale": init_scale, "growth_interval": INTERVAL}
    loop = instep.TorchLoop(
        model, of_torch, optimizer, batches, scheduler, clip_grad_norm=0.5,
        accumulate=accumulate, scaler=torch.amp.GradScaler("cpu", **options),
    )  # fmt: skip
    params = {"kernel": jnp.full((3, 2), 0.3), "bias": jnp.ones(2)}
    right = instep.optim.sgd(instep.schedules.cosine_annealing_lr(0.1, 10), 0.9)
    scaler = instep.GradScaler(**options)
    if by_hand is None:
        half = instep.JaxLoop(
            of_jax, right, params, clip_grad_norm=0.5, accumulate=accumulate, scaler=scaler
        )
        half = replace(half, **jax_options)
    else:
        half = instep.JaxLoop.opaque(
            by_hand(of_jax, right),
            lambda: instep.init_state(params, right, scaler=scaler),
            view,
        )
    return instep.Pair(loop, half, [bridge.linear("")])


def statuses(report, walk=0):
    return {(*row.leaf,): row.status for row in report.walks[walk].rows}


@pytest.mark.parametrize(
    "options", [{}, {"accumulate": 3}, {"by_hand": ByHand}], ids=["fused", "window", "verbs"]
)
def test_a_pair_with_scalers_is_in_step(options, tmp_path):
    report = parity.run(pair(**options), steps=8, precisions=["float32"])
    assert report.in_step and report.coverage.complete, report
    for walk in range(3):
        found = statuses(report, walk)
        for name in ("scale", "growth_tracker", "found_inf"):
            assert found["scaler", name] == Status.IN_STEP
        assert found["gradient", "weight"] == Status.PARTLY  # all steps but OVERFLOW
    schema = Path(parity.__file__).parent / "report.schema.json"
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    jsonschema.validate(data, json.loads(schema.read_text()))
    assert "unscale" in str(report)
    report.to_html(tmp_path / "report.html")


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")  # of a skipped 1st
def test_what_overflows_in_float32_alone_is_judged_by_torchs_own_step():
    shown = pair(init_scale=2.0**127)
    shown = replace(
        shown,
        torch=replace(shown.torch, loss_fn=lambda model, b: (model(10 * b[0]) ** 2).mean()),
        jax=replace(
            shown.jax,
            loss_fn=lambda p, b: ((10 * b[0] @ p["kernel"] + p["bias"]) ** 2).mean(),
        ),
    )
    report = parity.run(shown, steps=8, precisions=["float32"])
    assert report.in_step, report
    skips = [
        [int(m.scale) for m in row.measurements]
        for walk in report.walks
        for row in walk.rows
        if row.leaf.name == "found_inf"
    ]
    assert skips[:2] == [[0] * 8] * 2
    assert skips[2][0] == 1 and skips[2][-1] == 0


@pytest.mark.parametrize(
    ("plan", "found_inf", "status"),
    [
        (Plan("float64"), 1.0, Status.DIVERGED),
        (Plan("float32", synced=True), 1.0, Status.NOT_FINITE),
        (Plan("float32", synced=True), 0.0, Status.DIVERGED),
    ],
)
def test_which_numbers_overflow_is_rounding_but_that_they_do_is_not(plan, found_inf, status):
    leaf, ledger = Leaf("gradient", "w"), Ledger(plan)
    torchs = {FOUND_INF: np.float32(1.0), leaf: np.array([INF, 1.0], "f")}
    jaxs = {FOUND_INF: np.float32(found_inf), leaf: np.array([INF, INF], "f")}
    ledger.judge(1, torchs, [torchs], jaxs)
    assert ledger.measurements[leaf][0].status is status
    assert ledger.measurements[FOUND_INF][0].status is (
        Status.IN_STEP if found_inf else Status.DIVERGED
    )


def test_a_scale_that_never_moves_is_said_to_be_idle():
    report = parity.run(pair(), steps=2)
    assert statuses(report)["scaler", "scale"] == Status.IDLE
    assert statuses(report)["scaler", "found_inf"] == Status.IDLE
    assert statuses(report)["scaler", "growth_tracker"] == Status.IN_STEP


def test_the_users_scaler_is_left_as_it_is():
    shown = pair()
    parity.run(shown, steps=5)
    assert (
        shown.torch.scaler.state_dict()
        == torch.amp.GradScaler("cpu", growth_interval=INTERVAL).state_dict()
    )


def test_a_disabled_scaler_is_none():
    shown = pair(scaler=None)
    off = replace(shown.torch, scaler=torch.amp.GradScaler("cpu", enabled=False))
    good = [b for i, b in enumerate(off.batches) if i != OVERFLOW - 1]
    report = parity.run(replace(shown, torch=replace(off, batches=good)), steps=5)
    assert report.in_step and not any(row.leaf.kind == "scaler" for row in report.rows)


def test_torch_loop_refuses_another_scaler():
    with pytest.raises(TypeError, match="scaler is a GradScaler; give a torch.amp.GradScaler"):
        replace(pair().torch, scaler=instep.GradScaler())


def no_skip(tx, state, acc, found_inf):
    return instep.step(tx, state, acc)


def schedule_held(tx, state, acc, found_inf):
    new = instep.step(tx, state, acc, found_inf=found_inf)
    held = jax.tree.map(lambda o, n: jnp.where(found_inf, o, n), state.opt_state, new.opt_state)
    return replace(new, opt_state=held)


def one_step_later(scaler, found_inf):
    """As flax's DynamicScale: the count is compared before it is raised."""
    later = replace(scaler, growth_interval=scaler.growth_interval + 1)
    return replace(later.update(found_inf), growth_interval=scaler.growth_interval)


def with_floor(scaler, found_inf):
    new = scaler.update(found_inf)
    return replace(new, scale=jnp.maximum(new.scale, 2.0**16))


@pytest.mark.parametrize(
    ("mistake", "stage", "step", "cause"),
    [
        ({"step": no_skip}, "optimizer", OVERFLOW, "step_not_skipped"),
        ({"step": schedule_held}, "schedule", OVERFLOW, "schedule_held_where_skipped"),
        ({"update": one_step_later}, "unscale", INTERVAL, "scale_grows_at_another_step"),
        ({"update": lambda scaler, found_inf: scaler}, "unscale", 1, "scale_never_updated"),
        ({"clip_scaled": True}, "clip", 1, "clipped_before_unscaled"),
    ],
    ids=["no skip", "schedule held", "growth one later", "no update", "clip before unscale"],
)
def test_mistakes_are_found_and_named(mistake, stage, step, cause):
    report = parity.run(pair(by_hand=lambda *a: ByHand(*a, **mistake)), steps=6)
    assert report.verdict is parity.Verdict.NOT_IN_STEP
    assert (report.first_divergence.stage, report.first_divergence.step) == (stage, step)
    assert [found.name for found in report.causes] == [cause] and not report.unexplained


def test_a_hidden_scaler_is_not_green():
    shown = pair(by_hand=ByHand)
    half = replace(shown.jax, view=lambda state, seen: replace(view(state, seen), scaler=None))
    report = parity.run(replace(shown, jax=half), steps=3)
    assert report.verdict is parity.Verdict.INCONCLUSIVE
    assert "does not show the scaler of growth_tracker" in report.reason


def test_a_fused_loop_is_traced_once_per_precision():
    loop, traces = pair().jax, 0

    def counted(params, batch):
        nonlocal traces
        traces += 1
        return pair().jax.loss_fn(params, batch)

    loop = replace(loop, loss_fn=counted)
    state, step = initial_state(loop), train_step(loop)
    for n in range(4):
        x, flag = batch(n, n == 2)
        state, _ = step(state, (x[:, :3].astype("f"), flag.astype("f")))
    assert traces == 1
    assert array(state.scaler.scale).dtype == np.float32
