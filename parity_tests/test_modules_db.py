"""Every module of PyTorch's own database, lowered: outputs, gradients and buffers."""

from __future__ import annotations

import pytest

from conftest import assert_in_step
from module_cases import cases, names, of_ours, of_torch


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", names())
def test_float64(name, training, x64):
    for i, case in enumerate(cases(name, training)):
        if i == 2:
            break
        ours = of_ours(case)
        theirs = of_torch(case)
        assert theirs.keys() == ours.keys()
        for leaf, value in theirs.items():
            assert value.shape == ours[leaf].shape and value.dtype == ours[leaf].dtype, leaf
            if value.dtype.kind == "f":
                assert_in_step(value, ours[leaf], f"{name}, call {i}: {leaf}", finite=False)
            else:
                assert (value == ours[leaf]).all(), f"{name}, call {i}: {leaf}"
