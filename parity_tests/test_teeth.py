"""The proof can fail: every mistake of ``teeth.py`` is found, and its stage is named."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import teeth
from instep.cli._app import app


FILE = Path(teeth.__file__)


def parity(name, tmp_path, steps=3):
    path = tmp_path / "report.json"
    command = ["parity", f"{FILE}:{name}", "--steps", str(steps), "--json", str(path)]
    done = CliRunner().invoke(app, command)
    return done, json.loads(path.read_text()) if path.exists() else None


@pytest.mark.parametrize("name", teeth.CLEAN)
def test_without_a_mistake_exit_0(name, tmp_path):
    done, report = parity(name, tmp_path, steps=5)
    assert done.exit_code == 0, done.output
    assert report["verdict"] == "in step"
    assert "IN STEP" in done.output


@pytest.mark.parametrize("name", teeth.TEETH)
def test_with_a_mistake_exit_1_and_the_stage_is_named(name, tmp_path):
    done, report = parity(name, tmp_path)
    assert done.exit_code == 1, done.output
    stage, step = teeth.TEETH[name]
    first = report["first_divergence"]
    assert (first["stage"], first["step"]) == (stage, step), first
    assert first["ratio"] is None or first["ratio"] > 1
    printed = " ".join(done.output.split())
    assert "NOT IN STEP" in printed
    assert f"step {step}, stage {stage}" in printed


def test_the_readme_counts_them():
    readme = (FILE.parent.parent / "README.md").read_text()
    assert len(teeth.TEETH) >= 12
    assert f"{len(teeth.TEETH)} mistakes written into the JAX half" in readme
