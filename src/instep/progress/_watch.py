"""The step, the hook and the clock of a run that is watched."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from .._state import Metrics, PyTree, TrainState
from ._compile import Compiled, CompiledStep
from ._display import Display, Rate
from ._profile import Profile
from ._record import Record, Sink, amount, record


Validate = Callable[[TrainState], dict[str, float]]


class Watch:
    """What ``instep train`` puts around a run: its step, its ``on_step`` and its ``on_save``.

    The numbers of a step are read when the next one is dispatched, so that reading them does
    not stall the device; only validation does.

    Args:
      step: of ``seen_step``.
      steps: of the run.
      accumulate: of the loop.
      display: where the run shows itself.
      sinks: each gets every record.
      validate: ``state -> {name: value}``.
      validate_every: steps between two validations; the last step is validated too.
      profile: of a few steps.
    """

    def __init__(
        self,
        step: Any,
        steps: int,
        accumulate: int,
        display: Display,
        sinks: Sequence[Sink] = (),
        validate: Validate | None = None,
        validate_every: int | None = None,
        profile: Profile | None = None,
    ):
        self._step = CompiledStep(step, self._compiled, display.say)
        self._steps, self._accumulate = steps, accumulate
        self.display, self._sinks, self._profile = display, sinks, profile
        self._validate, self._every = validate, validate_every
        self._n: int | None = None  # steps dispatched
        self.compiled: Compiled | None = None  # what is known of the step
        self._rate: Rate | None = None
        self._read = self._away = 0.0  # when the last step was read; time in validation since
        self._values: dict[int, dict[str, float]] = {}  # of validations not yet written
        self.last: Record | None = None
        self.not_finite: int | None = None  # the first step with such a loss
        self.count = 0  # steps read

    def step(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        """The step of the run."""
        if self._n is None:
            self._start(int(state.step))
        if self._profile is not None:
            self._profile.before(state)
        state, metrics = self._step(state, batch)
        if self._rate is None:
            at_peak = None if self.compiled is None else self.compiled.at_peak
            self._rate = Rate(amount(batch, self._accumulate), at_peak)
        assert self._n is not None
        self._n += 1
        if self._profile is not None:
            self._profile.after(state)
        if self._validates(self._n):
            self._measure(self._n, state)
        return state, metrics

    def on_step(self, n: int, metrics: Metrics) -> None:
        """Write and show step ``n``."""
        now = time.perf_counter()
        seconds, self._read, self._away = now - self._read - self._away, now, 0.0
        made = record(n, metrics, seconds, self._values.pop(n, {}))
        assert self._rate is not None
        self._rate.take(seconds)
        for sink in self._sinks:
            sink.write(made)
        self.display.update(made, self._rate)
        if self.not_finite is None and not made.skipped and not math.isfinite(made.loss):
            self.not_finite = n
        self.last, self.count = made, self.count + 1

    def on_save(self, n: int, state: TrainState) -> dict[str, float]:
        """The validation of the step that is saved, for its checkpoint."""
        return dict(self.last.validation) if self.last and self.last.step == n else {}

    def close(self) -> None:
        """End the profile, close every sink and the display."""
        if self._n is not None and self._profile is not None:
            self._profile.close()
        for sink in self._sinks:
            sink.close()
        self.display.close()

    def _start(self, step: int) -> None:
        self._n = step
        for sink in self._sinks:
            sink.start(step)
        self.display.start(step)
        self._read = time.perf_counter()

    def _compiled(self, found: Compiled) -> None:
        self.compiled = found
        self.display.say(str(found))
        self._read = time.perf_counter()

    def _validates(self, n: int) -> bool:
        return self._every is not None and (n % self._every == 0 or n == self._steps)

    def _measure(self, n: int, state: TrainState) -> None:
        assert self._validate is not None
        start = time.perf_counter()
        self._values[n] = self._validate(state)
        self._away += time.perf_counter() - start
