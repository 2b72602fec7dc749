"""A benchmark from end to end: processes of their own, so as few as show it."""

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

import instep
from bench_targets import jax_alone
from instep import bench
from instep.bench._plot import picture
from instep.bench._settings import Settings
from instep.cli._app import app


SCHEMA = Path(bench.__file__).parent / "bench.schema.json"
FAST = ("--steps", "2", "--check-steps", "2", "--device", "cpu")


def instep_bench(*args):
    return CliRunner().invoke(app, ["bench", *map(str, args)])


def printed(done):
    return " ".join(done.output.split())


def test_a_workload_from_the_command_line_to_the_picture(tmp_path):
    json_path, plot = tmp_path / "r.json", tmp_path / "r.svg"
    done = instep_bench(
        "digits-mlp", "--rounds", 3, "--against", "torch-eager,jax-plain", *FAST,
        "--json", json_path, "--plot", plot, "--peak-tflops", 0.1, "--keep-memory",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for part in (
        "torch-eager",
        "jax-plain",
        "images/s",
        "MFU",
        "not resolved",
        "optax, as torch",
    ):
        assert part in printed(done)
    found = json.loads(json_path.read_text())
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(found)
    assert found["work"]["items"] == 64 and found["parity"]["in_step"]
    assert found["settings"]["keep_memory"]
    assert found["command"] == (
        "instep bench digits-mlp --against torch-eager,jax-plain --rounds 3 --steps 2 "
        "--check-steps 2 --device cpu --keep-memory --peak-tflops 0.1"
    )
    for one in found["contenders"]:
        assert len(one["rounds"]) == 3 and min(one["rounds"]) > 0
        assert one["judged"] >= 7 * 2 + 6, "six parameters and the loss, at every step"
        assert one["mfu"] == pytest.approx(one["flops_per_second"] / 1e11)
    losses = [one["losses"][0] for one in found["contenders"]]
    assert losses == pytest.approx([losses[0]] * 3)
    assert plot.read_text().startswith("<svg") and "jax-plain" in plot.read_text()


WRONG_RATE = """
    from dataclasses import replace
    import optax
    from instep import workloads

    def pair():
        pair = workloads.get("digits-mlp").make_pair()
        tx = optax.adamw(1.01 * 2e-3, weight_decay=1e-2)
        return replace(pair, jax=replace(pair.jax, tx=tx))
    """


def test_a_wrong_learning_rate_is_not_timed(tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(WRONG_RATE))
    json_path = tmp_path / "r.json"
    done = instep_bench(f"{tmp_path}/mine.py:pair", *FAST, "--json", json_path)
    assert done.exit_code == 1, done.output
    assert "is not timed: its halves are not in step" in printed(done)
    assert "step 1, stage optimizer: update of fc1" in printed(done)
    assert not json_path.exists()


UNSEEDED = """
    import torch
    import instep

    model = torch.nn.Linear(3, 4)

    def loop():
        return instep.TorchLoop(
            model,
            lambda model, x: model(x).square().mean(),
            torch.optim.SGD(model.parameters(), lr=0.1),
            [torch.randn(8, 3) for _ in range(8)],
        )
    """


def test_every_process_draws_the_same(tmp_path):
    """PyTorch is imported by TARGET itself in those that compute with JAX."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(UNSEEDED))
    losses = []
    for seed in (0, 1):
        done = instep_bench(
            f"{tmp_path}/mine.py:loop",
            "--rounds",
            1,
            *FAST,
            "--seed",
            seed,
            "--json",
            tmp_path / "r.json",
        )
        assert done.exit_code == 0, done.output
        found = json.loads((tmp_path / "r.json").read_text())
        losses.append([one["losses"][0] for one in found["contenders"]])
    first, other = losses
    assert first == pytest.approx(3 * [first[0]]) and other == pytest.approx(3 * [other[0]])
    assert first[0] != pytest.approx(other[0])


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "flax"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


def test_a_jax_loop_needs_no_torch(tmp_path, monkeypatch):
    """Neither the command nor any of its processes can import it."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    source = str(Path(instep.__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{source}")
    command = ["bench", jax_alone(tmp_path), "--against", "jax-plain,multisteps"]
    code = "import sys; from instep.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--rounds", "3", *FAST, "--json", "r.json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["parity"] is None and found["work"]["items"] == 16
    assert [one["judged"] for one in found["contenders"]] == [5, 5, 5]
    refused = subprocess.run(
        [sys.executable, "-c", code, *command[:2], *FAST, "--against", "torch-eager"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert refused.returncode == 2
    assert "torch-eager needs a PyTorch half" in " ".join(refused.stderr.split())


def a_report(**changed):
    """Of two contenders, the second slower by half."""
    one = bench.Measured(
        "instep", "", "cpu", {}, bench.band([0.01]), bench.band([0.0]), None, 0.0, 0.0, 0.0,
        {}, bench.Memory(None, 5, 3, 9, True), (1.0,), 7, (0.01,),
    )  # fmt: skip
    other = replace(one, name="a < b", ratio=bench.paired_ratio([1.0] * 6, [2.0] * 6))
    work = {"items": 3, "unit": "images", "flops": None, "dtype": "float32"}
    report = bench.BenchReport(
        "mine", Settings(), 2, work | {"batches_left_out": 0}, None, None,
        (one, other), {"processor": "P & Q", "usable_cores": 2}, {"jax": "1"}, None,
        "2026-01-01", (0.0, 0.0), 1.0,
    )  # fmt: skip
    return replace(report, **changed)


def test_the_picture_names_what_was_measured():
    report = a_report()
    drawn = picture(report)
    assert "a &lt; b" in drawn and "P &amp; Q" in drawn and ">0.50<" in drawn
    (one, _) = report.contenders
    assert one.memory.used == 2 and report.items_per_second(one) == pytest.approx(300)


def test_the_report_says_what_is_to_be_said_against_it():
    assert "equal work    in the first 3 steps in float64: 7 leaves" in str(a_report())
    for word in ("BUSY", "NOT SHOWN", "NOT CHECKED", "left out"):
        assert word not in str(a_report())
    report = a_report(
        load=(2.5, 0.0),
        work=a_report().work | {"batches_left_out": 5, "dtype": "float64"},
        parity={"not_shown": ["lr: it had no effect here"]},
        settings=Settings(rounds=1, check_steps=1),
    )
    for part in (
        "mine  float64, 1 round of 2 steps on cpu",
        "BUSY          load average 2.5",
        "equal work    in the first step in float64",
        "NOT SHOWN     lr: it had no effect here",
        "left out      5 of the batches",
    ):
        assert part in str(report)
    unchecked = a_report(settings=Settings(check_steps=0))
    assert "NOT CHECKED" in str(unchecked) and "equal work" not in str(unchecked)
