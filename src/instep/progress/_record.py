"""What is known of one step: what is written, and what is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from .._state import Metrics, PyTree
from .._trees import named_leaves


@dataclass(frozen=True)
class Record:
    """One step, in Python numbers."""

    step: int  # from 1
    loss: float  # mean of the step
    lr: tuple[float, ...]  # of every group; empty where the optimizer has none as data
    grad_norm: float | None  # before clipping
    seconds: float  # from the step before to this one, without validation
    skipped: bool | None = None  # by a scaler
    validation: Mapping[str, float] = field(default_factory=dict)  # by the metric's name

    def json(self) -> dict[str, Any]:
        """One line of the metrics file; a number that is not finite is null."""
        line: dict[str, Any] = {"step": self.step, "loss": _finite(self.loss)}
        if self.lr:
            line["lr"] = self.lr[0] if len(set(self.lr)) == 1 else list(self.lr)
        line["grad_norm"] = _finite(self.grad_norm)
        line["seconds"] = round(self.seconds, 6)
        if self.skipped is not None:
            line["skipped"] = self.skipped
        if self.validation:
            line["validation"] = {k: _finite(v) for k, v in self.validation.items()}
        return line


class Sink(Protocol):
    """Where the record of every step is written."""

    def start(self, step: int) -> None:
        """Go on after ``step``."""
        ...

    def write(self, record: Record) -> None:
        """Write one step; called for each in order."""
        ...

    def close(self) -> None:
        """Write what is not written yet; also where ``start`` was never called."""
        ...


def record(n: int, metrics: Metrics, seconds: float, validation: Mapping[str, float]) -> Record:
    """The record of step ``n``; ``metrics`` are in NumPy."""
    norm, skipped = metrics.grad_norm, metrics.skipped
    return Record(
        step=n,
        loss=float(metrics.loss),
        lr=tuple(_short(x) for x in getattr(metrics, "lr", ())),
        grad_norm=None if norm is None else float(norm),
        seconds=seconds,
        skipped=None if skipped is None else bool(skipped),
        validation=validation,
    )


def amount(batch: PyTree, accumulate: int) -> tuple[int, str]:
    """How much one batch is: ``(4096, "tokens")``, ``(64, "examples")``.

    Tokens where every leaf is integer and the first has an axis beside that of the examples.
    """
    leaves = list(named_leaves(batch).values())
    shape = np.shape(leaves[0])
    axes = 1 if accumulate == 1 else 2  # of the examples; with accumulation (k, b, ...)
    integer = all(np.issubdtype(np.dtype(x.dtype), np.integer) for x in leaves)
    if integer and len(shape) == axes + 1:
        return math.prod(shape), "tokens"
    return math.prod(shape[:axes]), "examples"


def _short(x: Any) -> float:
    """0.001, not 0.0010000000474974513, of a float32."""
    return float(str(np.asarray(x)[()]))


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None
