"""Save in the background, keep some, and restore the newest that is whole."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import jax

from .._compat import require
from .._errors import CheckpointError
from .._state import TrainState
from ._leaves import arrays_of, check_specs, specs_of, state_of, targets_of
from ._seal import Damaged, read, seal, unsealed


ITEM = "state"  # the folder of orbax inside a checkpoint
TMP = ".orbax-checkpoint-tmp"  # how orbax calls what it is writing
TRASH = ".instep-trash"  # a checkpoint that is being deleted


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged, and the one before it is used."""


class Checkpointer:
    """Keep a training on disk.

    PyTorch: ``torch.save({"model": model.state_dict(), "optimizer": ..., "scheduler": ...,
    "scaler": ..., "rng": ..., "epoch": ...}, path)``, and its way back. ::

        with instep.checkpoint.Checkpointer("run") as checkpointer:
            restored = checkpointer.restore(like=state)
            if restored is not None:
                state, position = restored
            ...
            checkpointer.save(state, position)

    Every checkpoint is a folder named by its step: what orbax writes, and ``instep.json`` with
    the position, the metrics, the leaves and a digest of every file. It appears under its name
    when it is whole. One job at a time writes to a folder.

    Args:
      folder: a local or mounted folder; made when something is saved.
      keep: the newest checkpoints that are kept, at least 1.
      keep_best: beside them the best ones by a metric; None: none.
      best: the metric.
      mode: ``"min"`` or ``"max"``: which is better.

    Raises:
      ValueError: an argument is out of range.
      MissingExtraError: orbax is not installed.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        keep: int = 3,
        keep_best: int | None = None,
        best: str = "loss",
        mode: str = "min",
    ):
        if "://" in str(folder):
            raise ValueError(
                f"{folder} is no path. Mount the bucket and give the mounted path."
            )
        if keep < 1 or (keep_best is not None and keep_best < 0):
            raise ValueError(f"keep is at least 1, keep_best 0; got {keep=}, {keep_best=}.")
        if mode not in ("min", "max"):
            raise ValueError(f"mode is 'min' or 'max'; got {mode!r}.")
        self.folder = Path(folder).absolute()
        self.keep, self.keep_best, self.best, self.mode = keep, keep_best or 0, best, mode
        self._content: dict[str, Any] = {}  # of the checkpoint that is being written
        self._damaged: list[int] = []  # newer than the one restored
        self._tidy = False  # whether the remains of killed processes are cleared
        self._ocp = ocp = require("orbax.checkpoint", "instep.checkpoint")
        self._orbax = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )

    def save(
        self, state: TrainState, position: Any = None, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Write a checkpoint; what is copied before it returns, the rest in the background.

        The state may be donated to the next step at once. An error of the writing is raised by
        the next call of any method.

        Args:
          state: every leaf is written to the bit, typed PRNG keys too.
          position: where the data stand; JSON.
          metrics: numbers by name, shape (); the best checkpoints are chosen by one of them.

        Raises:
          ValueError: there is a checkpoint of this step or of a later one; or the metric that
            chooses the best is not among ``metrics``.
          TypeError: ``position`` is not JSON, or a leaf is no array.
        """
        numbers = {name: float(value) for name, value in (metrics or {}).items()}
        if self.keep_best and self.best not in numbers:
            raise ValueError(
                f"the best checkpoints are chosen by {self.best!r}, and the metrics are "
                f"{sorted(numbers)}. Give it, or another best= to the Checkpointer."
            )
        json.dumps(position)  # a TypeError now, not in the background
        step = int(state.step)
        arrays, leaves = arrays_of(state), specs_of(state)
        self.wait()
        newest = max(set(self.steps()) - set(self._damaged), default=-1)
        self._make_room()
        if newest >= step:
            raise ValueError(
                f"{self.folder} has a checkpoint of step {newest} already, and this is step "
                f"{step}. Restore from it, or give another folder."
            )
        self._content = {
            "step": step,
            "position": position,
            "metrics": numbers,
            "leaves": leaves,
        }
        args = self._ocp.args
        items = args.Composite(**{ITEM: args.PyTreeSave(arrays)})
        self._orbax.save(self.folder / str(step), args=items)

    def restore(
        self, like: TrainState, step: int | None = None
    ) -> tuple[TrainState, Any] | None:
        """The newest checkpoint that is whole.

        Args:
          like: a state of the same training, for example ``init_state(params, tx, ...)``: its
            structure, shapes, dtypes and shardings are used, its numbers are not, and it may
            have been donated.
          step: that one and no other, for example ``best_step()``.

        Returns:
          ``(state, position)``, or None where nothing was ever saved.

        Warns:
          CheckpointWarning: a newer one is damaged; the message says where and how. The next
            ``save`` sets it aside under another name.

        Raises:
          CheckpointError: the checkpoint has other leaves than ``like``; or none is whole.
        """
        self.wait()
        steps = self.steps() if step is None else [step]
        damaged: dict[int, str] = {}
        for number in reversed(steps):
            try:
                content = unsealed(self.folder / str(number))
            except Damaged as what:
                damaged[number] = f"{self.folder / str(number)} is damaged: {what}."
                continue
            for line in damaged.values():
                warnings.warn(
                    f"{line} Step {number} is used, the newest before it that is whole.",
                    CheckpointWarning,
                    stacklevel=2,
                )
            self._damaged = list(damaged)
            return self._read(number, content, like), content["position"]
        if damaged:
            raise CheckpointError(
                f"no checkpoint of {self.folder} can be used:\n  "
                + "\n  ".join(damaged.values())
                + "\nTo start anew, give another folder."
            )
        return None

    def steps(self) -> list[int]:
        """The steps of the checkpoints in the folder, whole or not, in order."""
        if not self.folder.exists():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if _is_step(path))

    def best_step(self) -> int | None:
        """The step of the best checkpoint by the metric; None where none has it."""
        self.wait()
        ranked = self._ranked(self.steps())
        return ranked[0] if ranked else None

    def wait(self) -> None:
        """Return when nothing is being written, and what is too old is deleted.

        Raises:
          Exception: as orbax raised it while it wrote.
        """
        self._orbax.wait_until_finished()
        if self._content and jax.process_index() == 0:
            self._content = {}
            self._prune()

    def close(self) -> None:
        """``wait``, and end orbax's threads."""
        try:
            self.wait()
        finally:
            self._orbax.close()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _read(self, step: int, content: dict[str, Any], like: TrainState) -> TrainState:
        path = self.folder / str(step)
        check_specs(path, content["leaves"], like)
        ocp, targets = self._ocp, targets_of(like)
        args = ocp.args.PyTreeRestore(
            targets, restore_args=ocp.checkpoint_utils.construct_restore_args(targets)
        )
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            arrays = reader.restore(path / ITEM, args=args)
        return state_of(arrays, content["leaves"], like)

    def _seal(self) -> None:
        """Called by orbax when every file is written, and before the folder has its name."""
        path = self.folder / str(self._content["step"])
        seal(path if path.exists() else path.with_name(path.name + TMP), self._content)

    def _make_room(self) -> None:
        """Clear what killed processes left, and set damaged checkpoints aside."""
        if jax.process_index() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            for step in self._damaged:
                path = self.folder / str(step)
                names = (f"{step}.damaged-{i}" for i in range(1, 10**6))
                path.rename(next(p for n in names if not (p := path.with_name(n)).exists()))
            for path in [] if self._tidy else list(self.folder.iterdir()):
                if path.name.endswith((TMP, TRASH)):
                    shutil.rmtree(path)
        self._damaged, self._tidy = [], True

    def _prune(self) -> None:
        steps = self.steps()
        kept = {*steps[-self.keep :], *self._ranked(steps)[: self.keep_best]}
        for step in set(steps) - kept:
            path = self.folder / str(step)  # half deleted it has another name already
            shutil.rmtree(path.rename(path.with_name(path.name + TRASH)))

    def _ranked(self, steps: list[int]) -> list[int]:
        """Those that have the metric, the best first, the newest of equals."""
        sign = 1 if self.mode == "min" else -1
        found: list[tuple[float, int]] = []
        for step in steps:
            try:
                value = read(self.folder / str(step))["metrics"].get(self.best, math.nan)
            except Damaged:
                continue
            if not math.isnan(value):
                found.append((sign * value, -step))
        return [-step for _, step in sorted(found)]


def _is_step(path: Path) -> bool:
    return path.name.isascii() and path.name.isdigit() and str(int(path.name)) == path.name
