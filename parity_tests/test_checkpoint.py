"""Checkpoints: to the bit, whole or not at all, and what is damaged is told and passed over."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import instep
from conftest import assert_bitwise
from instep import optim, schedules
from instep.checkpoint import Checkpointer, CheckpointError, CheckpointWarning


PARAMS = {"w": np.linspace(-1, 1, 12).reshape(4, 3), "b": np.zeros(3)}


def loss_fn(params, buffers, batch, rng):
    x, y = batch
    loss = jnp.mean((x @ params["w"].astype(x.dtype) + params["b"].astype(x.dtype) - y) ** 2)
    return instep.Loss(loss, buffers=buffers)


def batches(n=8):
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(5, 4)).astype("f"), rng.normal(size=(5, 3)).astype("f"))
        for _ in range(n)
    ]


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


def as_data(tree):
    def data(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return jax.tree.map(data, tree)


def kinds(tree):
    return [(x.dtype, getattr(x, "weak_type", None), x.sharding) for x in jax.tree.leaves(tree)]


def assert_same_state(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert kinds(a) == kinds(b)
    assert_bitwise(as_data(a), as_data(b))


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

TX = optim.sgd(0.1)


def at(step):
    state = instep.init_state(PARAMS, TX)
    b = jnp.full(3, step, jnp.float32)
    return replace(state, step=jnp.int32(step), params={**state.params, "b": b})


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


# Damages. Each is done to the newest of three checkpoints.


def data(folder: Path) -> Path:
    return max((folder / "state/ocdbt.process_0/d").iterdir(), key=lambda p: p.stat().st_size)


def flip(path: Path, at: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(bytes(content))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def instead_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def position_changed(folder: Path) -> None:
    seal = folder / "instep.json"
    text = seal.read_text()
    changed = text.replace('"taken": 3', '"taken": 4')
    assert changed != text
    seal.write_text(changed)


DAMAGES = {
    "a file is truncated": (
        lambda f: truncate(data(f)),
        r"state/ocdbt.* has \d+ bytes, and",
    ),
    "a file is emptied": (lambda f: data(f).write_bytes(b""), r"has 0 bytes, and \d+ were"),
    "a byte is flipped": (lambda f: flip(data(f)), r"state/ocdbt.*/d/.* is not as it was"),
    "the first byte is flipped": (lambda f: flip(data(f), 0), r"is not as it was written"),
    "a file is missing": (lambda f: data(f).unlink(), r"state/ocdbt.*/d/.* is missing"),
    "the manifest is missing": (
        lambda f: (f / "state/manifest.ocdbt").unlink(),
        r"state/manifest.ocdbt is missing",
    ),
    "the arrays are missing": (lambda f: shutil.rmtree(f / "state"), r"state/.* is missing"),
    "a file became a folder": (
        lambda f: ((f / "state/_METADATA").unlink(), (f / "state/_METADATA").mkdir()),
        r"state/_METADATA is missing",
    ),
    "the metadata is garbage": (
        lambda f: (f / "state/_METADATA").write_text("{garbage"),
        r"state/_METADATA has 8 bytes",
    ),
    "a digit of the metadata": (
        lambda f: flip(f / "state/_METADATA", 40),
        r"state/_METADATA is not as it was written",
    ),
    "the seal is garbage": (
        lambda f: (f / "instep.json").write_text("garbage"),
        r"instep.json cannot be read",
    ),
    "the seal is binary": (
        lambda f: (f / "instep.json").write_bytes(b"\xff\x00\x80"),
        r"instep.json cannot be read",
    ),
    "the seal is empty JSON": (
        lambda f: (f / "instep.json").write_text("[]"),
        r"instep.json cannot be read",
    ),
    "the seal is truncated": (
        lambda f: truncate(f / "instep.json"),
        r"instep.json cannot be read",
    ),
    "the position is another": (position_changed, r"instep.json is not as it was written"),
    "the seal is missing": (lambda f: (f / "instep.json").unlink(), r"it has no instep.json"),
    "an empty folder": (empty, r"it is empty, there is no instep.json"),
    "a file for a folder": (instead_a_file, r"it is a file, not a folder"),
}


def three(folder: Path) -> None:
    with Checkpointer(folder) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(at(step), {"epoch": 0, "taken": step})


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_told_and_the_one_before_is_used(damage, tmp_path):
    do, message = DAMAGES[damage]
    three(tmp_path)
    do(tmp_path / "3")
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        with pytest.warns(CheckpointWarning) as told:
            state, position = checkpointer.restore(at(0))
        assert_same_state(state, at(2))
        assert position == {"epoch": 0, "taken": 2}
        (warning,) = told
        text = str(warning.message)
        assert text.startswith(f"{tmp_path / '3'} is damaged: ") and re.search(message, text)
        assert "Step 2 is used" in text
        with pytest.raises(CheckpointError, match="3 is damaged"):
            checkpointer.restore(at(0), step=3)

        # The training goes on, past the damaged one, which is kept under another name.
        checkpointer.save(at(3), {"epoch": 0, "taken": 3})
        checkpointer.wait()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3", "3.damaged-1"]
        state, _ = checkpointer.restore(at(0))
        assert_same_state(state, at(3))


def test_several_damaged_ones(tmp_path):
    three(tmp_path)
    flip(data(tmp_path / "3"))
    empty(tmp_path / "2")
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.warns(CheckpointWarning) as told:
            state, _ = checkpointer.restore(at(0))
        assert [str(w.message)[len(str(tmp_path)) + 1] for w in told] == ["3", "2"]
        assert_same_state(state, at(1))
    flip(data(tmp_path / "1"))
    with (
        Checkpointer(tmp_path) as checkpointer,
        pytest.raises(CheckpointError, match=r"no checkpoint of .* can be used:\n .*/3 is"),
    ):
        checkpointer.restore(at(0))


def test_what_nobody_reads_does_no_harm(tmp_path):
    three(tmp_path)
    for name in ("_CHECKPOINT_METADATA", "commit_success.txt"):
        (tmp_path / "3" / name).write_text("garbage")
    (tmp_path / "notes").mkdir()
    (tmp_path / "007").mkdir()
    (tmp_path / "9.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "9.orbax-checkpoint-tmp" / "instep.json").write_text("half")
    (tmp_path / "0.instep-trash").mkdir()
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == [1, 2, 3]
        state, _ = checkpointer.restore(at(0))
        assert_same_state(state, at(3))
        checkpointer.save(at(4))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["007", "2", "3", "4", "notes"]


def test_nothing_half_written_has_the_name(tmp_path, monkeypatch):
    """While it is sealed, the last thing done to it, it has its temporary name."""
    from instep.checkpoint import _checkpointer

    seen = []

    def watched(folder, content):
        seen.append((folder.name, sorted(p.name for p in tmp_path.iterdir())))
        sealed(folder, content)

    sealed = _checkpointer.seal
    monkeypatch.setattr(_checkpointer, "seal", watched)
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(at(1))
        checkpointer.save(at(2))
    name = "{}.orbax-checkpoint-tmp".format
    assert seen == [(name(1), [name(1)]), (name(2), ["1", name(2)])]


def test_an_error_of_the_writing_is_raised(tmp_path, monkeypatch):
    from instep.checkpoint import _checkpointer

    def fails(folder, content):
        raise OSError("No space left on device")

    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(at(1))
    checkpointer.wait()
    monkeypatch.setattr(_checkpointer, "seal", fails)
    checkpointer.save(at(2))
    with pytest.raises(OSError, match="No space left"):
        checkpointer.close()
    with Checkpointer(tmp_path) as again:
        assert_same_state(again.restore(at(0))[0], at(1))


def test_nothing_was_saved(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with Checkpointer(folder) as checkpointer:
            assert checkpointer.restore(at(0)) is None
            assert checkpointer.steps() == [] and checkpointer.best_step() is None
    assert not (tmp_path / "absent").exists()


# Another model is no damage.


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (
            lambda: instep.init_state({**PARAMS, "w": np.zeros((4, 5))}, TX),
            r"params.w: float32\[4, 3\] there, float32\[4, 5\] here",
        ),
        (
            lambda: instep.init_state({"w": PARAMS["w"]}, TX),
            r"params.b: float32\[3\] there, nothing here",
        ),
        (
            lambda: instep.init_state({**PARAMS, "c": np.zeros(2)}, TX),
            r"params.c: nothing there, float32\[2\] here",
        ),
        (
            lambda: instep.init_state({**PARAMS, "b": np.zeros(3, np.float16)}, TX),
            r"params.b: float32\[3\] there, float16\[3\] here",
        ),
        (
            lambda: instep.init_state(PARAMS, optim.adam(0.1)),
            r"opt_state.slots.exp_avg.b: nothing there, float32\[3\] here",
        ),
        (
            lambda: instep.init_state(PARAMS, TX, rng=jax.random.key(0)),
            r"rng: nothing there, key<fry>\[\] here",
        ),
    ],
)
def test_another_training_is_an_error(like, message, tmp_path, recwarn):
    three(tmp_path)
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(CheckpointError, match=message) as raised:
            checkpointer.restore(like())
        assert str(raised.value).startswith(f"{tmp_path / '3'} is a checkpoint of another")
        assert_same_state(checkpointer.restore(at(0))[0], at(3))
    assert not recwarn.list


def test_keys_of_another_kind(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(instep.init_state(PARAMS, TX, rng=jax.random.key(0)))
        with pytest.raises(CheckpointError, match=r"key<fry>\[\] there, key<rbg>\[\] here"):
            checkpointer.restore(
                instep.init_state(PARAMS, TX, rng=jax.random.key(0, impl="rbg"))
            )


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
