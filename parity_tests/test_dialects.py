"""docs/dialects.md is what benchmarks/dialects.py says, and leaves nothing out."""

import sys
from pathlib import Path

import pytest
import torch

import instep


sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import dialects


ROWS = [row for rows in dialects.FAMILIES.values() for row in rows]
NOT_DIALECTS = {
    "add_param_group",
    "averaged_model",  # with update_parameters
    "from_table",  # a schedule from numbers
    "hyperparams",
    "on_plateau",  # an optimizer with reduce_lr_on_plateau inside
    "set_hyperparams",
    "swa_avg_fn",  # the default of update_parameters
    "update_bn",
}


def functions(module) -> set[str]:
    return {n for n in vars(module) if n[0].islower() and callable(getattr(module, n))}


@pytest.mark.parametrize("module", [instep.optim, instep.schedules])
def test_everything_has_a_row(module):
    said = " ".join(row.ours for row in ROWS)
    room = module.__name__
    missing = {n for n in functions(module) if f"{room}.{n}(" not in said} - NOT_DIALECTS
    assert not missing


def test_clip_and_scaler_have_rows():
    said = " ".join(row.ours for row in ROWS)
    for name in ("clip_grad_norm", "clip_grad_value", "GradScaler"):
        assert f"instep.{name}(" in said


def test_every_optimizer_of_torch_has_a_row():
    said = " ".join(row.torch for row in ROWS)
    classes = {
        n
        for n, x in vars(torch.optim).items()
        if isinstance(x, type) and issubclass(x, torch.optim.Optimizer) and x.__name__ == n
    }
    assert not {n for n in classes - {"Optimizer"} if f"torch.optim.{n}(" not in said}


def test_rows_have_names_of_their_own():
    assert len({(row.torch, row.other) for row in ROWS}) == len(ROWS)


def test_page_has_the_words_of_the_script():
    page = dialects.PAGE.read_text()
    assert dialects.render(*dialects.read(page)) == page


def test_page_is_in_step():
    numbers, _ = dialects.read(dialects.PAGE.read_text())
    assert not dialects.out_of_step(numbers)


@pytest.mark.exhaustive
def test_page_has_the_numbers_of_the_script():
    numbers = dialects.measured()
    assert not dialects.out_of_step(numbers)
    assert not dialects.changed(
        dialects.read(dialects.PAGE.read_text())[0], numbers, factor=2.0
    )
