"""docs/losses.md runs, and its table is what benchmarks/losses_page.py measures."""

import re
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
import torch
import torch.nn.functional as F

from conftest import assert_in_step
from losses import NAMES


sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import losses_page


PAGE = losses_page.PAGE.read_text()
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def whole_batch(names):
    """PyTorch's gradient of the eight examples at once."""
    w = torch.zeros(4, 3, requires_grad=True)
    F.cross_entropy(
        torch.tensor(names["x"]) @ w,
        torch.tensor(names["y"]),
        weight=torch.tensor(names["class_weight"].tolist()),
    ).backward()
    return w.grad


def test_code(x64):
    names = {}
    exec(CODE, names)
    assert_in_step(whole_batch(names), names["ragged"]["w"], "ragged")
    assert_in_step(whole_batch(names), -names["state"].params["w"], "padded")
    assert_in_step(
        names["metrics"].weight, names["class_weight"][jnp.asarray(names["y"])].sum()
    )


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("total_and_weight(cross_entropy)", "lambda *a, where, **k: cross_entropy(*a, **k)"),
        (', where=batch.get("where")', ""),
    ],
)
def test_code_without_its_point_is_another_gradient(right, wrong, x64):
    assert right in CODE
    names = {}
    exec(CODE.replace(right, wrong), names)
    expected = whole_batch(names).numpy()
    error = abs(expected + names["state"].params["w"]).max()
    assert error > 0.1 * abs(expected).max()


def test_every_loss_has_a_row():
    assert {row.loss for row in losses_page.ROWS} == set(NAMES)
    assert {point.loss for point in losses_page.POINTS} <= set(NAMES)


def test_table_is_measured():
    """Every word and every number."""
    table = losses_page.table()
    assert "\n" + table + "\n\n" in PAGE
    lines = [line.split(" | ") for line in table.splitlines()[2:]]
    assert all(line[5] == "rounding" and float(line[4]) > 0.2 for line in lines)
