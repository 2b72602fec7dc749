"""Every module of PyTorch's own database, lowered: outputs, gradients and buffers."""

from __future__ import annotations

import json

import pytest

from module_cases import cases, names
from modules_results import RESULTS, float32, float64


AT_LEAST = 113  # of 114 work in every call that is kept

pytestmark = pytest.mark.filterwarnings("ignore")  # of what PyTorch deprecates in itself


@pytest.mark.parametrize("name", names()[::3])  # all in `make test-all`
def test_first_call_in_training(name):
    case = next(cases(name, training=True, at_most=1))
    assert float64(case) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("check", [float64, float32], ids=lambda f: f.__name__)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", names())
def test_calls(name, training, check):
    for i, case in enumerate(cases(name, training, at_most=8)):
        assert check(case) == [], f"call {i}"


def test_enough_are_kept_as_in_step():
    kept = json.loads(RESULTS.read_text())
    assert kept.keys() == set(names())
    working = [n for n, row in kept.items() if not any(m["wrong"] for m in row.values())]
    assert len(working) >= AT_LEAST, sorted(kept.keys() - set(working))
