"""Checkpoints come back to the bit, wherever made; which are kept, what is refused."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import instep
from checkpoints import PARAMS, assert_same_state, at, batches, loss_fn, three
from instep import optim, schedules
from instep.checkpoint import Checkpointer


def trained(tx, steps=3, params=PARAMS, cast=None, **kwargs):
    if cast is not None:
        params = jax.tree.map(lambda x: jnp.asarray(x, cast), params)
    state = instep.init_state(params, tx, **kwargs)
    step = instep.make_train_step(loss_fn, tx)
    for batch in batches(steps):
        state, _ = step(state, batch)
    return state


def plateau():
    return optim.on_plateau(optim.adam(1e-2), schedules.reduce_lr_on_plateau(1e-2, patience=1))


ODD = {
    "bool": jnp.array([True, False]),
    "int4": jnp.arange(3, dtype=jnp.int4),
    "uint8": jnp.arange(3, dtype=jnp.uint8),
    "complex": jnp.array([1 + 2j]),
    "f8": jnp.array([1.5, -2], jnp.float8_e4m3fn),
    "f16": jnp.array([6e-8, 65504.0], jnp.float16),
    "none": jnp.zeros((0, 3)),
    "scalar": jnp.array(7),
    "values": jnp.array([np.nan, -0.0, np.inf, 1e-45]),
    "a/b c": jnp.ones(2),
    "..": jnp.ones(1),
}
NX = nnx.split(nnx.BatchNorm(3, rngs=nnx.Rngs(0)), nnx.Param, ...)

STATES = {
    "adamw": lambda: trained(optim.adamw(1e-2)),
    "schedule": lambda: trained(optim.sgd(schedules.one_cycle_lr(0.1, 50), momentum=0.9)),
    "amsgrad": lambda: trained(optim.adam(1e-2, amsgrad=True)),
    "muon": lambda: trained(
        optim.param_groups([("w", optim.muon(1e-2)), ("b", optim.adamw(1e-2))])
    ),
    "lbfgs": lambda: trained(optim.lbfgs(0.1, history_size=3), steps=1),
    "plateau": lambda: trained(plateau()),
    "groups": lambda: trained(
        optim.param_groups([("w", optim.adam(1e-2)), ("b", optim.sgd(1e-1))])
    ),
    "optax": lambda: trained(optax.chain(optax.clip(1.0), optax.adamw(1e-2))),
    "scaler": lambda: trained(optim.adam(1e-2), scaler=instep.GradScaler(growth_interval=2)),
    "bfloat16": lambda: trained(optim.adam(1e-2), cast=jnp.bfloat16),
    "key": lambda: trained(optim.sgd(0.1), rng=jax.random.key(7)),
    "key rbg": lambda: trained(optim.sgd(0.1), rng=jax.random.key(7, impl="rbg")),
    "old key": lambda: trained(optim.sgd(0.1), rng=jax.random.PRNGKey(7)),
    "odd buffers": lambda: instep.init_state(PARAMS, optim.sgd(0.1), ODD),
    "keys among buffers": lambda: instep.init_state(
        PARAMS, optim.sgd(0.1), {"keys": jax.random.split(jax.random.key(3), 4)}
    ),
    "nnx": lambda: instep.init_state(NX[1], optim.adam(0.1), NX[2]),
    "weak": lambda: replace(
        instep.init_state(PARAMS, optim.sgd(0.1)),
        buffers={"f": jnp.asarray(1.5), "i": jnp.asarray(2), "strong": jnp.float32(1)},
    ),
}


WIDE = ("adamw", "plateau", "scaler", "odd buffers", "weak")  # in float64 as well


@pytest.mark.parametrize(
    ("name", "x64"), [(name, False) for name in STATES] + [(name, True) for name in WIDE]
)
def test_what_is_saved_comes_back_to_the_bit(name, x64, tmp_path):
    with jax.enable_x64(x64), Checkpointer(tmp_path / "run") as checkpointer:
        state = STATES[name]()
        like = jax.tree.map(lambda x: x.copy(), state)
        checkpointer.save(state, {"epoch": 2, "list": [1, None, "x"]})
        restored, position = checkpointer.restore(like)
        assert position == {"epoch": 2, "list": [1, None, "x"]}
        assert_same_state(restored, state)


def test_the_restored_state_trains_on_without_a_new_trace(tmp_path):
    tx = optim.adamw(schedules.cosine_annealing_lr(1e-2, 20))
    traces = []

    def counted(params, buffers, batch, rng):
        traces.append(1)
        return loss_fn(params, buffers, batch, rng)

    step = instep.make_train_step(counted, tx)
    state = instep.init_state(PARAMS, tx, rng=jax.random.key(0))
    like = instep.init_state(PARAMS, tx, rng=jax.random.key(1))
    with Checkpointer(tmp_path) as checkpointer:
        for n, batch in enumerate(batches()):
            if n == 4:
                checkpointer.save(state)  # and the step donates it at once
            state, _ = step(state, batch)
        again, _ = checkpointer.restore(like)
    for batch in batches()[4:]:
        again, _ = step(again, batch)
    assert_same_state(again, state)
    assert len(traces) == 1


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    """The copy is made before ``save`` returns, however large the state."""
    double = jax.jit(lambda x: jax.tree.map(lambda x: x + x, x), donate_argnums=0)
    leaves = {str(i): jnp.full((500, 500), 1.0) for i in range(20)}
    state = instep.init_state(leaves, optax.sgd(0.1))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(state)
        params = state.params
        for _ in range(20):
            params = double(params)
        jax.block_until_ready(params)
        restored, _ = checkpointer.restore(state)
    for leaf in restored.params.values():
        assert np.asarray(leaf).min() == np.asarray(leaf).max() == 1.0


SHARDED = """
import sys, warnings
warnings.simplefilter("error")
import jax, jax.numpy as jnp, numpy as np
from dataclasses import replace
from jax.sharding import NamedSharding, PartitionSpec as P
import instep
from instep.checkpoint import Checkpointer
tx = instep.optim.adam(1e-2)
w = np.arange(32.0, dtype="f").reshape(8, 4)
mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
def placed(*spec):
    sharding = NamedSharding(mesh, P(*spec))
    state = instep.init_state({"w": w, "e": w[:0]}, tx, rng=jax.random.key(0))
    whole = NamedSharding(mesh, P())
    return jax.tree.map(lambda x: jax.device_put(x, sharding if x.size > 4 else whole), state)
with Checkpointer(sys.argv[1]) as checkpointer:
    checkpointer.save(placed("a", "b"), 1)
    for spec in [("a", "b"), ("b",), (None, ("a", "b")), ()]:
        like = placed(*spec)
        state, _ = checkpointer.restore(like)
        for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
            assert x.sharding == y.sharding and x.dtype == y.dtype, (x.sharding, y.sharding)
        np.testing.assert_array_equal(np.asarray(state.params["w"]), w)
    like = instep.init_state({"w": w, "e": w[:0]}, tx, rng=jax.random.key(1))
    state, _ = checkpointer.restore(like)
    np.testing.assert_array_equal(np.asarray(state.params["w"]), w)
    assert len(state.params["w"].sharding.device_set) == 1
print("done")
"""


def test_sharded_over_four_devices(tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | flags,
    )
    assert done.stdout.strip() == "done", done.stderr


# What is kept.


@pytest.mark.parametrize(
    ("options", "losses", "kept"),
    [
        ({}, [1, 2, 3, 4, 5], [3, 4, 5]),
        ({"keep": 1}, [1, 2, 3], [3]),
        ({"keep": 9}, [1, 2, 3], [1, 2, 3]),
        ({"keep": 1, "keep_best": 2}, [3, 1, 2, 4, 5], [2, 3, 5]),
        ({"keep": 2, "keep_best": 1}, [3, 1, 2, 0, 5], [4, 5]),
        ({"keep": 1, "keep_best": 1, "mode": "max"}, [3, 9, 2, 1], [2, 4]),
        ({"keep": 1, "keep_best": 1}, [np.nan, 2, np.nan], [2, 3]),
        ({"keep": 1, "keep_best": 1}, [1, 1, 2], [2, 3]),  # the newest of equals
    ],
)
def test_what_is_kept(options, losses, kept, tmp_path):
    with Checkpointer(tmp_path, **options) as checkpointer:
        for step, loss in enumerate(losses, start=1):
            checkpointer.save(at(step), metrics={"loss": jnp.asarray(loss, float)})
    assert sorted(p.name for p in tmp_path.iterdir()) == [str(n) for n in kept]
    with Checkpointer(tmp_path, **options) as checkpointer:
        assert checkpointer.steps() == kept
        if "keep_best" in options:
            best = checkpointer.best_step()
            state, _ = checkpointer.restore(at(0), step=best)
            assert int(state.step) == best and best in kept
            pick = max if options.get("mode") == "max" else min
            assert losses[best - 1] == pick(x for x in losses if x == x)


def test_by_another_metric(tmp_path):
    with Checkpointer(tmp_path, keep=1, keep_best=1, best="accuracy", mode="max") as c:
        for step, accuracy in enumerate([0.1, 0.9, 0.5], start=1):
            c.save(at(step), metrics={"accuracy": accuracy, "loss": step})
    assert c.steps() == [2, 3]


# Requests.


def test_nothing_was_saved(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with Checkpointer(folder) as checkpointer:
            assert checkpointer.restore(at(0)) is None
            assert checkpointer.steps() == [] and checkpointer.best_step() is None
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: Checkpointer(f, keep=0), ValueError, r"keep is at least 1.*got keep=0"),
        (lambda f: Checkpointer(f, mode="best"), ValueError, r"'min' or 'max'; got 'best'"),
        (lambda f: Checkpointer("gs://bucket/x"), ValueError, r"gs://bucket/x is no path"),
        (lambda f: Checkpointer(f).save(at(1), {1, 2}), TypeError, r"not JSON serializable"),
        (
            lambda f: Checkpointer(f, keep_best=1).save(at(1), metrics={"acc": 1}),
            ValueError,
            r"chosen by 'loss', and the metrics are \['acc'\]",
        ),
        (
            lambda f: Checkpointer(f).save(replace(at(1), buffers={"x": 1.0})),
            TypeError,
            r"leaves \['buffers.x'\] of the state are no arrays",
        ),
    ],
)
def test_requests_that_are_wrong(call, error, message, tmp_path):
    with pytest.raises(error, match=message):
        call(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", [2, 3])
def test_a_step_is_not_written_twice(step, tmp_path):
    three(tmp_path)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.restore(at(0), step=1)
        with pytest.raises(ValueError, match=rf"of step 3 already, and this is step {step}"):
            checkpointer.save(at(step))


def test_the_seal_can_be_read_by_a_person(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(at(1), {"epoch": 0}, {"loss": 0.5})
    body = json.loads((tmp_path / "1/instep.json").read_text())["body"]
    assert body["step"] == 1 and body["position"] == {"epoch": 0}
    assert body["metrics"] == {"loss": 0.5}
    assert body["leaves"]["params.w"] == "float32[4, 3]"
