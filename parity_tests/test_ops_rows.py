"""Every operator of our table that PyTorch's own database does not call, alone."""

from __future__ import annotations

import json

import pytest

from aten_cases import aten_cases
from instep.bridge.lower._table import ATEN, RANDOM
from ops_check import NOT_COMPARED, in_step, key_of, outcome
from ops_results import RESULTS


CASES = aten_cases()
SHAPES_ONLY = [n for n in CASES if n.partition(".")[0] in NOT_COMPARED]
COMPARED = [n for n in CASES if n not in SHAPES_ONLY]


def check(name):
    found = outcome(CASES[name])
    assert not found.diverged and not found.refused, found
    assert found.operators == {key_of(f"aten.{name}")}
    assert in_step(found) or name in SHAPES_ONLY, found


@pytest.mark.parametrize("name", COMPARED[::8])  # all in `make test-all`
def test_some_are_in_step(name, x64):
    check(name)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [n for n in COMPARED if n not in COMPARED[::8]])
def test_all_are_in_step(name, x64):
    check(name)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SHAPES_ONLY)
def test_shapes_and_dtypes_of_what_cannot_be_compared(name, x64):
    check(name)


def test_the_database_and_the_rows_call_every_operator_of_the_table():
    """Those that the database has in no call that is in step have a row."""
    missed = set(json.loads(RESULTS.read_text())["not_called"])
    rows = {key_of(f"aten.{name}") for name in CASES}
    assert not missed - rows
    assert rows <= {*ATEN, *RANDOM}
