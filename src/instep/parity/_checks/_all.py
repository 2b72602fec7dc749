"""All checks of a pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..._errors import where
from .._pair import Pair
from .._records import Check
from .._report import Report
from .._settings import random_state_kept
from ._draws import repeated_draws
from ._dtypes import dtypes
from ._labels import labels
from ._order import other_order, unsteady_batches
from ._precision import low_precision, matmul_precision
from ._probe import Probe
from ._recompiles import recompiles
from ._unexcited import idle_leaves, unexcited


Look = Callable[[Probe], Iterator[str]]

# What is asked, in the order of a step; each yields a sentence for each fault.
CHECKS: dict[str, Look] = {
    "steady batches": unsteady_batches,
    "data order": other_order,
    "labels in range": labels,
    "dtypes": dtypes,
    "low precision": low_precision,
    "matmul precision": matmul_precision,
    "random draws": repeated_draws,
    "one compile": recompiles,
    "features excited": unexcited,
}


def checks(pair: Pair, report: Report | None = None, steps: int = 2) -> tuple[Check, ...]:
    """Look for what goes wrong around a step that is itself right.

    Each check runs its own part of both halves on the first windows, in the precision and
    under the settings in which it is called; nothing of the caller's is changed.

    Args:
      pair: as for ``parity.run``.
      report: of ``parity.run``; with it, its leaves that were never excited are named too.
      steps: optimizer steps to look at, at least 2: a repetition takes two.

    Returns:
      For each check one that passed, or one for each fault found. A check that could not be
      made is there with the reason, and has not passed.

    Raises:
      ValueError: ``steps`` is below 2.
    """
    if steps < 2:
        raise ValueError(f"steps must be at least 2, to see a repetition; got {steps=}.")
    found: list[Check] = []
    looks = CHECKS if report is None else {**CHECKS, "leaves excited": idle_leaves(report)}
    with random_state_kept(pair.torch):
        probe = Probe(pair, steps)
        for name, look in looks.items():
            with random_state_kept(pair.torch):
                found += _asked(name, look, probe)
    return tuple(found)


def _asked(name: str, look: Look, probe: Probe) -> list[Check]:
    try:
        sentences = list(look(probe))
    except Exception as error:
        sentences = [f"not checked: {where(error)}"]
    return [Check(name, False, sentence) for sentence in sentences] or [Check(name, True)]
