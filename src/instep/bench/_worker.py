"""A process of its own, for one contender or the survey; it reads and writes lines of JSON.

    python -m instep.bench._worker

The first line is a ``Job``. A survey answers once and ends, after lines on what it is at. A
contender that is timed answers when it has taken its first two steps, then to every
``{"steps": n}`` with the seconds that n further steps took, and to ``{"end": true}`` with its
memory. What user code prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, TextIO

from .._errors import RequestError, where
from .._keep_memory import keep_memory
from ._settings import Job


PR_SET_PDEATHSIG = 1  # see prctl(2)


def main() -> None:
    """Serve one job, on standard input and output."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests = os.fdopen(os.dup(sys.stdin.fileno()))
    with open(os.devnull) as nothing:  # for a TARGET that asks its user something
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    _end_with_the_parent()
    job = Job.of(json.loads(requests.readline()))
    if job.settings.threads is not None and hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))[: job.settings.threads]
        os.sched_setaffinity(0, mine)  # before a framework counts the cores
    try:
        if job.settings.keep_memory and not keep_memory():
            raise RequestError("--keep-memory needs glibc's malloc, on Linux; leave it out.")
        JOBS[job.kind](job, requests, answers)
    except RequestError as error:
        _answer(answers, {"refused": str(error), "kind": type(error).__name__})
    except Exception as error:
        import traceback

        traceback.print_exc()
        _answer(answers, {"raised": where(error)})


def survey(job: Job, requests: TextIO, answers: TextIO) -> None:
    from ._survey import survey

    del requests  # there are none

    _answer(answers, survey(job, lambda text: _answer(answers, {"stage": text})))


def timed(job: Job, requests: TextIO, answers: TextIO) -> None:
    """Build a contender, take two steps, and then as many as it is asked for."""

    from . import _memory
    from ._contender import build, entry_of
    from ._problem import load, surroundings

    compiling = _compile_seconds()
    entry = entry_of(job.name)
    import_module(entry.place.partition(":")[0], __package__)  # before memory is looked at
    if job.has_torch_half:
        import_module("torch")
    problem = load(job.target, job.settings, contender=job.name)
    with surroundings(problem):
        if entry.framework == "jax":
            _find_device(job)
        _memory.forget_peak()
        held = _memory.resident()
        if entry.framework == "torch":
            held -= problem.torch_bytes()  # which are its own; of JAX the copies are
        contender, prepare = _timed(lambda: build(job.name, problem))
        compiling.clear()
        started: dict[str, Any] = {"prepare": prepare} | _first_two(contender)
        if not all(map(math.isfinite, started["losses"])):
            raise RequestError(
                f"{job.name} is not timed: the losses of its first steps, {started['losses']}, "
                f"are not finite."
            )
        started["compiling"] = dict(compiling)
        memory = {"held_before": held, "compile_resident": _memory.peak()}
        memory["apart"] = _memory.forget_peak()
        contender.forget_peak()
        _answer(answers, started)
        done = 2
        for line in requests:
            request = json.loads(line)
            if "end" in request:
                break
            _answer(answers, _block(contender, done, request["steps"]))
            done += request["steps"]
        memory |= {"resident": _memory.peak(), "device": contender.peak()}
        _answer(answers, {"memory": memory})


def _find_device(job: Job) -> None:
    """Start JAX's platform, which is not a step's to pay for."""
    import jax

    try:
        jax.devices()
    except Exception as error:
        raise RequestError(
            f"JAX has no {job.settings.device} here ({error or type(error).__name__}); leave "
            f"--device out."
        ) from error


def _end_with_the_parent() -> None:
    """Even where that is killed (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _first_two(contender: Any) -> dict[str, Any]:
    """Take them, one by one: the first compiles, and the second should not."""
    from ..parity._environment import environment

    seconds, losses = [], []
    for n in range(2):
        seconds.append(_timed(lambda n=n: (contender.step(n), contender.wait()))[1])
        losses.append(contender.loss())
    return {
        "device": contender.device,
        "notes": contender.notes,
        "first_step": seconds[0],
        "second_step": seconds[1],
        "losses": losses,
        "environment": environment(contender.device),
    }


JOBS = {"survey": survey, "time": timed}


def _block(contender: Any, done: int, steps: int) -> dict[str, float]:
    """Seconds of ``steps`` steps until their end, and until the last was handed over."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for n in range(done, done + steps):
            contender.step(n)
        handed = time.perf_counter()
        contender.wait()
        return {"seconds": time.perf_counter() - start, "handed_over": handed - start}
    finally:
        gc.enable()


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    made = call()
    return made, time.perf_counter() - start


def _compile_seconds() -> dict[str, float]:
    """What JAX says it takes to trace, lower and compile, summed up as it goes."""
    import jax

    found: dict[str, float] = {}

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        del kwargs
        if event.startswith("/jax/core/compile/"):
            name = event.rpartition("/")[2].removesuffix("_duration")
            found[name] = found.get(name, 0.0) + duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    return found


def _answer(answers: TextIO, record: dict[str, Any]) -> None:
    answers.write(json.dumps(record) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
