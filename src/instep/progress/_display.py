"""The run on a terminal: two lines that stay where they are. Elsewhere: a line now and then."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

from .._compat import require
from ._compile import device_bytes, in_bytes
from ._record import Record


class Display(Protocol):
    """Where a run shows itself."""

    def start(self, step: int) -> None:
        """Begin to show a run that stands after ``step``."""
        ...

    def update(self, record: Record, rate: Rate) -> None:
        """Show the newest step."""
        ...

    def say(self, text: str) -> None:
        """A line of its own, which stays."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was; also where ``start`` was never called."""
        ...


class Rate:
    """How fast the run is, over the last 20 steps; the first one also fills the pipeline."""

    def __init__(self, amount: tuple[int, str], at_peak: float | None):
        self.amount, self.at_peak = amount, at_peak
        self._last: deque[float] = deque(maxlen=20)
        self._taken = 0

    def take(self, seconds: float) -> None:
        self._taken += 1
        if self._taken > 1:
            self._last.append(seconds)

    @property
    def seconds(self) -> float | None:
        """Of a step."""
        return sum(self._last) / len(self._last) if self._last else None

    def __str__(self) -> str:
        """``12.3 steps/s  790 examples/s  MFU 41%``"""
        seconds = self.seconds
        if not seconds:
            return ""
        count, what = self.amount
        parts = [f"{_number(1 / seconds)} steps/s", f"{_number(count / seconds)} {what}/s"]
        if self.at_peak is not None:
            parts.append(f"MFU {self.at_peak / seconds:.0%}")
        return "  ".join(parts)


class Quiet(Display):
    """Nothing: another process shows the run."""

    def start(self, step: int) -> None:
        pass

    def update(self, record: Record, rate: Rate) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class Plain(Display):
    """A line at the first and the last step, at multiples of ``every`` and with validation.

    Args:
      console: of rich.
      steps: of the run.
      every: steps between two lines.
    """

    def __init__(self, console: Any, steps: int, every: int):
        self._console, self._steps, self._every = console, steps, every
        self._first = 0

    def start(self, step: int) -> None:
        self._first = step + 1

    def update(self, record: Record, rate: Rate) -> None:
        n = record.step
        if n % self._every and n not in (self._first, self._steps) and not record.validation:
            return
        memory = device_bytes()
        parts = [f"step {n}/{self._steps}", numbers(record), str(rate)]
        parts += ["" if memory is None else in_bytes(memory), _left(n, self._steps, rate)]
        self.say("  ".join(x for x in parts if x))

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        pass


class Live(Display):
    """Two lines: the bar with the time left, and the numbers of the newest step.

    Args:
      console: of rich.
      title: before the bar.
      steps: of the run.

    Raises:
      MissingExtraError: rich is not installed.
    """

    def __init__(self, console: Any, title: str, steps: int):
        live = require("rich.live", "the command line")
        self._console, self._title, self._steps = console, title, steps
        self._n, self._text, self._rate = 0, "compiling", Rate((0, ""), None)
        self._began = time.perf_counter()
        self._live = live.Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=4,  # rendering takes turns with dispatch
            transient=True,
        )

    def start(self, step: int) -> None:
        self._n, self._began = step, time.perf_counter()
        self._live.start()

    def update(self, record: Record, rate: Rate) -> None:
        self._n, self._text, self._rate = record.step, numbers(record), rate
        if record.validation:  # stays above; the line below is of the newest step alone
            self.say(f"step {record.step}/{self._steps}  {numbers(record)}")

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        first = Table.grid(padding=(0, 1))
        first.add_row(
            Text(self._title, "bold"),
            ProgressBar(self._steps, self._n, width=24),
            Text(f"{self._n}/{self._steps}", "green"),
            Text(clock(time.perf_counter() - self._began)),
            Text(_left(self._n, self._steps, self._rate), "cyan"),
        )
        memory = device_bytes()
        rest = [self._text, str(self._rate), "" if memory is None else in_bytes(memory)]
        return Group(first, Text("  ".join(x for x in rest if x), overflow="fold"))


def numbers(record: Record) -> str:
    """``loss 0.1234  lr 0.001  grad norm 0.52``"""
    parts = [f"loss {record.loss:.4g}"]
    parts += [f"{name} {value:.4g}" for name, value in record.validation.items()]
    if record.lr:
        parts.append("lr " + " ".join(f"{x:.4g}" for x in dict.fromkeys(record.lr)))
    if record.grad_norm is not None:
        parts.append(f"grad norm {record.grad_norm:.3g}")
    if record.skipped:
        parts.append("skipped")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """``1:02:03``, ``2:03``"""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def _left(n: int, steps: int, rate: Rate) -> str:
    """Nothing for less than a second."""
    seconds = (rate.seconds or 0.0) * (steps - n)
    return f"{clock(seconds)} left" if seconds >= 1 else ""


def _number(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"
