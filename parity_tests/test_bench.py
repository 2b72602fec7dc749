"""The benchmark: what it says of times, what it refuses, and one small run from end to end."""

import json
import subprocess
import sys
import textwrap
from dataclasses import asdict, replace
from math import comb
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import optax
import pytest
import torch
from typer.testing import CliRunner

import instep
from conftest import array
from instep import bench, workloads
from instep.bench import _flops, _memory
from instep.bench._by_hand import clip
from instep.bench._contender import parse
from instep.bench._equal import Steps, UnequalWorkError, check_halves, check_steps
from instep.bench._optax import optax_of
from instep.bench._plot import picture
from instep.bench._process import environment
from instep.bench._rounds import interleave
from instep.bench._settings import WITHOUT_OPTION, Job, Settings
from instep.bench._survey import items_of, survey
from instep.bench._torch import fuse, train_step
from instep.bridge._from_torch import jax_loop_of, lowered_loss
from instep.bridge._match import match_weights
from instep.bridge._torch_loop import run_step, windows
from instep.bridge._transfer import model_arrays
from instep.cli._app import app
from instep.parity._leaf import LOSS, Leaf


SCHEMA = Path(bench.__file__).parent / "bench.schema.json"
RATIO_1 = [0.9, 1.1, 1.0, 1.2, 0.8, 1.3]
SECOND = Leaf("parameter", "fc1.weight")


# What is said of repeated times.


def test_a_band_is_the_percentiles():
    assert bench.band(range(11)) == bench.Band(1.0, 5.0, 9.0)
    assert bench.band([3.0]) == bench.Band(3.0, 3.0, 3.0)


@pytest.mark.parametrize(("n", "rank"), [(6, 1), (8, 1), (9, 2), (20, 6), (40, 14), (100, 40)])
def test_the_interval_is_the_one_of_the_sign_test(n, rank):
    """Ranks from published tables of the distribution-free interval for a median at 95 %."""
    found = bench.paired_ratio(list(range(1, n + 1)), [1.0] * n)
    assert (found.low, found.high) == (rank, n + 1 - rank)
    outside = 2 * sum(comb(n, i) for i in range(rank)) / 2**n
    assert found.confidence == pytest.approx(1 - outside) and found.confidence >= 0.95


def test_few_rounds_resolve_nothing():
    found = bench.paired_ratio([1.0, 1.1, 1.2], [2.0, 2.0, 2.0])
    assert (found.low, found.high) == (0.5, 0.6)
    assert (found.confidence, found.verdict) == (0.75, "not resolved")


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.5, "below 1"), (1.0, "not resolved"), (2.0, "above 1")]
)
def test_the_verdict_of_a_ratio(factor, verdict):
    assert bench.paired_ratio([factor * x for x in RATIO_1], [1.0] * 6).verdict == verdict


def test_ratios_are_taken_within_the_round():
    """The machine slows down tenfold in half of the rounds; the ratio does not see it."""
    rng = np.random.default_rng(0)
    slow = np.where(np.arange(20) % 2, 10.0, 1.0)
    ours, theirs = slow * rng.normal(0.8, 0.01, 20), slow * rng.normal(1.0, 0.01, 20)
    found = bench.paired_ratio(list(ours), list(theirs))
    assert 0.77 < found.low < 0.8 < found.high < 0.83


def test_the_interval_holds_the_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [
        bench.paired_ratio(list(np.exp(rng.normal(0, 1, 20))), [1.0] * 20) for _ in range(800)
    ]
    held = np.mean([r.low <= 1.0 <= r.high for r in found])
    three_sigma = 3 * np.sqrt(0.05 * 0.95 / 800)
    assert held > found[0].confidence - three_sigma


def test_unpaired_times_are_refused():
    with pytest.raises(ValueError, match="from the same rounds; got 1 and 2"):
        bench.paired_ratio([1.0], [1.0, 2.0])


# Rounds.


class FakeWorker:
    """Takes ``seconds`` a step, and writes down who computes when."""

    def __init__(self, name, seconds, log):
        self.name, self.seconds, self.log = name, seconds, log

    def ask(self, steps):
        self.log.append((self.name, steps))
        return {"seconds": steps * self.seconds, "handed_over": 0.0}


def test_rounds_are_interleaved_in_changing_order_with_the_same_number_of_steps():
    log = []
    workers = {name: FakeWorker(name, s, log) for name, s in (("a", 0.01), ("b", 0.04))}
    rounds = interleave(workers, Settings(rounds=8, warm_up=1, pause=0.0))
    assert rounds.steps == 20  # 0.2 s of the faster
    blocks = [name for name, steps in log if steps == 20][-16:]
    pairs = [tuple(blocks[i : i + 2]) for i in range(0, 16, 2)]
    assert set(pairs) == {("a", "b"), ("b", "a")}
    assert rounds.seconds["a"] == pytest.approx([0.01] * 8)


# Requests.


def test_contenders_are_named():
    assert parse(["jax-plain", " torch-eager", "jax-plain"]) == [
        "instep",
        "jax-plain",
        "torch-eager",
    ]
    assert parse(["torch-compile:reduce-overhead"])[1] == "torch-compile:reduce-overhead"
    for wrong in ("jax-plan", "flax:fast"):
        with pytest.raises(instep._errors.RequestError, match=f"no contender '{wrong}'"):
            parse([wrong])


@pytest.mark.parametrize(
    "wrong",
    [{"rounds": 0}, {"device": "tpu"}, {"peak_tflops": 0.0}, {"matmul_precision": "low"}],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError):
        Settings(**wrong)


def test_the_options_ask_for_the_same_settings(monkeypatch):
    asked = []
    monkeypatch.setattr("instep.cli._bench.run", lambda *given: asked.append(given[2]))
    others = Settings(
        rounds=3, steps=2, check_steps=1, check_examples=1, seed=4, device="cpu",
        precision="bf16", matmul_precision="bfloat16", threads=1, keep_memory=True,
        peak_tflops=0.5,
    )  # fmt: skip
    same = {name for name, value in asdict(others).items() if value == asdict(Settings())[name]}
    assert same == WITHOUT_OPTION
    for settings in (Settings(), others):
        instep_bench("digits-mlp", *settings.options())
    assert asked == [Settings(), others]
    assert Settings(warm_up=0).options() is None


def test_a_worker_finds_nothing_compiled_before():
    env = environment(Job("time", "digits-mlp", ("instep",), Settings(device="cpu")), {})
    assert env["JAX_PLATFORMS"] == "cpu" and env["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] == "1"
    assert environment(Job("time", "x", ("y",), Settings()), {}).get("JAX_PLATFORMS") is None
    assert "OMP_WAIT_POLICY" not in env
    assert environment(Job("survey", "x", ("y",), Settings()), {})["OMP_WAIT_POLICY"]


# How much work it is.


def test_items_of_a_microbatch():
    assert items_of((4, 128), floating=False) == (512, "tokens")
    assert items_of((16, 1, 8, 8), floating=True) == (16, "images")
    assert items_of((16, 5), floating=True) == (16, "examples")


@pytest.mark.parametrize("accumulate", [1, 3])
def test_flops_of_linear_layers_are_those_on_paper(accumulate):
    """2 MNK forward, the same for the weights, and for the inputs of all but the first."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    loop = instep.TorchLoop(
        model,
        lambda model, x: model(x).sum(),
        torch.optim.SGD(model.parameters()),
        [torch.ones(5, 8)] * 3,
        accumulate=accumulate,
    )
    first, second = 2 * 5 * 8 * 16, 2 * 5 * 16 * 4
    window = next(windows(loop))
    assert _flops.of_torch(loop, window) == accumulate * (2 * first + 3 * second)
    assert all(p.grad is None for p in model.parameters()), "the loop was not left untouched"
    lowered = lowered_loss(loop)
    half = jax_loop_of(loop, lowered)
    microbatch = lowered.leaves(window[0])
    assert _flops.of_jax(half, jax.tree.map(array, microbatch)) == _flops.of_torch(loop, window)


PEAK_OF = [
    (Settings(precision="bf16"), "NVIDIA H200", 989.4 * 1e12),
    (Settings(), "NVIDIA H200", 66.9 * 1e12),
    (Settings(matmul_precision="tensorfloat32"), "NVIDIA H200", 494.7 * 1e12),
    (Settings(peak_tflops=2.0), "NVIDIA H200", 2e12),
    (Settings(peak_tflops=2.0), "cpu", 2e12),
    (Settings(), "cpu", None),
]


@pytest.mark.parametrize(("settings", "device", "peak"), PEAK_OF)
def test_the_peak_is_that_of_the_device_or_what_is_said(settings, device, peak):
    assert _flops.dense_peak(settings, device) == peak


def test_memory_forgets_its_peak():
    large = np.ones(1 << 25)
    del large
    if not _memory.forget_peak():
        pytest.skip("this kernel cannot begin the peak anew")
    before = _memory.peak()
    large = np.ones(1 << 24)
    assert _memory.peak() - before > 0.9 * large.nbytes
    assert before - _memory.resident() < large.nbytes


# The contenders' own pieces.


@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn", "text-lstm"])
def test_torch_contender_takes_the_steps_of_a_torch_loop(name):
    """``run_step`` is what a TorchLoop means; fused kernels aside, to the bit."""
    ours, meant = (workloads.get(name).make_pair().torch for _ in range(2))
    step, stream = train_step(ours, ours.model), windows(meant)
    for n in range(3):
        window = next(stream)
        assert float(step(n, window)) == pytest.approx(float(run_step(meant, window, n + 1)))
    for a, b in zip(model_arrays(ours).items(), model_arrays(meant).items(), strict=True):
        np.testing.assert_array_equal(a[1], b[1], err_msg=a[0])


def test_fuse_only_what_pytorch_can():
    p = [torch.nn.Parameter(torch.ones(2))]
    adam = torch.optim.AdamW(p)
    assert fuse(adam) and adam.param_groups[0]["fused"]
    assert not fuse(torch.optim.RMSprop(p))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"amsgrad": True}, "optax has none with amsgrad"),
        ({"maximize": True}, "optax has none with maximize"),
    ],
)
def test_what_optax_lacks_is_said(change, why):
    pair = workloads.get("digits-mlp").make_pair()
    pair.torch.optimizer.param_groups[0].update(change)
    weights = match_weights(pair.weights, pair.torch.model, pair.jax.params)
    assert optax_of(pair.torch, weights) == (None, why)


def test_a_cycled_momentum_has_no_optax():
    pair = workloads.get("digits-vit").make_pair()
    weights = match_weights("auto", pair.torch.model, pair.jax.params)
    tx, why = optax_of(pair.torch, weights)
    assert tx is None and "betas" in why


def test_clipping_by_hand_is_pytorchs():
    loop = SimpleNamespace(clip_grad_norm=1.0, clip_grad_value=0.3)
    tx, grads = clip(loop), [jnp.array([3.0, -4.0])]
    p = torch.nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([3.0, -4.0])
    torch.nn.utils.clip_grad_norm_([p], 1.0)
    torch.nn.utils.clip_grad_value_([p], 0.3)
    found, _ = tx.update(grads, tx.init(grads), None)
    np.testing.assert_allclose(found[0], p.grad.numpy(), rtol=np.finfo(np.float32).eps)


# Equal work.


def steps_of(*losses, floors=()):
    seen = [{SECOND: np.array([1.0, 2.0])}]
    seen += [{LOSS: np.float64(x), SECOND: np.array([1.0 - x, 2.0])} for x in losses]
    return Steps(seen, list(floors) or [{} for _ in seen])


def test_equal_steps_are_counted():
    assert check_steps("jax-plain", steps_of(0.5, 0.4), steps_of(0.5, 0.4).seen) == 5


def test_the_first_divergence_is_named():
    with pytest.raises(UnequalWorkError, match="at step 2 the loss is off by 5.0e-03 of its"):
        check_steps("jax-plain", steps_of(0.5, 0.4), steps_of(0.5, 0.4025).seen)


def test_other_weights_are_told_from_other_steps():
    found = steps_of(0.5).seen
    found[0][SECOND] = np.array([1.0, 2.5])
    with pytest.raises(UnequalWorkError, match="before the first step .* seed what it draws"):
        check_steps("jax-plain", steps_of(0.5), found)


def test_what_is_not_shown_or_not_finite_is_refused():
    found = steps_of(0.5).seen
    del found[1][SECOND]
    with pytest.raises(UnequalWorkError, match="does not show the parameter fc1.weight at"):
        check_steps("flax", steps_of(0.5), found)
    with pytest.raises(UnequalWorkError, match="loss is not finite at step 1"):
        check_steps("flax", steps_of(np.nan), steps_of(np.nan).seen)


def test_rounding_is_allowed_what_it_explains():
    floors = [{}, {LOSS: 1e-3, SECOND: 1e-3}]
    assert check_steps("x", steps_of(0.5, floors=floors), steps_of(0.5 + 5e-3).seen) == 1
    with pytest.raises(UnequalWorkError):
        check_steps("x", steps_of(0.5, floors=[{}, {LOSS: 1e-9}]), steps_of(0.5 + 5e-3).seen)


def test_halves_that_are_not_in_step_are_refused_with_the_cause():
    parity = {
        "in_step": False,
        "reason": "The update of fc1.weight diverges.",
        "told": [["where", "step 1, stage optimizer"], ["why", "the learning rate"]],
        "steps": 3,
    }
    with pytest.raises(UnequalWorkError) as refused:
        check_halves("mine.py:pair", parity)
    for part in ("mine.py:pair is not timed", "where", "why", "instep parity mine.py:pair"):
        assert part in str(refused.value)


ALL = tuple(bench.CONTENDERS)
TORCH_ALONE = """
    import torch
    import instep

    def loop():
        nn = torch.nn
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(DRAWN), nn.ReLU())
        groups = [{"params": [p], "weight_decay": 0.1 * p.ndim} for p in model.parameters()]
        optimizer = torch.optim.Adam(groups, lr=0.1)
        return instep.TorchLoop(
            model,
            lambda model, x: model(x).square().mean(),
            optimizer,
            torch.utils.data.DataLoader(torch.randn(64, 3), batch_size=8, shuffle=True),
            scheduler=torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
            accumulate=2,
        )
    """


@pytest.fixture
def no_parity(monkeypatch):
    """The halves are in step, as other tests show: what is looked at here is the contenders."""
    monkeypatch.setattr("instep.bench._survey._parity", lambda problem: {"in_step": True})


def judged(target, contenders=ALL, **settings):
    settings = Settings(check_steps=2, **settings)
    return survey(Job("survey", str(target), contenders, settings), lambda text: None)["judged"]


def test_every_contender_does_the_work_of_a_workload(no_parity):
    """With convolutions, buffers, a schedule, clipping and accumulation."""
    found = judged("digits-cnn", check_examples=4)
    assert found.keys() == set(ALL) and min(found.values()) >= 2 * (1 + 8)


def test_every_contender_does_the_work_of_a_lowered_loop(no_parity, tmp_path):
    """Two groups, a shuffled loader, and a dropout that drops nothing."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(TORCH_ALONE.replace("DRAWN", "0.0")))
    contenders = tuple(name for name in ALL if name != "flax")
    assert min(judged(f"{tmp_path}/mine.py:loop", contenders).values()) == 3 * 2 + 2
    with pytest.raises(bench.BenchError, match="flax cannot run this TARGET: it has no Flax"):
        judged(f"{tmp_path}/mine.py:loop", ("instep", "flax"))


def test_a_model_that_draws_is_refused(no_parity, tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(TORCH_ALONE.replace("DRAWN", "0.5")))
    with pytest.raises(UnequalWorkError, match="as with dropout, cannot be compared"):
        judged(f"{tmp_path}/mine.py:loop", ("instep",))


def no_decay(group):
    return optax.identity()


def forgets_one(loop, model, graphed=False):
    """The step of a loop that leaves the last microbatch out."""
    right = train_step(loop, model)
    return lambda n, window: right(n, window[:-1] if len(window) > 1 else window)


@pytest.mark.parametrize(
    ("target", "contender", "place", "mistake", "where"),
    [
        ("digits-mlp", "jax-plain", "_optax._decayed", no_decay, "parameter fc1.bias"),
        ("digits-cnn", "jax-plain", "_by_hand.CLIP_EPS", 0.0, "parameter bn1.bias"),
        ("digits-cnn", "torch-eager", "_torch.train_step", forgets_one, "the loss is off"),
    ],
)
def test_a_contender_that_does_other_work_is_refused(
    target, contender, place, mistake, where, no_parity, monkeypatch
):
    monkeypatch.setattr(f"instep.bench.{place}", mistake)
    with pytest.raises(UnequalWorkError, match=f"^{contender} is not timed") as refused:
        judged(target, ("instep", contender), check_examples=4)
    assert "at step 1" in str(refused.value) and where in str(refused.value)


# From end to end: processes of their own, so as few as show it.


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


JAX_ALONE = """
    import jax.numpy as jnp
    import numpy as np
    import instep

    def loss_fn(params, batch):
        return instep.losses.mse_loss(batch[0] @ params["w"], batch[1])

    def loop():
        x = np.random.default_rng(0).standard_normal((2, 8, 3)).astype("float32")
        batches = [(x, x[..., 0])] * 4
        return instep.JaxLoop(
            loss_fn, instep.optim.sgd(0.1), {"w": jnp.ones(3)}, batches=batches, accumulate=2
        )
    """
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
    (tmp_path / "mine.py").write_text(textwrap.dedent(JAX_ALONE))
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    source = str(Path(instep.__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{source}")
    command = ["bench", f"{tmp_path}/mine.py:loop", "--against", "jax-plain,multisteps"]
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


def test_the_picture_names_what_was_measured():
    one = bench.Measured(
        "instep", "", "cpu", {}, bench.band([0.01]), bench.band([0.0]), None, 0.0, 0.0, 0.0,
        {}, bench.Memory(None, 5, 3, 9, True), (1.0,), 1, (0.01,),
    )  # fmt: skip
    other = replace(one, name="a < b", ratio=bench.paired_ratio([1.0] * 6, [2.0] * 6))
    report = bench.BenchReport(
        "mine", Settings(), 2, {"items": 3, "unit": "images", "flops": None}, None, None,
        (one, other), {"processor": "P & Q", "usable_cores": 2}, {"jax": "1"}, None,
        "2026-01-01", (0.0, 0.0), 1.0,
    )  # fmt: skip
    drawn = picture(report)
    assert "a &lt; b" in drawn and "P &amp; Q" in drawn and ">0.50<" in drawn
    assert one.memory.used == 2 and report.items_per_second(one) == pytest.approx(300)
