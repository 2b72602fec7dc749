"""A training that is killed and started again ends with the bits of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

import instep
import kill_child
from checkpoints import assert_same_state
from instep._loop import initial_state
from instep.checkpoint import Checkpointer


def start(folder: Path, steps: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, kill_child.__file__, str(folder), str(steps)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def fresh(steps: int) -> instep.TrainState:
    return initial_state(kill_child.loop(steps))


def newest(folder: Path, steps: int) -> int:
    """The step of the newest checkpoint, which is whole; and no other is damaged."""
    with warnings.catch_warnings(), Checkpointer(folder) as checkpointer:
        warnings.simplefilter("error")
        for step in checkpointer.steps():
            state, _ = checkpointer.restore(fresh(steps), step=step)
            assert int(state.step) == step
        restored = checkpointer.restore(fresh(steps))
        return 0 if restored is None else int(restored[0].step)


def run_and_kill(folder: Path, steps: int, saves: int, delay: float) -> int:
    """Kill it some time after it began so many saves; the newest step that it had seen."""
    child = start(folder, steps)
    lines = [child.stdout.readline() for _ in range(saves)]
    time.sleep(delay)
    child.kill()
    rest, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors  # it had not finished, nor failed
    return max(map(int, " ".join([*lines, rest]).split()), default=0)


@pytest.mark.parametrize(
    ("kills", "steps"), [(3, 60), pytest.param(25, 420, marks=pytest.mark.exhaustive)]
)
def test_killed_and_started_again(kills, steps, tmp_path):
    draw, at, half = random.Random(kills), 0, 0
    for _ in range(kills):
        seen = run_and_kill(tmp_path, steps, draw.randint(1, 3), draw.uniform(0, 0.1))
        half += any("tmp" in p.name for p in tmp_path.iterdir())
        before, at = at, newest(tmp_path, steps)
        assert at >= max(before, seen)  # nothing that was there is lost
    assert half > 0  # some died while they wrote

    child = start(tmp_path, steps)
    _, errors = child.communicate()
    assert child.returncode == 0, errors
    whole = instep.train(kill_child.loop(steps), steps)
    with Checkpointer(tmp_path) as checkpointer:
        state, position = checkpointer.restore(fresh(steps))
    assert_same_state(state, whole)
    assert position == {"epoch": steps // 13, "taken": steps % 13}
    assert all(p.name.isdigit() for p in tmp_path.iterdir())
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), state.params, fresh(steps).params
    )
    assert min(jax.tree.leaves(moved)) > 0.01  # it did train


def test_sigterm_saves_and_returns(tmp_path):
    child = start(tmp_path, 600)
    child.stdout.readline()
    child.terminate()
    _, errors = child.communicate()
    assert child.returncode == 0, errors
    at = newest(tmp_path, 600)
    assert 0 < at < 600
    state = instep.train(kill_child.loop(600), at)
    with Checkpointer(tmp_path) as checkpointer:
        assert_same_state(checkpointer.restore(fresh(600))[0], state)
