"""A benchmark from the request to the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from . import _machine
from ._contender import FIRST, BenchError, entry_of, parse
from ._flops import dense_peak
from ._process import Worker
from ._report import BenchReport, measured
from ._rounds import interleave
from ._settings import Job, Settings


DEFAULT = ("torch-eager", "jax-plain")

OnStage = Callable[[str], None]


def run(
    target: str,
    against: Sequence[str] = DEFAULT,
    settings: Settings | None = None,
    on_stage: OnStage = lambda text: None,
) -> BenchReport:
    """Time instep's step beside others that do the same work, each in a process of its own.

    First the work: ``parity.run`` on the halves of TARGET, and of every contender the first
    steps in float64, judged by parity's rule. Then the times: all contenders from the same
    weights, on the same batches, in blocks of as many steps, interleaved in an order that is
    shuffled in every round. Compilation and first steps are apart.

    Args:
      target: a workload, ``path/to/file.py:callable`` or ``package.module:callable``; a string,
        since every process calls it anew. It returns a ``TorchLoop``, a ``Pair`` whose JAX half
        is a ``JaxLoop``, or a ``JaxLoop`` with batches, for which nothing imports PyTorch.
      against: names from ``CONTENDERS``.
      settings: None: as they are by default.
      on_stage: called with what is done next.

    Raises:
      UnequalWorkError: a contender does other work; nothing was timed.
      BenchError: a contender cannot run TARGET, or ended.
      RequestError, ValueError: the request was wrong.
    """
    settings = Settings() if settings is None else settings
    names, began, before = parse(against), time.perf_counter(), _machine.load()
    with Worker(Job("survey", target, tuple(names), settings)) as worker:
        survey = worker.answer(on_stage)
    with ExitStack() as stack:
        workers, started = {}, {}
        for name in names:
            on_stage(f"{name}: first steps")
            job = Job("time", target, (name,), settings, survey["has_torch_half"])
            worker = stack.enter_context(Worker(job))
            workers[name], started[name] = worker, worker.answer()
        _check_devices(started)
        rounds = interleave(
            workers, settings, lambda n: on_stage(f"round {n} of {settings.rounds}")
        )
        ended = {name: worker.ask(end=True) for name, worker in workers.items()}
    seconds = rounds.seconds
    contenders = tuple(
        measured(
            name,
            entry_of(name).says,
            seconds[name],
            rounds.handed_over[name],
            None if name == FIRST else seconds[FIRST],
            started[name],
            ended[name],
            survey["judged"].get(name, 0),
        )
        for name in names
    )
    return BenchReport(
        target,
        settings,
        rounds.steps,
        survey["work"],
        dense_peak(settings, started[FIRST]["device"], survey["work"]["dtype"]),
        survey["parity"],
        contenders,
        _machine.machine(),
        started[FIRST]["environment"],
        _machine.commit(),
        datetime.now(UTC).isoformat(timespec="seconds"),
        (before, _machine.load()),
        time.perf_counter() - began,
    )


def _check_devices(started: Mapping[str, Mapping[str, Any]]) -> None:
    """All on the host, or all on a device."""
    devices = {name: answer["device"] for name, answer in started.items()}
    if len({device == "cpu" for device in devices.values()}) > 1:
        listed = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise BenchError(
            f"the contenders are not on the same device: {listed}. Give --device cpu, or "
            f"install the framework that is on the host with support for the other device."
        )
