"""``instep train``: what it runs, what it writes, what it says, and how it ends."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import instep
from conftest import assert_bitwise, assert_in_step
from instep import progress
from instep._loop import initial_state, train_step
from instep.checkpoint import Checkpointer
from instep.cli._app import app
from instep.cli._loops import trainable
from instep.progress import _compile, _display
from instep.progress._record import Record, amount
from pairs import linear_pair
from test_imports import BLOCK


MINE = """
    import math
    import jax
    import jax.numpy as jnp
    import numpy as np
    import instep

    def data(n=5):
        rng = np.random.default_rng(0)
        return [(rng.normal(size=(4, 3)).astype("f"), rng.normal(size=4).astype("f"))
                for _ in range(n)]

    def loss_fn(params, batch):
        return jnp.mean((batch[0] @ params["w"] - batch[1]) ** 2)

    def loop(batches=None, **options):
        lr = instep.schedules.cosine_annealing_lr(0.1, 40)
        return instep.JaxLoop(loss_fn, instep.optim.adam(lr), {"w": np.ones(3, "f")},
                              batches=batches or data(), **options)

    def short():
        batches = instep.data.windows(data(5), 2, drop_last=False)
        return loop(batches, accumulate=2, drop_last=False)

    def bad():
        batches = data(20)
        batches[8][0][0, 0] = math.nan
        return loop(batches)

    def meshed():
        return loop(mesh=jax.make_mesh((1,), ("data",)), accumulate=2, batches=[
            jax.tree.map(lambda x: np.stack([x, x]), b) for b in data()])

    def scaled():
        return loop(scaler=instep.GradScaler(4.0))

    def no_batches():
        return instep.JaxLoop(loss_fn, instep.optim.sgd(0.1), {"w": np.ones(3, "f")})

    def number():
        return 42
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(textwrap.dedent(MINE))
    return tmp_path


def train(*args, target="mine.py:loop", code=0):
    done = CliRunner().invoke(app, ["train", target, *map(str, args)])
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


def mine(name="loop"):
    from instep.workloads._target import resolve

    return resolve(f"mine.py:{name}")


def lines(path):
    header, *steps = map(json.loads, Path(path).read_text().splitlines())
    return header, steps


def saved(loop, folder, ema=None):
    with Checkpointer(folder) as checkpointer:
        return checkpointer.restore(progress.seen_state(loop, ema))[0]


# The training is that of instep.train, and every step is in the file.


def test_it_is_instep_train_and_every_step_is_written():
    said = train("--steps", 12, "--checkpoint-dir", "run")
    seen = []
    state = instep.train(mine(), 12, on_step=lambda n, metrics: seen.append(metrics))
    assert_bitwise(saved(mine(), "run"), state)
    header, steps = lines("run/metrics.jsonl")
    assert header["target"] == "mine.py:loop" and header["starts"] == [0]
    assert header["environment"]["jax"] == jax.__version__ and header["devices"] == 1
    assert [s["step"] for s in steps] == list(range(1, 13))
    assert [s["loss"] for s in steps] == [float(m.loss) for m in seen]
    assert [s["lr"] for s in steps[:2]] == [0.1, pytest.approx(0.099846, rel=1e-4)]
    assert all(s["grad_norm"] > 0 and s["seconds"] > 0 for s in steps)
    assert "skipped" not in steps[0]
    assert "step 12 of 12 in 0:" in said and "compiled in" in said
    assert "checkpoint" in said and "run/12" in said


def test_it_goes_on_and_a_step_that_is_done_again_replaces_what_was_there():
    train("--steps", 12, "--checkpoint-dir", "whole")
    train("--steps", 7, "--checkpoint-dir", "run")
    file = Path("run/metrics.jsonl")
    dead = [json.dumps({"step": n, "loss": 999.0}) for n in (8, 9)]
    with file.open("a") as f:  # a process that died at step 10
        f.write("\n".join([*dead, '{"step": 10, "lo']))
    said = train("--steps", 12, "--checkpoint-dir", "run")
    assert "step 12 of 12 (from 7)" in said
    header, steps = lines(file)
    assert header["starts"] == [0, 7]
    assert_bitwise(saved(mine(), "run"), saved(mine(), "whole"))
    wanted = lines("whole/metrics.jsonl")[1]
    assert [(s["step"], s["loss"]) for s in steps] == [(s["step"], s["loss"]) for s in wanted]
    assert "nothing to do" in train("--steps", 12, "--checkpoint-dir", "run")
    assert lines(file) == (header, steps)


def test_a_loop_on_a_mesh_is_compiled_once_and_goes_on(caplog):
    with jax.log_compiles():
        train("--steps", 4, "--checkpoint-dir", "run", target="mine.py:meshed")
    done = "XLA compilation of jit(constrained)"
    assert len([r for r in caplog.records if done in r.getMessage()]) == 1
    train("--steps", 9, "--checkpoint-dir", "run", target="mine.py:meshed")
    with Checkpointer("plain") as checkpointer:
        for steps in (5, 9):
            state = instep.train(mine("meshed"), steps, checkpointer=checkpointer)
    assert_bitwise(saved(mine("meshed"), "run"), state)
    assert isinstance(state.params["w"].sharding, jax.sharding.NamedSharding)


def test_a_run_from_0_keeps_the_file_of_the_run_before():
    train("--steps", 3)
    train("--steps", 2)
    said = train("--steps", 1)
    counts = [len(lines(f"mine.py-loop{x}.jsonl")[1]) for x in (".1", ".2", "")]
    assert counts == [3, 2, 1] and "mine.py-loop.2.jsonl" in said


def test_an_average_is_taken_saved_and_goes_on():
    for steps in (4, 9):
        train("--steps", steps, "--checkpoint-dir", "run", "--ema", 0.8)
    state, step = initial_state(mine()), train_step(mine())
    average = instep.optim.averaged_model(state.params)
    take = jax.jit(
        lambda a, p: instep.optim.update_parameters(a, p, None, instep.optim.ema_avg_fn(0.8))
    )
    for batch in islice(cycle(mine().batches), 9):
        state, _ = step(state, batch)
        average = take(average, state.params)
    found = saved(mine(), "run", 0.8)
    assert_bitwise((found.params, found.opt_state), (state.params, state.opt_state))
    assert_bitwise(progress.evaluated(found)[0], average.params)
    assert not np.array_equal(average.params["w"], state.params["w"])


def test_a_scaler_a_profile_and_tensorboard():
    said = train(
        "--steps", 9, "--tensorboard", "tb", "--profile", "prof", target="mine.py:scaled"
    )
    assert all(s["skipped"] is False for s in lines("mine.py-scaled.jsonl")[1])
    assert "profile of 5 steps: prof." in said and list(Path("prof").rglob("*.xplane.pb"))
    written = b"".join(p.read_bytes() for p in Path("tb").iterdir())
    for name in (b"loss", b"lr", b"grad_norm", b"skipped", b"step/seconds"):
        assert written.count(name) >= 9


@pytest.mark.parametrize("ema", [[], ["--ema", 0.5]])
def test_a_workload_is_validated(ema):
    options = ["--steps", 3, "--validate-every", 2, "--metrics", "m.jsonl", *ema]
    said = train(*options, target="digits-mlp")
    name = "test accuracy of the average" if ema else "test accuracy"
    _, steps = lines("m.jsonl")
    assert ["validation" in s for s in steps] == [False, True, True]
    assert 0 <= steps[1]["validation"][name] <= 1
    assert f"{name} {steps[2]['validation'][name]:.4g}" in said


# What PyTorch describes.


def losses(found, steps=5):
    made = trainable(found, "mine", steps)
    step, state = progress.seen_step(made.loop), progress.seen_state(made.loop)
    seen = []
    for batch in islice(made.loop.batches, steps):
        state, metrics = step(state, batch)
        seen.append(float(metrics.loss))
    return seen


def torch_losses(loop, steps=5):
    from instep.bridge._torch_loop import run_step, windows

    return [float(run_step(loop, w, n)) for n, w in enumerate(islice(windows(loop), steps), 1)]


@pytest.mark.parametrize("batches", ["list", "generators", "loader"])
@pytest.mark.parametrize("half", ["pair", "torch"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_loops_of_pytorch_train_alike(half, batches, accumulate, x64):
    pair = linear_pair()
    pair.torch.model.double()
    data = [x.double() for x in pair.torch.batches]
    made = {
        "list": data,
        "generators": lambda: (x for x in data),
        "loader": torch.utils.data.DataLoader(torch.cat(data), 8),
    }[batches]
    loop = replace(pair.torch, batches=made, accumulate=accumulate)
    params = jax.tree.map(lambda x: x.astype(jnp.float64), pair.jax.params)
    pair = replace(
        pair, torch=loop, jax=replace(pair.jax, params=params, accumulate=accumulate)
    )
    with jax.numpy_rank_promotion("allow"):  # as the loss of the pair is written
        found = losses(pair if half == "pair" else loop)
    for a, b in zip(torch_losses(loop), found, strict=True):
        assert_in_step(np.float64(a), np.float64(b))


# How it ends.


@pytest.mark.parametrize(
    ("target", "args", "message"),
    [
        ("mine.py:loop", [], "does not say how many steps. Give --steps N."),
        ("mine.py:number", ["--steps", 1], "returned a int; train takes an instep.JaxLoop"),
        ("mine.py:no_batches", ["--steps", 1], "has no batches. Give JaxLoop(batches=...)"),
        ("mine.py:loop", ["--steps", 1, "--validate-every", 1], "has no held-out data"),
        ("mine.py:loop", ["--steps", 1, "--metrics", "no/m.jsonl"], "no folder 'no' to write"),
        (
            "mine.py:loop",
            ["--steps", 1, "--metrics", "mine.py"],
            "is no metrics file of instep",
        ),
        ("digits-cn", [], "did you mean 'digits-cnn'?"),
    ],
)
def test_wrong_requests_exit_2(target, args, message):
    said = train(*args, target=target, code=2)
    assert message in said and "Traceback" not in said
    assert "import math" in Path("mine.py").read_text()


def test_no_resume_refuses_a_folder_with_checkpoints():
    train("--steps", 2, "--checkpoint-dir", "run")
    before = Path("run/metrics.jsonl").read_text()
    said = train("--steps", 4, "--checkpoint-dir", "run", "--no-resume", code=2)
    assert "has checkpoints, the last of step 2" in said and "Traceback" not in said
    assert Path("run/metrics.jsonl").read_text() == before


def test_what_is_not_finite_names_the_leaf_and_the_last_checkpoint():
    options = ["--steps", 20, "--checkpoint-dir", "run", "--save-every", 3]
    said = train(*options, "--stop-on-nan", target="mine.py:bad", code=1)
    folder = Path("run").absolute()
    assert (
        f"step 9: metrics.loss is not finite: nan. The last checkpoint is {folder / '6'}"
        in said
    )
    assert "Traceback" not in said
    last = lines("run/metrics.jsonl")[1][-1]
    assert (last["step"], last["loss"]) == (9, None)
    said = train(*options, target="mine.py:bad")  # not asked, it goes on
    assert "The loss of step 9 is not finite. --stop-on-nan stops there." in said


def test_without_pytorch_it_runs_and_sigterm_saves(here):
    code = "import instep.cli\ninstep.cli.main()"
    blocked = {"torch", "flax", "sklearn", "tensorboardX"}
    command = [sys.executable, "-c", BLOCK.format(blocked=blocked) + code]
    options = ["--steps", "100000", "--checkpoint-dir", "run", "--log-every", "1"]
    child = subprocess.Popen(
        [*command, "train", "mine.py:loop", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    for line in child.stderr:
        if line.startswith("step 5/"):
            child.send_signal(signal.SIGTERM)
            break
    said, errors = child.communicate()
    assert child.returncode == 0, errors
    assert "Stopped by SIGTERM and saved. The same command goes on from there." in said
    state = saved(mine(), "run")
    header, steps = lines("run/metrics.jsonl")
    assert 5 <= int(state.step) == steps[-1]["step"] < 100000
    assert "torch" not in header["environment"] or "torch" in sys.modules
    assert_bitwise(state, instep.train(mine(), int(state.step)))


def test_sigterm_without_a_folder_says_that_nothing_is_saved(monkeypatch):
    write = progress.MetricsFile.write

    def terminating(self, record):
        write(self, record)
        if record.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(progress.MetricsFile, "write", terminating)
    assert "nothing was saved. Give --checkpoint-dir" in train("--steps", 50, code=1)


def test_tensorboard_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    said = train("--steps", 1, "--tensorboard", "tb", code=2)
    assert "pip install 'instep[tensorboard]'" in said


# What compiling shows.


def test_it_is_compiled_once_and_says_when_again(caplog):
    with jax.log_compiles():
        said = train("--steps", 3, "--checkpoint-dir", "run")
        train("--steps", 6, "--checkpoint-dir", "run")
    compiled = [r for r in caplog.records if "XLA compilation of jit(step)" in r.getMessage()]
    assert len(compiled) == 2 and "again" not in said  # one for each process
    said = train("--steps", 6, target="mine.py:short")
    assert (
        "call 3 of the step was compiled again: batch.0 was float32[2, 4, 3] and is "
        "float32[1, 4, 3], and 1 more leaves changed. Make every leaf strongly typed"
    ) in said
    assert said.count("compiled again") == 1  # it is remembered


def test_what_does_not_fit_is_refused_before_it_runs(monkeypatch):
    limits = {"bytes_limit": 100, "bytes_in_use": 64}
    monkeypatch.setattr(_compile, "device_bytes", lambda name="bytes_in_use": limits[name])
    said = train("--steps", 3, code=2)
    assert "of memory and the device gives 100 B. Take smaller microbatches" in said
    assert "the device has 100 B" in said and "Traceback" not in said


def test_exhausted_memory_says_what_to_do(monkeypatch):
    def exhausted(self, state, batch):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."
        )

    monkeypatch.setattr(_compile.CompiledStep, "_first", exhausted)
    said = train("--steps", 3, code=2)
    assert "Out of memory allocating 9 bytes. Take smaller microbatches" in said


X, W = jnp.ones((8, 16)), jnp.ones((16, 4))
IMAGE, KERNEL = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))


def conv(x, k, stride=1):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, k, (stride, stride), "VALID", dimension_numbers=numbers
    )


def scanned(x, w):
    return jax.lax.scan(lambda c, _: (c @ w @ w.T, None), x, length=7)[0]


def looped(x, w):
    return jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ w @ w.T, x)


def branched(other):
    return lambda x, w: jax.lax.cond(x.sum() > 0, lambda: x @ w, lambda: other(x, w))


def sharded(x, w):
    mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"))
    spec, whole = jax.P("data"), jax.P()
    options = {"mesh": mesh, "in_specs": (spec, whole), "out_specs": spec}
    return jax.shard_map(jnp.matmul, axis_names={"data"}, **options)(x, w)


HIGHEST = {"precision": "highest"}
FLOPS = {
    "product": (jnp.matmul, (X, W), {"tf32": 1024}),
    "in bf16": (jnp.matmul, (X.astype("bfloat16"), W.astype("bfloat16")), {"bf16": 1024}),
    "highest": (lambda x, w: jnp.matmul(x, w, **HIGHEST), (X, W), {"fp32": 1024}),
    "batched": (jnp.matmul, (jnp.ones((3, 8, 16)), jnp.ones((3, 16, 4))), {"tf32": 3072}),
    "gradient": (jax.grad(lambda w, x: (x @ w).sum() ** 2), (W, X), {"tf32": 2048}),
    "convolution": (conv, (IMAGE, KERNEL), {"tf32": 2 * (2 * 6 * 6 * 5) * (3 * 3 * 3)}),
    "scan": (scanned, (X, W), {"tf32": 7 * 2048}),
    "shard_map": (sharded, (X, W), {"tf32": 1024}),
    "jit": (jax.jit(jnp.matmul), (X, W), {"tf32": 1024}),
    "while": (looped, (X, W), None),
    "equal branches": (branched(lambda x, w: -x @ w), (X, W), {"tf32": 1024}),
    "other branches": (branched(lambda x, w: x[:, :4]), (X, W), None),
    "none": (jnp.sin, (X,), {}),
}


@pytest.mark.parametrize("name", FLOPS)
def test_operations_are_counted(name):
    fn, args, wanted = FLOPS[name]
    assert progress.flops(jax.make_jaxpr(fn)(*args)) == wanted


@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_of_a_convolution_costs_twice_its_forward_pass(stride):
    def loss(x, k):
        return (conv(x, k, stride) ** 2).sum()

    x = jnp.ones((2, 9, 9, 3))
    forward = progress.flops(jax.make_jaxpr(conv, static_argnums=2)(x, KERNEL, stride))["tf32"]
    both = progress.flops(jax.make_jaxpr(jax.grad(loss, (0, 1)))(x, KERNEL))["tf32"]
    # The gradient of the input is a convolution over its padding too.
    assert both >= 3 * forward and both - 3 * forward <= forward * 2


def test_xla_counts_a_loop_once():
    """Why the jaxpr is counted; when this fails, cost_analysis can be."""
    counted = jax.jit(scanned).lower(X, W).compile().cost_analysis()["flops"]
    assert counted < 2 * 2048


def test_the_peak_of_a_device_that_is_not_known_is_not_guessed():
    at_peak = progress.seconds_at_peak
    assert at_peak({"bf16": 10**12}, "NVIDIA H200") == pytest.approx(1 / 989.4)
    assert at_peak({"bf16": 10**12, "tf32": 10**12}, "NVIDIA A100-SXM4-80GB", 2) == (
        pytest.approx((1 / 312 + 1 / 156) / 2)
    )
    for counted, device in [
        ({"bf16": 1}, "cpu"),
        ({"fp64": 1}, "NVIDIA H200"),
        ({"fp32": 1}, "TPU v4"),
        ({"bf16": 1}, "NVIDIA H100 NVL"),
        (None, "NVIDIA H200"),
        ({}, "NVIDIA H200"),
    ]:
        assert at_peak(counted, device) is None


# What is shown.


def test_the_terminal():
    console = Console(record=True, force_terminal=True, width=100, file=io.StringIO())
    live = progress.Live(console, "mine", 40)
    rate = _display.Rate((4096, "tokens"), 0.02)
    for _ in range(3):
        rate.take(0.05)
    live.start(0)
    live.update(Record(10, 0.1234567, (1e-3, 1e-3, 1e-4), 0.5, 0.05, True, {"acc": 0.5}), rate)
    live.close()
    said = console.export_text()
    console.print(live._render())
    shown = console.export_text().split("\n")
    first = next(line for line in shown if "━" in line and "10/40" in line)
    second = next(line for line in shown if "steps/s" in line)
    assert "step 10/40  loss 0.1235  acc 0.5" in said  # it stays
    assert first.startswith("mine ") and "0:02 left" in first
    assert second.startswith("loss 0.1235  acc 0.5  lr 0.001 0.0001  grad norm 0.5  skipped")
    assert "20 steps/s  81,920 tokens/s  MFU 40%" in second


@pytest.mark.parametrize(
    ("batch", "accumulate", "wanted"),
    [
        ((np.ones((8, 3), "f"), np.ones(8, int)), 1, (8, "examples")),
        ((np.ones((2, 8, 3), "f"), np.ones((2, 8), int)), 2, (16, "examples")),
        ((np.ones((8, 32), int), np.ones((8, 32), int)), 1, (256, "tokens")),
        ({"ids": np.ones((2, 8, 32), int)}, 2, (512, "tokens")),
        (np.ones(8, int), 1, (8, "examples")),
    ],
)
def test_the_amount_of_a_batch(batch, accumulate, wanted):
    assert amount(batch, accumulate) == wanted
