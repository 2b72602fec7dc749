"""What the README shows runs, and does what the README says."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn.utils import clip_grad_norm_
from typer.testing import CliRunner

import instep
from conftest import assert_bitwise, assert_in_step
from instep.cli._app import app
from loops import linear_mean


sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import causes_page
import claims_page


README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
SNIPPET, TORCH_STEP, INSTEP_STEP, NNX, BRING, PREDICT, MY_LOOP, ASSERTION, *_ = BLOCKS
OFFLINE, RECIPE, HANDOVER, MIXED, SURVIVES, SAVED, MESH, LOSSES, WEIGHTS = BLOCKS[8:]


def test_snippet_runs_and_learns():
    names = {}
    exec(SNIPPET, names)
    assert float(names["metrics"].loss) < 0.5 < np.log(10)
    lines = [line for line in SNIPPET.splitlines() if line.strip()]
    assert len(lines) <= 17  # fifteen, and the two that make data


def test_the_two_columns_take_the_same_step(x64):
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    start = {n: p.detach().numpy().copy() for n, p in model.named_parameters()}
    tx = instep.optim.adam(lr=instep.schedules.cosine_annealing_lr(0.1, 10))
    window = [(torch.randn(4, 5), torch.randint(3, (4,))) for _ in range(3)]
    theirs = {
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
        "model": model,
        "window": window,
        "clip_grad_norm_": clip_grad_norm_,
        "loss_fn": lambda model, batch: torch.nn.functional.cross_entropy(
            model(batch[0]), batch[1]
        ),
    }

    def loss_fn(params, batch):
        x, y = batch
        return instep.losses.cross_entropy(x @ params["weight"].T + params["bias"][None], y)

    ours = {
        "instep": instep,
        "dataclasses": dataclasses,
        "tx": tx,
        "loss_fn": loss_fn,
        "state": instep.init_state(start, tx),
        "window": [tuple(t.numpy() for t in microbatch) for microbatch in window],
    }
    for _ in range(3):
        exec(TORCH_STEP, theirs)
        exec(INSTEP_STEP, ours)
        for name, p in model.named_parameters():
            assert_in_step(p, ours["state"].params[name], name)
    assert not np.allclose(start["weight"], ours["state"].params["weight"])


def test_my_loop_is_out_of_step_as_shown_and_in_step_when_mended(tmp_path):
    path, page = tmp_path / "my_loop.py", tmp_path / "report.html"
    command = ["parity", f"{path}:pair", "--report", str(page)]
    zero = "    for i in 0, 2:\n        torch.nn.init.zeros_(model[i].bias)\n    loop = instep"
    begun_at_zero = MY_LOOP.replace("    loop = instep", zero)
    optax_adamw = "adamw(1e-2, weight_decay=1e-2)"
    for text, code, verdict in (
        (MY_LOOP, 1, "NOT IN STEP. The optimizer stage is the first to diverge, at step 1"),
        (MY_LOOP.replace("adamw(1e-2)", optax_adamw), 0, ": IN STEP."),
        (
            begun_at_zero.replace("adamw(1e-2)", optax_adamw),
            1,
            "NOT IN STEP. float32 re-synchronised: the optimizer stage is the first to "
            "diverge, at step 1: update of 0.bias",
        ),
        (begun_at_zero.replace("optax.adamw", "instep.optim.adamw"), 0, ": IN STEP."),
    ):
        path.write_text(text)
        page.unlink(missing_ok=True)
        done = CliRunner().invoke(app, command)
        assert done.exit_code == code, done.output
        assert verdict in " ".join(done.output.split())
        assert verdict.split(".")[0].strip(": ") in page.read_text()
        if "float32" in verdict:
            ratio = re.search(r"([\d.]+) times the bound", " ".join(done.output.split()))
            assert round(float(ratio[1])) == 4, "as it says; processors round differently"
    path.write_text(MY_LOOP)
    printed = " ".join(CliRunner().invoke(app, command).output.split())
    shown = re.search(
        r"^my_loop.py:pair: NOT IN STEP.*\n  where.*\n  why.*\n  fix.*$", README, re.M
    ).group()
    for sentence in shown.splitlines():
        assert " ".join(sentence.split()) in printed


def test_the_page_of_causes_is_the_catalogue():
    assert causes_page.PAGE.read_text() == causes_page.page()
    assert f"{len(causes_page.CATALOGUE)} known\nmistakes](docs/causes.md)" in README


def test_from_nothing_to_a_page_in_five_commands():
    (block,) = re.findall(r"```console\n(\$ python3 -m venv.*?)```", README, re.S)
    commands = [line for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) <= 5 and "--report report.html" in commands[2]


def test_the_assertion_fails_in_25_lines():
    names = {"instep": instep}
    exec(MY_LOOP, names)
    with pytest.raises(AssertionError, match="NOT IN STEP: the optimizer stage") as raised:
        exec(ASSERTION, names)
    assert len(str(raised.value).splitlines()) <= 25


def test_a_recording_judges_as_the_loop_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"instep": instep}
    exec(MY_LOOP, names)
    exec(OFFLINE, names, made := {})
    assert made["report"].first_divergence.stage == "optimizer"


def test_the_recipe_runs_without_a_second_trace():
    params = {"weight": np.ones((3, 2), np.float32), "bias": np.ones(2, np.float32)}
    names = {"instep": instep, "params": params, "dataclasses": dataclasses}
    exec(RECIPE, names)
    step = instep.make_train_step(
        lambda p, x: ((x @ p["weight"] + p["bias"]) ** 2).mean(), names["tx"]
    )
    state = names["state"]
    for _ in range(2):
        state, metrics = step(state, np.ones((4, 3), np.float32))
    assert step._cache_size() == 1 and not metrics.skipped
    first, second = (instep.optim.hyperparams(state.opt_state, group=i) for i in range(2))
    assert float(second["lr"]) == np.float32(3e-4) and float(first["beta1"]) < 0.95


def test_the_handover_runs():
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    names = {"bridge": instep.bridge, "model": model}
    exec(HANDOVER, names | {"optimizer": optimizer, "scheduler": scheduler})


def squared(params, batch):
    return ((batch @ params["weight"]) ** 2).mean()


def test_mixed_precision_as_shown():
    names = {"dataclasses": dataclasses, "torch": torch, "instep": instep}
    exec(MIXED, names | {"loop": linear_mean}, made := {})
    state, metrics = made["train_step"](made["state"], np.ones((2, 3), np.float32))
    assert bool(metrics.skipped)  # 2**16 is beyond float16, and the first scale
    assert float(state.scaler.scale) == 2.0**15


def test_a_run_survives_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batches = [np.random.default_rng(i).normal(size=(8, 16)).astype("f") for i in range(3)]
    loop = instep.JaxLoop(squared, instep.optim.adam(1e-3), {"weight": np.ones((16, 4), "f")})
    shown = SURVIVES.replace("10_000", "7").replace("500", "3")
    names = {"instep": instep, "loop": dataclasses.replace(loop, batches=batches)}
    exec(shown, names)
    assert int(names["state"].step) == 7
    exec(shown.replace("7", "9"), names)  # goes on from there
    assert int(names["state"].step) == 9
    saved = names["state"]
    exec(SAVED, names)
    assert names["state"] is not saved and names["position"] == 3
    assert_bitwise(names["state"], saved)


def test_train_takes_a_jax_loop_alone():
    with pytest.raises(TypeError, match="got TorchLoop. A TorchLoop goes through"):
        instep.train(linear_mean(), 1)


def test_a_training_is_started_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (shown,) = re.findall(r"^\$ instep (train .*)$", README, re.M)
    command = shown.replace("--validate-every 200", "--validate-every 4 --steps 4").split()
    assert len(command) == 8
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines[1:]] == [1, 2, 3, 4]
    assert "test accuracy" in lines[4]["validation"]


def test_many_devices_as_shown():
    params = {"weight": np.ones((64, 64), np.float32)}
    names = {"jax": jax, "instep": instep, "loss_fn": squared, "params": params}
    exec(MESH.replace("(8,)", "(1,)"), names | {"tx": instep.optim.adam(1e-3)}, made := {})
    _, metrics = made["train_step"](made["state"], np.ones((4, 8, 64), np.float32))
    assert np.isfinite(metrics.loss)


def test_a_loop_is_brought_as_shown(tmp_path):
    names = {"__name__": "__main__"}
    exec(BRING, names)
    assert int(names["state"].step) == 4 and np.isfinite(names["metrics"].loss)
    stepped = names["mine"].optimizer.state[names["mine"].model[0].weight]["step"]
    assert int(stepped) == 4

    (tmp_path / "bring.py").write_text(BRING)
    done = CliRunner().invoke(app, ["parity", f"{tmp_path}/bring.py:loop", "--steps", "3"])
    assert done.exit_code == 0, done.output


def test_it_is_evaluated_as_shown():
    names = {"__name__": "__main__"}
    exec(BRING, names)
    x = torch.randn(4, 1, 8, 8)
    exec(PREDICT, names | {"x": x, "images": np.concatenate([x, x])}, made := {})
    with torch.no_grad():
        right = names["mine"].model.eval()(x)
    np.testing.assert_allclose(made["logits"], np.concatenate([right, right]), atol=1e-6)


def test_a_module_of_flax_is_trained_as_shown():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(3, rngs=rngs)
            self.head = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x):
            return self.head(self.norm(x))

    net = Net(nnx.Rngs(0))
    before = jax.tree.map(np.array, nnx.state(net))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("f")
    names = {"nnx": nnx, "net": net, "instep": instep, "tx": instep.optim.adam(1e-2)}
    exec(NNX, names | {"batches": [(x, (x[:, 0] > 0).astype(int))] * 3})
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, nnx.state(net))
    assert all(jax.tree.leaves(moved))


def test_the_losses_accumulate_over_ragged_microbatches(x64):
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(9, 4)), rng.integers(0, 3, 9), rng.normal(size=(4, 3))
    weight = torch.tensor(w, requires_grad=True)
    logits = torch.tensor(x) @ weight
    torch.nn.functional.cross_entropy(logits, torch.tensor(y), ignore_index=0).backward()

    names = {}
    exec(LOSSES, names)
    acc = instep.zero_grad({"weight": w})
    for at in np.split(np.arange(9), [2, 3]):
        microbatch = {"features": x[at], "labels": y[at]}
        acc, _ = instep.backward(names["loss_fn"], acc, {"weight": w}, None, microbatch)
    assert_in_step(weight.grad, instep.mean(acc).grads["weight"])


def test_weights_cross_as_shown(capsys):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    params = {"0": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}}
    params["1"] = {"scale": np.zeros(3), "bias": np.zeros(3)}
    buffers = {"1": {"mean": np.zeros(3), "var": np.zeros(3)}}
    names = {"bridge": instep.bridge, "model": model, "params": params, "buffers": buffers}
    exec(WEIGHTS, names)
    printed = capsys.readouterr().out
    assert "0.weight (3, 2)" in printed and "(out, in) -> (in, out)" in printed
    weight = model[0].weight.detach().numpy()
    np.testing.assert_array_equal(names["params"]["0"]["kernel"], weight.T)
    np.testing.assert_array_equal(names["state_dict"]["0.weight"], weight)


def test_the_false_alarms_are_those_of_the_kept_results():
    path = re.search(r"benchmarks/results/tolerance\w+-\d+-\d+\.json", README).group()
    clean = json.loads((Path(__file__).parent.parent / path).read_text())["clean"]
    assert all(runs["seeds"] >= 20 and not runs["false_alarms"] for runs in clean.values())
    worst = claims_page.worst_ratios(clean)
    double, single, half = (f"{ratio:.2f}" for ratio in worst)
    assert f"the largest error over its bound was {double}, {single} and {half}" in README
    assert max(worst) <= 1.0


def test_version_table_names_what_is_installed():
    from importlib.metadata import version

    for package in ("jax", "optax", "torch", "flax"):
        assert f"{package} {version(package).split('+')[0]}" in README
    assert jax.__version__ == version("jax")
