"""The command line: what it prints, and its exit codes."""

import json
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instep import __version__, workloads
from instep.cli._app import app


def instep(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def printed(done):
    return " ".join(done.output.split())


def test_a_workload_from_the_walk_to_the_test_accuracy(tmp_path):
    done = instep(
        "parity", "digits-mlp", "--steps", 3, "--leaves", "--json", tmp_path / "r.json"
    )
    assert done.exit_code == 0, done.output
    assert "digits-mlp: IN STEP. No leaf diverged in 3 steps." in printed(done)
    assert "fc2.weight.exp_avg_sq" in printed(done)
    assert "test accuracy: PyTorch 9" in printed(done)
    assert json.loads((tmp_path / "r.json").read_text())["steps"] == 3


def test_list_names_every_workload():
    done = instep("list")
    assert done.exit_code == 0, done.output
    for name in workloads.names():
        assert name in printed(done)
        assert workloads.get(name).summary.split(";")[0] in printed(done)


def test_report_and_precisions(tmp_path):
    page = tmp_path / "report.html"
    command = ["parity", "digits-mlp", "--steps", 2, "--report", page, "--json"]
    done = instep(*command, tmp_path / "r.json", "--precision", "bfloat16")
    assert done.exit_code == 0, done.output
    walks = json.loads((tmp_path / "r.json").read_text())["walks"]
    assert [walk["dtype"] for walk in walks] == ["float64", "float64", "bfloat16"]
    assert "IN STEP" in page.read_text() and "digits-mlp" in page.read_text()


def test_version_and_help():
    assert printed(instep("--version")) == f"instep {__version__}"
    assert "Exit 2: the request was wrong" in printed(instep("parity", "--help"))


FILES = {
    "raises.py": "import torch\nvalue = 1 / 0\n",
    "imports.py": "import no_such_package\n",
    "exits.py": "raise SystemExit(0)\n",
    "mine.py": """
        def pair():
            raise ValueError("my own mistake")

        def number():
            return 42
        """,
}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("digits-cn", "unknown workload 'digits-cn' (did you mean 'digits-cnn'?)"),
        (
            "nothing",
            "The workloads are digits-cnn, digits-mlp, digits-vit, text-lstm, byte-gpt,",
        ),
        ("missing.py:pair", "no file 'missing.py' in"),
        (
            "raises.py:pair",
            "raised on import: ZeroDivisionError: division by zero (raises.py:2)",
        ),
        ("imports.py:pair", "raised on import: ModuleNotFoundError: No module named 'no_such"),
        ("exits.py:pair", "raised on import: SystemExit: 0 (exits.py:1)"),
        ("mine.py:pairs", "has no callable 'pairs' (did you mean 'pair'?)"),
        ("mine.py:pair", "raised when called: ValueError: my own mistake (mine.py:3)"),
        ("mine.py:number", "returned a int; parity takes an instep.TorchLoop"),
        ("no.such.module:pair", "no module 'no.such.module' can be imported"),
    ],
)
def test_wrong_requests_exit_2(target, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(textwrap.dedent(text))
    done = instep("parity", target)
    assert done.exit_code == 2, done.output
    assert message in printed(done)
    assert "Traceback" not in done.output


@pytest.mark.parametrize("args", [["--steps", "0"], ["--steps", "x"], ["--no-such-option"]])
def test_wrong_options_exit_2(args):
    assert instep("parity", "digits-mlp", *args).exit_code == 2


def test_a_precision_that_is_none_exits_2():
    done = instep("parity", "digits-mlp", "--precision", "float8")
    assert done.exit_code == 2
    assert "no precision 'float8': rounding is judged in float32, bfloat16" in printed(done)


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_a_file_that_cannot_be_written_exits_2(option, tmp_path):
    path = tmp_path / "no" / "such" / "folder.json"
    done = instep("parity", "digits-mlp", "--steps", 1, option, path)
    assert done.exit_code == 2
    assert "to write folder.json in" in printed(done)
