"""The runner: it is the loop written out, it goes on where it was, and it stops well."""

import os
import signal
import threading
import types
from dataclasses import replace
from itertools import cycle, islice

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import instep
from checkpoints import assert_same_state, data as data_file, flip
from instep import _train, data
from instep._loop import initial_state, train_step
from instep.checkpoint import Checkpointer, CheckpointError, CheckpointWarning


RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 4)).astype("f"), RNG.normal(size=(20, 3)).astype("f")
PLAIN = [(X[i : i + 4], Y[i : i + 4]) for i in range(0, 20, 4)]


def loss_fn(params, buffers, batch, rng):
    x, y = batch[:2]
    kept = jax.random.bernoulli(rng, 0.8, x.shape)
    loss = jnp.mean(((x * kept) @ params["w"] - y) ** 2)
    return instep.Loss(loss, buffers={"n": buffers["n"] + 1})


def loop(batches=PLAIN, **options):
    options = {"clip_grad_norm": 1.0, "rng": jax.random.key(0)} | options
    tx = instep.optim.adam(instep.schedules.cosine_annealing_lr(1e-2, 40))
    params, buffers = {"w": np.ones((4, 3), "f")}, {"n": jnp.int32(0)}
    return instep.JaxLoop(
        options.pop("loss_fn", loss_fn), tx, params, buffers, batches, **options
    )


def by_hand(loop, batches):
    state, step = initial_state(loop), train_step(loop)
    seen = []
    for batch in batches:
        state, metrics = step(state, batch)
        seen.append(jax.device_get(metrics))
    return state, seen


def test_it_is_the_loop_written_out():
    seen = []
    state = instep.train(loop(), 12, on_step=lambda n, metrics: seen.append((n, metrics)))
    wanted, metrics = by_hand(loop(), islice(cycle(PLAIN), 12))
    assert_same_state(state, wanted)
    assert [n for n, _ in seen] == list(range(1, 13))
    assert [m for _, m in seen] == metrics
    assert all(isinstance(m.loss, np.ndarray | np.generic) for _, m in seen)


def test_metrics_are_read_when_the_next_step_is_dispatched():
    events = []

    class Watched:
        def __iter__(self):
            for i in range(10):
                events.append(f"batch {i + 1}")
                yield PLAIN[0]

    instep.train(loop(Watched()), 3, on_step=lambda n, metrics: events.append(f"read {n}"))
    assert events == ["batch 1", "batch 2", "read 1", "batch 3", "read 2", "read 3"]


# Stopped after 7 of 17 steps, in the midst of an epoch.


def tensors(n=20):
    return TensorDataset(torch.tensor(X[:n]), torch.tensor(Y[:n]))


def grain_map():
    return grain.MapDataset.source([(x, y) for x, y in zip(X, Y, strict=True)])


BATCHES = {
    "list": (lambda: PLAIN, {}),
    "windows of a list": (lambda: data.windows(PLAIN, 2), {"accumulate": 2}),
    "short windows": (
        lambda: data.windows(PLAIN, 2, drop_last=False),
        {"accumulate": 2, "drop_last": False},
    ),
    "DataLoader": (lambda: DataLoader(tensors(), 4, shuffle=True), {}),
    "windows of a DataLoader": (
        lambda: data.windows(data.from_loader(DataLoader(tensors(), 4, shuffle=True), 7), 2),
        {"accumulate": 2},
    ),
    "prefetched DataLoader": (
        lambda: data.prefetch(DataLoader(tensors(), 4, shuffle=True), 3),
        {},
    ),
    "padded DataLoader": (
        lambda: data.mapped(lambda b: data.pad(b, 8)[0], DataLoader(tensors(), 8)),
        {},
    ),
    "grain": (lambda: data.from_grain(grain_map(), 4, seed=1), {}),
    "grain windows": (
        lambda: data.from_grain(grain_map(), 2, seed=1, accumulate=3),
        {"accumulate": 3},
    ),
    "prefetched grain": (lambda: data.prefetch(data.from_grain(grain_map(), 4, seed=1)), {}),
}


@pytest.mark.parametrize("name", BATCHES)
def test_stopped_in_mid_epoch_it_ends_with_the_same_bits(name, tmp_path):
    make, options = BATCHES[name]
    whole = instep.train(loop(make(), **options), 17)
    for stop in (7, 17):
        with Checkpointer(tmp_path) as checkpointer:
            part = instep.train(
                loop(make(), **options), stop, checkpointer=checkpointer, save_every=4
            )
    assert int(part.step) == 17
    assert_same_state(part, whole)
    assert checkpointer.steps() == [12, 16, 17]


def test_nothing_is_left_to_do(tmp_path):
    steps = []
    with Checkpointer(tmp_path) as checkpointer:
        instep.train(loop(), 4, checkpointer=checkpointer)
        state = instep.train(
            loop(), 4, checkpointer=checkpointer, on_step=lambda n, _: steps.append(n)
        )
    assert int(state.step) == 4 and not steps and checkpointer.steps() == [4]


def test_metrics_of_the_checkpoint(tmp_path):
    """The loss and the norm of its own step, and what on_save adds, choose the best."""
    losses, accuracies = {}, {4: 0.1, 8: 0.9, 12: 0.3, 13: 0.2}
    with Checkpointer(tmp_path, 1, keep_best=1, best="accuracy", mode="max") as checkpointer:
        instep.train(
            loop(),
            13,
            checkpointer=checkpointer,
            save_every=4,
            on_step=lambda n, metrics: losses.update({n: float(metrics.loss)}),
            on_save=lambda n, state: {"accuracy": accuracies[int(state.step)]},
        )
        assert checkpointer.steps() == [8, 13] and checkpointer.best_step() == 8
    from instep.checkpoint._seal import read

    metrics = read(tmp_path / "13")["metrics"]
    assert metrics["loss"] == losses[13] and metrics["grad_norm"] > 0


def test_a_damaged_checkpoint_costs_the_steps_after_the_one_before(tmp_path):
    whole = instep.train(loop(), 10)
    with Checkpointer(tmp_path) as checkpointer:
        instep.train(loop(), 8, checkpointer=checkpointer, save_every=4)
    flip(data_file(tmp_path / "8"))
    with (
        Checkpointer(tmp_path) as checkpointer,
        pytest.warns(CheckpointWarning, match=r"8 is damaged.*Step 4 is used"),
    ):
        state = instep.train(loop(), 10, checkpointer=checkpointer, save_every=4)
    assert_same_state(state, whole)
    assert checkpointer.steps() == [4, 8, 10]


def test_another_training_is_refused(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        instep.train(loop(), 2, checkpointer=checkpointer)
        with pytest.raises(CheckpointError, match=r"rng: key<fry>\[\] there, nothing here"):
            instep.train(loop(rng=None), 4, checkpointer=checkpointer)
        with pytest.raises(ValueError, match=r"has checkpoints, the last of step 2"):
            instep.train(loop(), 4, checkpointer=checkpointer, resume=False)
        other = loop(data.from_grain(grain_map(), 4))
        with pytest.raises(ValueError, match=r"\{'epoch': 0, 'taken': 2\} is of another"):
            instep.train(other, 4, checkpointer=checkpointer)


def test_a_state_that_changes_its_leaves_is_refused_at_the_first_step(tmp_path):
    drifts = optax.GradientTransformation(
        lambda params: {"n": jnp.int32(0)},
        lambda grads, state, params: (grads, {"n": state["n"] + jnp.float32(1)}),
    )
    with Checkpointer(tmp_path) as checkpointer:
        message = r"opt_state.n is int32\[\] before the step and float32\[\] after it"
        with pytest.raises(TypeError, match=message):
            instep.train(replace(loop(), tx=drifts), 4, checkpointer=checkpointer)


@pytest.mark.parametrize(
    ("batches", "steps", "message"),
    [
        (None, 1, r"the loop has no batches"),
        (
            data.from_grain(grain.MapDataset.range(8).to_iter_dataset(), 4),
            9,
            r"after step 2 of 9",
        ),
        ([], 1, r"epoch 0 has no batches"),
    ],
)
def test_batches_that_are_not_enough(batches, steps, message):
    def one(params, batch):
        return (params["w"] * jnp.mean(jnp.asarray(batch, "float32"))).sum()

    with pytest.raises(ValueError, match=message):
        instep.train(loop(batches, loss_fn=one), steps)


# Signals.


def terminating(at):
    def on_step(n, metrics):
        if n == at:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_step


def test_sigterm_saves_and_gives_the_handler_back(tmp_path):
    def mine(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with Checkpointer(tmp_path) as checkpointer:
            state = instep.train(
                loop(), 50, checkpointer=checkpointer, on_step=terminating(at=5)
            )
            assert int(state.step) in (6, 7) and checkpointer.steps() == [int(state.step)]
            restored, position = checkpointer.restore(initial_state(loop()))
            assert_same_state(restored, state)
            assert position == {"epoch": 1, "taken": int(state.step) - 5}
        assert signal.getsignal(signal.SIGTERM) is mine
        with pytest.raises(RuntimeError, match="mine"):
            instep.train(loop(), 5, on_step=failing)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def failing(n, metrics):
    raise RuntimeError("mine")


def test_outside_of_the_main_thread_no_handler_is_set(tmp_path):
    seen = []
    before = signal.getsignal(signal.SIGTERM)

    def run():
        on_step = lambda n, _: seen.append(signal.getsignal(signal.SIGTERM))  # noqa: E731
        seen.append(instep.train(loop(), 3, on_step=on_step))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen[:3] == [before] * 3 and int(seen[3].step) == 3


# What is not finite.


def bad(at, what):
    """Batches whose number ``at`` makes the loss, or only the parameters, not finite."""
    batches = [(x.copy(), y.copy(), np.float32(1)) for x, y in PLAIN * 3]
    x, y, scale = batches[at - 1]
    if what == "loss":
        x[0, 0] = np.nan
    batches[at - 1] = (x, y, np.float32(np.inf) if what == "params" else scale)
    return batches


@jax.custom_vjp
def spoiled(x, scale):
    return x


spoiled.defvjp(lambda x, scale: (x, scale), lambda scale, g: (g * scale, None))


def spoiling(params, buffers, batch, rng):
    x, y, scale = batch
    loss = jnp.mean((x @ spoiled(params["w"], scale) - y) ** 2)
    return instep.Loss(loss, buffers=buffers, metrics={"loss again": loss})


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("loss", r"step 7: metrics.loss is not finite: nan"),
        ("params", r"step 7: params.w is not finite\."),
    ],
)
@pytest.mark.parametrize("every", [2, 7])
def test_what_is_not_finite_stops_and_is_not_saved(what, message, every, tmp_path):
    bad_loop = loop(bad(7, what), loss_fn=spoiling, clip_grad_norm=None)
    with (
        Checkpointer(tmp_path) as checkpointer,
        pytest.raises(FloatingPointError, match=message),
    ):
        instep.train(
            bad_loop, 12, checkpointer=checkpointer, save_every=every, stop_on_nan=True
        )
    assert checkpointer.steps() == {2: [2, 4, 6], 7: []}[every]
    state = instep.train(bad_loop, 12)  # not asked, it goes on
    assert not np.isfinite(state.params["w"]).all()


def test_a_step_that_the_scaler_skips_may_overflow(tmp_path):
    batches = bad(3, "params")
    state = instep.train(
        loop(batches, loss_fn=spoiling, scaler=instep.GradScaler(4.0)), 6, stop_on_nan=True
    )
    assert int(state.step) == 6 and float(state.scaler.scale) == 2.0


def test_it_is_not_in_the_way():
    """One trace, and no copy of a batch: what the runner adds is host time alone."""
    traces = []

    def counted(params, buffers, batch, rng):
        traces.append(1)
        return loss_fn(params, buffers, batch, rng)

    instep.train(loop(loss_fn=counted), 20, stop_on_nan=True)
    assert len(traces) == 1


def test_optax_too(tmp_path):
    def plain(params, batch):
        return jnp.mean((batch[0] @ params["w"] - batch[1]) ** 2)

    def half():
        tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))
        return instep.JaxLoop(plain, tx, {"w": np.ones((4, 3), "f")}, batches=PLAIN)

    whole = instep.train(half(), 9)
    with Checkpointer(tmp_path) as checkpointer:
        for steps in (4, 9):
            state = instep.train(half(), steps, checkpointer=checkpointer)
    assert_same_state(state, whole)


def test_several_processes_share_the_folder(monkeypatch):
    seen = types.SimpleNamespace(folder="run", steps=lambda: [3, 6])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    gathered = {"process_allgather": lambda newest: np.array([newest, -1])}
    monkeypatch.setattr(_train, "multihost_utils", types.SimpleNamespace(**gathered))
    with pytest.raises(ValueError, match=r"in run are of steps \[6, -1\] .* all of them share"):
        _train._check_shared(seen)
