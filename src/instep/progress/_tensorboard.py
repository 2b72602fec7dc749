"""The same numbers for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._compat import require
from ._record import Record, Sink


class TensorBoard(Sink):
    """Scalars of every step in the format of TensorBoard.

    A run that goes on from step s tells TensorBoard to hide what was written after s.

    Args:
      folder: ``tensorboard --logdir`` shows it.

    Raises:
      MissingExtraError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path):
        self._make = require("tensorboardX", "--tensorboard").SummaryWriter
        self._folder = folder
        self._writer: Any = None

    def start(self, step: int) -> None:
        purge = {"purge_step": step + 1} if step else {}
        self._writer = self._make(str(self._folder), **purge)

    def write(self, record: Record) -> None:
        values = {"loss": record.loss, "step/seconds": record.seconds}
        values |= {f"lr/{i}" if i else "lr": rate for i, rate in enumerate(record.lr)}
        if record.grad_norm is not None:
            values["grad_norm"] = record.grad_norm
        if record.skipped is not None:
            values["skipped"] = float(record.skipped)
        values |= {f"validation/{k.replace(' ', '_')}": v for k, v in record.validation.items()}
        for name, value in values.items():
            self._writer.add_scalar(name, value, record.step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
