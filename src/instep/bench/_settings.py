"""What a benchmark is asked for, and what a process of it is told."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any


DEVICES = ("auto", "cpu", "gpu")
WITHOUT_OPTION = frozenset(["warm_up", "block", "pause", "batches"])  # of `instep bench`
MATMUL = {"highest": "highest", "tensorfloat32": "high", "bfloat16": "medium"}  # JAX -> PyTorch


@dataclass(frozen=True)
class Settings:
    """The same for every contender of a run.

    Args:
      rounds: that are counted. In each, every contender runs one block of steps.
      warm_up: rounds before, not counted.
      steps: per block; None: as many as take the fastest contender ``block`` seconds.
      block: seconds.
      pause: seconds between two blocks, in which the threads of the one before fall asleep.
      batches: different ones, placed on the device beforehand and taken in turn.
      check_steps: that every contender must take in step before it is timed; 0: unchecked.
      check_examples: of each microbatch that the check takes, where a whole one in float64 is
        too large; None: all.
      seed: of the order of the contenders in a round, and of the random states of Python,
        NumPy and PyTorch when TARGET is imported and called.
      device: ``"cpu"``, ``"gpu"``, or ``"auto"``: a GPU where there is one.
      precision: of a built-in workload, ``"float32"`` or ``"bf16"``.
      matmul_precision: of both frameworks, a key of ``MATMUL``.
      threads: cores that every process may use; None: all.
      keep_memory: call ``instep.keep_memory`` in every process, PyTorch's too.
      peak_tflops: dense peak of the device in this precision, for the MFU; None: that of
        ``instep.progress.PEAKS``.

    Raises:
      ValueError: a field is out of range or another word.
    """

    rounds: int = 20
    warm_up: int = 2
    steps: int | None = None
    block: float = 0.2
    pause: float = 0.02
    batches: int = 8
    check_steps: int = 3
    check_examples: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    matmul_precision: str = "highest"
    threads: int | None = None
    keep_memory: bool = False
    peak_tflops: float | None = None

    def __post_init__(self):
        least = {"rounds": 1, "warm_up": 0, "steps": 1, "batches": 1, "check_steps": 0}
        for name, lowest in (least | {"threads": 1, "check_examples": 1}).items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"{name} must be at least {lowest}; got {value}.")
        for name, words in (("device", DEVICES), ("matmul_precision", tuple(MATMUL))):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} is one of {words}; got {getattr(self, name)!r}.")
        if self.peak_tflops is not None and not 0 < self.peak_tflops < math.inf:
            raise ValueError(f"peak_tflops must be above 0; got {self.peak_tflops}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be at least 0 and below 2**32; got {self.seed}.")

    def options(self) -> list[str] | None:
        """Those of ``instep bench`` that ask for these; None: a changed one has no option."""
        asked = {x.name: getattr(self, x.name) for x in fields(self)}
        changed = {x.name: asked[x.name] for x in fields(self) if asked[x.name] != x.default}
        if changed.keys() & WITHOUT_OPTION:
            return None
        found = []
        for name, value in changed.items():
            found += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return found


@dataclass(frozen=True)
class Job:
    """What one process does: the ``"survey"`` of all contenders, or the ``"time"`` of one."""

    kind: str
    target: str
    contenders: tuple[str, ...]
    settings: Settings
    has_torch_half: bool = False  # as the survey found: PyTorch is seeded before TARGET draws

    @property
    def name(self) -> str:
        """Who it is for."""
        return self.contenders[0] if self.kind == "time" else self.kind

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(found: dict[str, Any]) -> Job:
        names, settings = tuple(found["contenders"]), Settings(**found["settings"])
        return Job(found["kind"], found["target"], names, settings, found["has_torch_half"])
