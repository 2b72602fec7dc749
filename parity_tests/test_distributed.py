"""Two processes: beside torch's DistributedDataParallel, and one without the other."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import assert_bitwise, assert_in_step
from processes import PROCESSES, STEPS


TIMEOUT = 10  # seconds without a heartbeat


def free_address() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


@contextlib.contextmanager
def started(what: str, rest) -> list[subprocess.Popen]:
    """Both processes; whatever happens, none is left behind."""
    script, address = Path(__file__).with_name("processes.py"), free_address()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [
        subprocess.Popen([sys.executable, script, what, str(rank), address, str(rest)], **pipes)
        for rank in range(PROCESSES)
    ]
    try:
        yield both
    finally:
        for process in both:
            process.kill()
            process.communicate()


def run(what: str, folder: Path) -> None:
    with started(what, folder) as both:
        for process in both:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors


def read(folder: Path, name: str) -> list[dict[str, np.ndarray]]:
    return [dict(np.load(folder / f"{name}-{rank}.npz")) for rank in range(PROCESSES)]


def test_in_step_with_distributed_data_parallel(tmp_path):
    run("torch", tmp_path)
    run("jax", tmp_path)
    torch_side, (first, second) = read(tmp_path, "torch"), read(tmp_path, "jax")
    assert_bitwise(first, second)
    assert first.keys() == torch_side[0].keys() and f"{STEPS - 1} loss" in first
    for name, ours in first.items():
        theirs = torch_side[0][name]  # gradients and parameters are the same on both ranks
        if name.endswith("loss"):  # each rank knows its own
            theirs = np.mean([side[name] for side in torch_side])
        assert_in_step(theirs, ours, name)
    fused, split = read(tmp_path, "data_parallel")[0], read(tmp_path, "fsdp")[0]
    for name, ours in fused.items():
        assert_in_step(first[f"{STEPS - 1} parameter {name}"], ours, name)
        assert_in_step(ours, split[name], f"fsdp: {name}")


@pytest.mark.parametrize("how", ["kill", "stop", "raise"])
def test_one_of_two_is_lost(how):
    """Killed: an error at once. Else the other one ends when it has waited long enough."""
    with started(how, TIMEOUT) as (survivor, lost):
        said = next(line for line in lost.stdout if line.startswith("lost at"))
        _, errors = survivor.communicate(timeout=60 + TIMEOUT)
        took = time.time() - float(said.split()[-1])
    assert survivor.returncode != 0
    assert took < TIMEOUT + 10, took
    if how == "kill":
        assert "ProcessLostError: process 0 of 2 cannot reach another one" in errors, errors
        assert "start all processes again from the last checkpoint" in errors
    else:
        assert "another task died" in errors, errors
        assert ("heartbeat" if how == "stop" else "Barrier timed out") in errors, errors
