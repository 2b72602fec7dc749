"""Every operator of our table on the calls of PyTorch's own database, in float64.

``ops_results.py`` writes what every entry came to into ``results/op_db.json``.
"""

from __future__ import annotations

import json

import pytest

from instep.bridge.lower._table import ATEN, RANDOM
from ops_cases import cases, entries
from ops_check import outcome
from ops_results import RESULTS, totals


FOUND = json.loads(RESULTS.read_text())
ENTRIES = FOUND["entries"]
RUN = [name for name, row in ENTRIES.items() if row["in_step"] or "not_compared" in row]


@pytest.mark.parametrize("entry", RUN[::12])  # all in `make test-all`
def test_first_call_with_a_gradient(entry, x64):
    check(entry, at_most=1)


@pytest.mark.exhaustive
@pytest.mark.parametrize("entry", RUN)
def test_evenly_spaced_calls(entry, x64):
    check(entry, at_most=FOUND["at_most"])


def check(entry, at_most):
    """None diverges; nothing is refused where the file says that all are in step."""
    found = [outcome(case) for case in cases(entry, at_most)]
    assert not [x.diverged for x in found if x.diverged]
    if "refused" not in ENTRIES[entry]:
        assert not [x.refused for x in found if x.refused]
    return found


def test_the_file_has_every_entry_and_nothing_diverged():
    assert list(ENTRIES) == sorted(entries())
    assert FOUND["totals"] == totals(ENTRIES)
    assert FOUND["totals"]["diverged"] == 0
    assert FOUND["totals"]["in_step"] > FOUND["totals"]["refused"]


def test_the_file_names_every_operator_of_the_table():  # see test_ops_rows
    called, not_called = set(FOUND["operators"]), set(FOUND["not_called"])
    assert called | not_called == {*ATEN, *RANDOM}
    assert not called & not_called
