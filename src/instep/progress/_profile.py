"""A trace of a few steady steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


FIRST, STEPS = 3, 5  # by then the step is compiled and the batches are made ahead


class Profile:
    """``jax.profiler`` around calls FIRST + 1 to FIRST + STEPS of a step.

    PyTorch: ``torch.profiler.profile`` with a ``torch.profiler.schedule``.

    Args:
      folder: where the trace is written.
      say: gets a sentence when it is there.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self._folder, self._say = folder, say
        self._running = False
        self._calls = 0

    def before(self, state: Any) -> None:
        """Called before each step with the state it is given."""
        if self._calls == FIRST:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        self._calls += 1

    def after(self, state: Any) -> None:
        """Called after each step is dispatched with the state it makes."""
        if self._running and self._calls == FIRST + STEPS:
            jax.block_until_ready(state)
            self._stop(STEPS)

    def close(self) -> None:
        """End a trace that is running; say so where the run was too short for one."""
        if self._running:
            self._stop(self._calls - FIRST)
        elif self._calls <= FIRST:
            self._say(f"no profile: it starts after {FIRST} steps, and there were no more.")

    def _stop(self, steps: int) -> None:
        jax.profiler.stop_trace()
        self._running = False
        self._say(
            f"profile of {steps} steps: {self._folder}. Show it with xprof or TensorBoard "
            f"(tensorboard --logdir {self._folder})."
        )
