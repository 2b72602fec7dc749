"""The proof can fail: every mistake of ``teeth.py`` is found, in every precision it can be."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import teeth
from instep.cli._app import app
from instep.parity._tolerance import RELATIVE


FILE = Path(teeth.__file__)
PRECISIONS = ("float32", "bfloat16")


def parity(name, tmp_path, steps=3):
    path = tmp_path / "report.json"
    command = ["parity", f"{FILE}:{name}", "--steps", str(steps), "--json", str(path)]
    precisions = [f"--precision={dtype}" for dtype in PRECISIONS]
    done = CliRunner().invoke(app, command + precisions)
    return done, json.loads(path.read_text()) if path.exists() else None


@pytest.mark.parametrize("name", teeth.CLEAN)
def test_without_a_mistake_exit_0(name, tmp_path):
    done, report = parity(name, tmp_path, steps=5)
    assert done.exit_code == 0, done.output
    assert report["verdict"] == "in step"
    assert [walk["verdict"] for walk in report["walks"]] == ["in step"] * 4
    assert "IN STEP" in done.output
    assert report["causes"] == report["unexplained"] == []


@pytest.mark.parametrize("name", teeth.TEETH)
def test_with_a_mistake_exit_1_and_stage_and_cause_are_named(name, tmp_path):
    """In every walk that is not said to hide it, at the same stage and step in float64.

    The mistake that is named turns PyTorch's step into JAX's, to the last digits.
    """
    done, report = parity(name, tmp_path)
    assert done.exit_code == 1, done.output
    tooth = teeth.TEETH[name]
    first = report["first_divergence"]
    assert (first["stage"], first["step"]) == (tooth.stage, tooth.step), first
    assert first["ratio"] is None or first["ratio"] > 1
    printed = " ".join(done.output.split())
    assert "NOT IN STEP" in printed
    assert f"step {tooth.step}, stage {tooth.stage}" in printed
    verdicts = {walk["name"]: walk["verdict"] for walk in report["walks"]}
    assert verdicts == {
        walk["name"]: "in step" if walk["dtype"] in tooth.hidden else "not in step"
        for walk in report["walks"]
    }
    assert len(verdicts) == 4
    causes = [cause["explanations"][0]["mistake"] for cause in report["causes"]]
    assert set(causes) == {tooth.cause} and not report["unexplained"], report["causes"]
    assert f"why {tooth.cause}" in printed
    for cause in report["causes"]:
        assert cause["after"] < RELATIVE < cause["before"]
        assert cause["steps"][0] == max(tooth.step, 1)


def test_the_readme_counts_them():
    readme = (FILE.parent.parent / "README.md").read_text()
    assert len(teeth.TEETH) >= 12
    assert f"{len(teeth.TEETH)} mistakes written into the JAX half" in readme
    for dtype in PRECISIONS:
        seen = sum(dtype not in tooth.hidden for tooth in teeth.TEETH.values())
        assert f"{seen} of them in {dtype}" in readme
