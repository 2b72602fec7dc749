"""What a benchmark found, and its JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ._settings import Settings
from ._statistics import Band, Ratio, band, paired_ratio


SCHEMA = 1  # of the JSON, see bench.schema.json


@dataclass(frozen=True)
class Memory:
    """Bytes; on the host, steady state is apart from compilation where the kernel can tell."""

    device: int | None  # peak of the allocator of the device; None on the host
    resident: int  # peak of the process in steady state
    held_before: int  # before the contender was built: interpreter, libraries, data
    compile_resident: int  # peak until the second step
    apart: bool  # whether ``resident`` leaves compilation out

    @property
    def used(self) -> int:
        """What is compared: the peak on the device, or above what the process held before."""
        return self.device if self.device is not None else self.resident - self.held_before


@dataclass(frozen=True)
class Measured:
    """One contender; times in seconds."""

    name: str  # as ``run(against=)`` was given it
    says: str  # what it is, in words
    device: str  # as its framework calls it
    notes: Mapping[str, str]  # what was chosen for it
    step: Band  # of a step, done
    handed_over: Band  # of a step, until the call returned
    ratio: Ratio | None  # instep's step over this one, within the round; None: it is instep's
    prepare: float  # building the contender: lowering, placing weights and batches
    first_step: float  # trace, compile, run
    second_step: float  # run, and what was compiled late
    compiling: Mapping[str, float]  # as JAX reports it; empty: PyTorch
    memory: Memory  # of its process
    losses: tuple[float, ...]  # of the first two steps, in its own precision
    judged: int  # leaves of the first steps in float64 that were judged; 0: unchecked
    rounds: tuple[float, ...]  # seconds per step, a value for each


@dataclass(frozen=True)
class BenchReport:
    """What ``bench.run`` found; the first contender is instep's step."""

    target: str  # as it was given
    settings: Settings  # of the run
    steps: int  # in a block
    work: Mapping[str, Any]  # of a step: items, unit, parameters, accumulate, flops, flops_by
    peak_flops: float | None  # of the device, per second; None: not known
    parity: Mapping[str, Any] | None  # the verdict on the halves; None: a JaxLoop, or unchecked
    contenders: tuple[Measured, ...]  # in the order they were asked for
    machine: Mapping[str, Any]  # processor, cores, memory, system, variables
    environment: Mapping[str, str]  # versions
    commit: str | None  # of the source tree, if there is one
    date: str  # UTC
    load: tuple[float, float]  # before and after
    seconds: float  # the whole run

    @property
    def command(self) -> str | None:
        """The line that repeats the run; None: a setting has no option."""
        options = self.settings.options()
        if options is None:
            return None
        against = ",".join(one.name for one in self.contenders[1:])
        return shlex.join(["instep", "bench", self.target, "--against", against, *options])

    def items_per_second(self, one: Measured) -> float:
        """Examples, images or tokens, by the median step."""
        return self.work["items"] / one.step.median

    def flops_per_second(self, one: Measured) -> float | None:
        """FLOPs of the model over the median step; None: they were not counted."""
        flops = self.work["flops"]
        return None if flops is None else flops / one.step.median

    def mfu(self, one: Measured) -> float | None:
        """Model FLOP/s over the dense peak; None: one of them is not known."""
        flops = self.flops_per_second(one)
        return None if flops is None or not self.peak_flops else flops / self.peak_flops

    def to_dict(self) -> dict[str, Any]:
        """Everything, as ``bench.schema.json`` describes it."""
        found: dict[str, Any] = {"schema": SCHEMA, "command": self.command} | asdict(self)
        for record, one in zip(found["contenders"], self.contenders, strict=True):
            record["items_per_second"] = self.items_per_second(one)
            record["flops_per_second"] = self.flops_per_second(one)
            record["mfu"] = self.mfu(one)
            record["memory"]["used"] = one.memory.used
            if one.ratio is not None:
                record["ratio"]["verdict"] = one.ratio.verdict
        return json.loads(json.dumps(found))

    def to_json(self, path: str | Path) -> None:
        """Write ``to_dict``."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    def to_svg(self, path: str | Path) -> None:
        """Write the times and ratios as a picture that needs nothing else."""
        from ._plot import picture

        Path(path).write_text(picture(self), encoding="utf-8")

    def __str__(self) -> str:
        from ._table import plain

        return plain(self)


def measured(
    name: str,
    says: str,
    seconds: list[float],
    handed_over: list[float],
    first: list[float] | None,
    started: Mapping[str, Any],
    ended: Mapping[str, Any],
    judged: int,
) -> Measured:
    """Put together what a worker answered.

    Args:
      name, says: of the contender.
      seconds, handed_over: per step, a value for each round.
      first: those of instep's step; None: this is it.
      started, ended: the first and the last answer of its worker.
      judged: leaves in the check.
    """
    return Measured(
        name,
        says,
        started["device"],
        started["notes"],
        band(seconds),
        band(handed_over),
        None if first is None else paired_ratio(first, seconds),
        started["prepare"],
        started["first_step"],
        started["second_step"],
        started["compiling"],
        Memory(**ended["memory"]),
        tuple(started["losses"]),
        judged,
        tuple(seconds),
    )
