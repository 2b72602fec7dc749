"""The verdict as an assertion, for a test suite."""

from __future__ import annotations

from collections.abc import Sequence

from ..bridge._torch_loop import TorchLoop
from ._pair import Pair
from ._report import Report
from ._run import run
from ._words import told


TOLD = 12  # lines on where, how far and why, at most


def assert_in_step(
    pair: Pair | TorchLoop, steps: int = 20, precisions: Sequence[str] | None = None
) -> Report:
    """Raise unless ``pair`` is in step; a failure is told in at most 25 lines.

    Args:
      pair, steps, precisions: as for ``parity.run``.

    Returns:
      The report, to look further into.

    Raises:
      AssertionError: the verdict is another one.
      ParityError, TypeError, ValueError: as ``parity.run``.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    report = run(pair, steps, precisions, checks=False)
    if not report.in_step:
        raise AssertionError(failure(report))
    return report


def failure(report: Report) -> str:
    """What went wrong, where, how far, and what to run next."""
    lines = [f"{report.verdict.upper()}: {report.reason}"]

    def add(label: str, text: str) -> None:
        lines.append(f"  {label:<10} {text}")

    for label, sentence in told(report)[:TOLD]:
        add(label, sentence)
    for walk in report.walks:
        add("walk", f"{walk.plan.name}: {walk.verdict}")
    for sentence in report.coverage.unseen[:2]:
        add("not seen", sentence)
    for sentence in report.coverage.not_walked[:2]:
        add("not walked", sentence.partition("\n")[0])
    add("next", 'report = instep.parity.run(pair); report.to_html("report.html")')
    add("", "or: instep parity path/to/file.py:callable --leaves --report report.html")
    return "\n".join(lines)
