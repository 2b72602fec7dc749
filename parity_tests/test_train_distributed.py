"""``instep train --distributed`` with two processes: one training, stopped and resumed."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import instep
from conftest import assert_bitwise, assert_in_step
from instep import progress
from instep.checkpoint import Checkpointer
from instep.workloads._target import resolve
from test_distributed import free_address


MINE = """
    import time
    import jax
    import jax.numpy as jnp
    import numpy as np
    import instep

    def data(seed=0, size=8):
        draw = np.random.default_rng(seed).normal
        return [(draw(size=(2, size, 16)), draw(size=(2, size))) for _ in range(5)]

    def loss_fn(params, buffers, batch, rng):  # a masked mean, and dropout
        x, y = batch
        kept = jnp.where(jax.random.bernoulli(rng, 0.9, x.shape), x, 0.0)
        mask = (y > 0).astype(x.dtype)
        return jnp.sum(mask * (kept @ params["w"] - y) ** 2) / jnp.sum(mask)

    def loop(batches=None, **options):
        return instep.JaxLoop(
            loss_fn, instep.optim.adam(1e-2), {"w": np.ones(16)}, accumulate=2,
            batches=batches or data(), rng=jax.random.key(0), **options)

    class Slow(list):
        def __iter__(self):
            for batch in list.__iter__(self):
                time.sleep(0.05)
                yield batch

    def slow():
        return loop(Slow(data()))

    def split():  # each process makes its own part, and holds half of the state
        mesh = jax.make_mesh((jax.device_count(),), ("data",))
        parts = data(jax.process_index(), 4)
        return loop(parts, mesh=mesh, sharding=instep.sharding.fsdp(min_size=4))

    def unlike():
        return loop(data(jax.process_index()))

    def odd():
        return loop(data(size=7))
"""


THEIRS = re.compile(r"\[Gloo\]|W\d+ .* preemption_notifier")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(textwrap.dedent(MINE))


@contextlib.contextmanager
def started(*args):
    """The same command in both processes; whatever happens, none is left behind."""
    known = {"JAX_COORDINATOR_ADDRESS": free_address(), "JAX_NUM_PROCESSES": "2"}
    env = os.environ | known | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}
    command = [sys.executable, "-c", "import instep.cli\ninstep.cli.main()", "train"]
    both = [
        subprocess.Popen(
            [*command, *map(str, args), "--distributed"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env | {"JAX_PROCESS_ID": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        yield both
    finally:
        for process in both:
            process.kill()
            process.communicate()


def finished(both, code=0):
    """What each printed, but for what Gloo and JAX say of connections and signals."""
    said = []
    for process in both:
        out, errors = process.communicate(timeout=120)
        assert process.returncode == code, errors
        lines = (out + errors).splitlines()
        said.append("\n".join(x for x in lines if not THEIRS.match(x)))
    return said


def train(*args, code=0):
    with started(*args) as both:
        return finished(both, code)


def steps_of(path):
    header, *steps = map(json.loads, Path(path).read_text().splitlines())
    return header, [(s["step"], s["loss"], s["grad_norm"]) for s in steps]


def saved(folder, loop):
    """The newest checkpoint, as one process reads it, with the numbers of its random key."""
    with Checkpointer(folder) as checkpointer:
        state = checkpointer.restore(progress.seen_state(loop))[0]
    return replace(state, rng=jax.random.key_data(state.rng))


def test_a_training_of_two_is_that_of_one_and_goes_on_where_one_of_them_was_told(x64):
    with started("mine.py:slow", "--steps", 10**6, "--checkpoint-dir", "run") as both:
        said = []
        while not said or (said[-1] and not said[-1].startswith("step 1/")):
            said.append(both[0].stderr.readline())
        assert said[-1], said
        both[1].send_signal(signal.SIGTERM)  # one of them is enough
        first, second = finished(both)
    assert "Stopped by SIGTERM and saved. The same command goes on from there." in first
    assert second == ""
    loop = resolve("mine.py:loop")
    stopped = int(saved("run", loop).step)
    assert os.listdir("run").count(str(stopped)) == 1 and stopped >= 1
    assert steps_of("run/metrics.jsonl")[1][-1][0] == stopped

    total = stopped + 3
    for folder in "run", "whole":
        said = train("mine.py:loop", "--steps", total, "--checkpoint-dir", folder)
        assert f"step {total} of {total}" in said[0] and said[1] == ""
    assert f"(from {stopped})" not in said[0]
    assert_bitwise(saved("run", loop), saved("whole", loop))
    header, written = steps_of("run/metrics.jsonl")
    assert header["starts"] == [0, stopped] and header["devices"] == 2
    assert written == steps_of("whole/metrics.jsonl")[1]

    seen = []
    alone = instep.train(loop, total, on_step=lambda n, metrics: seen.append(metrics.loss))
    assert_in_step(np.array(seen), np.array([loss for _, loss, _ in written]))
    assert_in_step(alone.params["w"], saved("whole", loop).params["w"])


def whole(folder):
    """The steps of the checkpoints that were written to their end."""
    return [int(path.name) for path in Path(folder).glob("*") if path.name.isdigit()]


def test_a_killed_one_ends_the_other_and_the_last_save_goes_on():
    """Within the 60 seconds of ``sharding.processes``, and here at once: Gloo says so."""
    command = "mine.py:slow", "--checkpoint-dir", "run", "--save-every", 2
    with started(*command, "--steps", 10**6) as both:
        while not whole("run"):
            assert both[0].poll() is None
            time.sleep(0.1)
        both[1].kill()
        killed = time.monotonic()
        out, errors = both[0].communicate(timeout=90)
    assert both[0].returncode not in (0, None)
    assert time.monotonic() - killed < 75
    assert "cannot reach another one" in out + errors or "another task died" in out + errors

    last = max(whole("run"))
    first, _ = train(*command, "--steps", last + 2)
    assert f"step {last + 2} of {last + 2}" in first
    header, _ = steps_of("run/metrics.jsonl")
    assert header["starts"] == [0, last]


def test_each_makes_its_part_where_the_loop_has_a_mesh():
    for steps in 4, 7:
        train("mine.py:split", "--steps", steps, "--checkpoint-dir", "run", "--ema", 0.9)
    train("mine.py:split", "--steps", 7, "--checkpoint-dir", "whole", "--ema", 0.9)
    header, written = steps_of("run/metrics.jsonl")
    assert header["starts"] == [0, 4] and len(written) == 7
    assert written == steps_of("whole/metrics.jsonl")[1]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("unlike", "the processes do not make the same batches"),
        ("odd", "7 examples cannot be shared out among 2 devices. Give batches of a multiple"),
    ],
)
def test_batches_that_cannot_be_shared_out(target, message):
    for said in train(f"mine.py:{target}", "--steps", 2, code=2):
        assert message in said and "Traceback" not in said


def test_where_the_others_are_is_not_known(monkeypatch):
    from typer.testing import CliRunner

    from instep.cli._app import app

    command = ["train", "mine.py:loop", "--steps", "1", "--distributed"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and "JAX_COORDINATOR_ADDRESS=host:port" in done.output
