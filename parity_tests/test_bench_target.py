"""What a user's TARGET may give the benchmark, and what is said where it cannot be timed."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench_targets import jax_alone, torch_alone
from instep import bench
from instep._errors import RequestError, TargetError
from instep.bench import Settings
from instep.bench._flops import dense_peak
from instep.bench._problem import load
from instep.bench._settings import Job
from instep.bench._survey import survey
from instep.cli._app import app


# Batches.


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        (
            "[torch.randn(8, 3)] * 2, accumulate=4, drop_last=False",
            "has fewer than accumulate=4",
        ),
        ("[]", "mine.py:loop: batches yielded 0 microbatches in an epoch"),
        ("[np.ones((8, 3))]", "is a ndarray without a tensor; give tensors"),
    ],
)
def test_batches_that_cannot_be_timed(batches, says, tmp_path):
    with pytest.raises(TargetError, match=says):
        load(torch_alone(tmp_path, batches), Settings())


def test_the_shape_that_most_have_is_timed(tmp_path):
    target = torch_alone(tmp_path, "[torch.randn(n, 3) for n in (1, 8, 8, 8, 8)]")
    problem = load(target, Settings(batches=4))
    assert [window[0].shape for window in problem.windows()] == 4 * [(8, 3)]
    assert problem.left_out == 1
    assert load(torch_alone(tmp_path, "[torch.randn(8, 3)]"), Settings()).left_out == 0


def test_bytes_of_the_torch_half(tmp_path):
    """A matrix, a vector and every window, once."""
    problem = load(torch_alone(tmp_path, "[torch.randn(8, 3)]"), Settings(batches=5))
    assert problem.torch_bytes() == 4 * (3 * 4 + 4 + 5 * 8 * 3)


def test_examples_of_a_jax_loop(tmp_path):
    settings = Settings(check_steps=2, check_examples=3)
    target = jax_alone(tmp_path)
    (x, y), *_ = load(target, settings, double=True).jax_batches()
    assert (x.shape, y.shape) == ((2, 3, 3), (2, 3))
    (x, y), *_ = load(target, settings).jax_batches()
    assert (x.shape, y.shape) == ((2, 8, 3), (2, 8))


def test_a_jax_loop_without_a_batch(tmp_path):
    with pytest.raises(
        TargetError, match="returned a JaxLoop whose batches are empty, or used"
    ):
        load(jax_alone(tmp_path, count=0), Settings())


# The loss, and what it is computed in.


def work_of(target):
    settings = Settings(check_steps=0)
    return survey(Job("survey", target, ("instep",), settings), lambda text: None)["work"]


@pytest.mark.parametrize(
    ("loss", "returned"),
    [
        ("(model(x).mean(), 1)", "a tuple of 2"),
        ("model(x).mean().item()", "a number, which has no gradient"),
        ("model(x)", r"a tensor of shape \(8, 4\)"),
    ],
)
def test_a_loss_that_is_none(loss, returned, tmp_path):
    target = torch_alone(tmp_path, "[torch.randn(8, 3)]", loss)
    with pytest.raises(
        TargetError, match=f"must return a scalar tensor; it returned {returned}"
    ):
        work_of(target)


def test_the_dtype_is_that_of_the_parameters(tmp_path):
    target = torch_alone(
        tmp_path, "[torch.randn(8, 3).double()]", model="Linear(3, 4).double()"
    )
    assert work_of(target)["dtype"] == "float64"
    assert work_of(jax_alone(tmp_path))["dtype"] == "float32"
    peaks = [dense_peak(Settings(), "NVIDIA H200", x) for x in ("float64", "bfloat16")]
    assert peaks == [None, 989.4 * 1e12]


def test_a_precision_is_not_asked_of_an_own_target(tmp_path):
    with pytest.raises(TargetError, match="precision='bf16' is for a built-in workload"):
        load(jax_alone(tmp_path), Settings(precision="bf16"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["mine.py"], "which callable of mine.py"),
        ([":loop"], "':loop' names no callable"),
        (["digits-mlp", "--json", "."], "'.' is a folder; name a file in it"),
        (["digits-mlp", "--plot", "x.png"], "call it x.svg, not x.png"),
        (["digits-mlp", "--device", "tpu"], "device is one of"),
        (["digits-mlp", "--seed", "-1"], "seed must be at least 0"),
        (["digits-mlp", "--peak-tflops", "inf"], "peak_tflops must be above 0; got inf"),
    ],
)
def test_requests_that_are_wrong(options, says):
    done = CliRunner().invoke(app, ["bench", *options, "--rounds", "1", "--check-steps", "0"])
    assert done.exit_code == 2
    assert says in " ".join(done.output.split())


# In a process of its own.


def test_a_loss_that_is_not_finite_is_not_timed(tmp_path):
    target = torch_alone(tmp_path, "[torch.randn(8, 3)]", "model(x).mean() * 1e38 * 1e38")
    with pytest.raises(RequestError, match="instep is not timed: the losses .* are not finite"):
        bench.run(target, (), Settings(rounds=1, steps=1, check_steps=0, device="cpu"))


def test_a_target_that_asks_its_user(tmp_path):
    target = torch_alone(tmp_path, "[torch.randn(8, 3)]", model="Linear(3, int(input()))")
    with pytest.raises(RequestError, match="mine.py:loop raised when called: EOFError"):
        bench.run(target, (), Settings(rounds=1, steps=1, check_steps=0, device="cpu"))


PARENT = """
    import sys
    from instep.bench._process import Worker
    from instep.bench._settings import Job, Settings

    worker = Worker(Job("survey", sys.argv[1], ("instep",), Settings()))
    print(worker._process.pid, flush=True)
    worker.answer(print)
    """


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process hears of its parent")
def test_a_worker_ends_with_its_parent(tmp_path):
    """Which is killed while TARGET sleeps."""
    reached = tmp_path / "reached"
    model = f"Linear(3, open({str(reached)!r}, 'w').close() or time.sleep(600))"
    target = torch_alone(tmp_path, "[torch.randn(8, 3)]", model=model)
    command = [sys.executable, "-c", textwrap.dedent(PARENT), target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = Path("/proc") / parent.stdout.readline().strip()
        assert within(60, reached.exists)
        parent.kill()
    assert within(10, lambda: has_ended(worker))


def has_ended(process):
    """Whether it is gone, or nobody has asked yet how it ended."""
    try:
        return ") Z " in (process / "stat").read_text()
    except OSError:
        return True


def within(seconds, condition):
    """Whether it comes true in that time."""
    end = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return true
