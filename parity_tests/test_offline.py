"""A recorded PyTorch half judges as the running one does, and without PyTorch."""

import hashlib
import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import torch
from torch import nn
from typer.testing import CliRunner

import instep
from instep import bridge, parity
from instep.cli._app import app
from instep.parity import Leaf
from instep.parity._judge import Floor
from instep.parity._recording import read_manifest, read_step
from instep.parity._step_file import Recorded, read_step_file, write_step
from instep.workloads import digits_cnn, digits_mlp
from pairs import linear_pair
from teeth import TEETH, decay_coupled_instead_of_decoupled


def recorded(pair, folder, steps=3, precisions=None):
    parity.record(pair.torch, folder, steps, precisions, batch=pair.batch)
    return folder


def offline(pair, folder, steps=3, precisions=None):
    """The report of ``parity.run(pair)``, by way of a folder."""
    return parity.compare(recorded(pair, folder, steps, precisions), pair.jax, pair.weights)


def measured(report):
    """Every number of every leaf at every step of every walk."""
    return {
        (walk.plan, row.leaf): row.measurements for walk in report.walks for row in walk.rows
    }


def assert_same(there, here):
    """Two reports with the same numbers, bit for bit."""
    assert measured(there) == measured(here)
    assert (there.verdict, there.reason) == (here.verdict, here.reason)
    assert there.first_divergence == here.first_divergence
    assert (there.curves, there.weights) == (here.curves, here.weights)
    assert there.coverage == here.coverage


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    """digits-mlp, recorded."""
    pair = digits_mlp.WORKLOAD.make_pair()
    return recorded(pair, tmp_path_factory.mktemp("offline") / "mlp")


def test_digits_mlp_is_judged_as_when_both_halves_run(mlp):
    pair = digits_mlp.WORKLOAD.make_pair()
    report = parity.compare(mlp, pair.jax, pair.weights)
    assert report.in_step
    assert_same(report, parity.run(pair, steps=3))


def test_digits_cnn_is_judged_as_when_both_halves_run(tmp_path):
    pair = digits_cnn.WORKLOAD.make_pair()
    report = offline(pair, tmp_path / "cnn")
    assert report.in_step
    assert_same(report, parity.run(pair, steps=3))


def test_a_mistake_is_found_where_it_is(mlp):
    wrong = decay_coupled_instead_of_decoupled()
    report = parity.compare(mlp, wrong.jax, wrong.weights)
    planted = TEETH[decay_coupled_instead_of_decoupled.__name__]
    first = report.first_divergence
    assert (report.verdict, report.causes) == (parity.Verdict.NOT_IN_STEP, ())
    assert (first.stage, first.step) == (planted.stage, planted.step)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_mistake_has_the_same_numbers_as_when_both_halves_run(precision, tmp_path):
    pair = linear_pair(tx=instep.optim.sgd(0.11))
    report = offline(pair, tmp_path / "linear", precisions=[precision])
    assert not report.in_step
    assert_same(report, parity.run(pair, 3, [precision]))


def test_lbfgs_is_drawn_freely_and_judged_step_by_step(tmp_path):
    pair = linear_pair(tx=instep.optim.lbfgs(0.1, max_iter=3))
    lbfgs = torch.optim.LBFGS(pair.torch.model.parameters(), 0.1, max_iter=3)
    pair = replace(pair, torch=replace(pair.torch, optimizer=lbfgs))
    assert_same(offline(pair, tmp_path / "lbfgs", 2), parity.run(pair, 2))


def test_scaler_scheduler_momentum_and_a_short_window(tmp_path):
    """What a manifest has to say, beside the weights."""
    pair = linear_pair()
    windows = {"accumulate": 4, "drop_last": False}
    optimizer = torch.optim.SGD(pair.torch.model.parameters(), 0.1, momentum=0.9)
    loop = replace(
        pair.torch,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10),
        scaler=torch.amp.GradScaler("cpu"),
        **windows,
    )
    tx = instep.optim.sgd(instep.schedules.one_cycle_lr(0.1, 10), 0.9)
    half = replace(pair.jax, tx=tx, scaler=instep.GradScaler(), **windows)
    pair = replace(pair, torch=loop, jax=half)
    report = offline(pair, tmp_path / "windows")
    assert report.in_step, report
    assert {"momentum", "scaler", "lr"} <= {row.leaf.kind for row in report.rows}
    assert_same(report, parity.run(pair, 3))


def test_an_opaque_loop_starts_from_the_recorded_weights(tmp_path):
    pair = linear_pair()

    @jax.jit
    def step(params, x):
        loss, grads = jax.value_and_grad(pair.jax.loss_fn)(params, x)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), (loss, grads)

    def view(params, metrics):
        return instep.View(loss=metrics[0], params=params, grads=metrics[1])

    params = jax.tree.map(lambda p: p + 7, pair.jax.params)
    half = instep.JaxLoop.opaque(step, params, view)
    assert offline(replace(pair, jax=half), tmp_path / "linear").in_step


def test_a_precision_in_which_pytorch_raises_is_not_walked(tmp_path):
    def torch_loss(model, x):
        assert x.dtype is not torch.bfloat16, "no kernel"
        return (model(x) ** 2).mean()

    pair = linear_pair(torch_loss=torch_loss)
    report = offline(pair, tmp_path / "linear", precisions=["bfloat16", "float32"])
    assert "no kernel" in report.coverage.not_walked[0]
    assert_same(report, parity.run(pair, 3, ["bfloat16", "float32"]))


def test_rounding_beyond_its_bound_is_said_to_have_had_one_look(tmp_path):
    """A loss that sums in bfloat16, which float64 does not see."""

    def coarse(params, x):
        made = (x @ params["kernel"] + params["bias"]) ** 2
        return made.astype(jnp.bfloat16).astype(made.dtype).mean()

    report = offline(linear_pair(coarse), tmp_path / "linear")
    assert report.first_divergence.walk == "float32 re-synchronised"
    assert any("no second look" in sentence for sentence in report.coverage.unseen)


def test_the_oracle_is_the_step_in_float64_from_where_float32_stands(tmp_path):
    """The same for every JAX half, whatever machine it runs on."""
    pair = linear_pair()
    folder = recorded(pair, tmp_path / "linear")
    manifest = read_manifest(folder)
    name, standing = "float32 re-synchronised", read_step(folder, manifest, 0)
    standing = standing[name].right
    for n in (1, 2, 3):
        walks = read_step(folder, manifest, n)
        w, b = (
            torch.tensor(standing[Leaf("parameter", x)], dtype=torch.float64).requires_grad_()
            for x in ("weight", "bias")
        )
        x = torch.tensor(walks["float64"].batches[0])
        assert x.dtype == torch.float64
        loss = (nn.functional.linear(x, w, b) ** 2).mean()
        loss.backward()
        right = walks[name].right
        np.testing.assert_array_equal(right[Leaf("loss", "loss")], loss.detach())
        np.testing.assert_array_equal(right[Leaf("gradient", "weight")], w.grad)
        if n == 1:  # both walks stand at the same weights, and the file has these once
            assert all(
                np.array_equal(x, walks["float64"].right[leaf]) for leaf, x in right.items()
            )
        standing = walks[name].standing
        assert standing[Leaf("parameter", "weight")].dtype == np.float32


def test_a_file_gives_back_every_bit(tmp_path):
    leaf = Leaf("gradient", "w")
    right = {
        leaf: np.array([[1.5, np.nan, -0.0]]),
        Leaf("parameter", "w"): np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3).T,
        Leaf("loss", "loss"): np.array(np.pi),
        Leaf("buffer", "n"): np.array(7),
        Leaf("buffer", "none"): np.zeros((0, 3), np.float16),
    }
    floors = {
        leaf: Floor(np.inf, np.dtype("float64")),
        Leaf("buffer", "n"): Floor(1e-300, None),
    }
    batch = {"x": np.ones((2, 3), bool), "y": (1.0, None, ["text", np.array(0.1)])}
    walks = {"float64": Recorded(right, floors, right, [batch]), "b": Recorded(raised="why")}
    path = tmp_path / "step.safetensors"
    digest = write_step(path, walks)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    safetensors.deserialize(path.read_bytes())  # a valid file for everybody else
    made = read_step_file(path)
    assert made["b"].raised == "why" and made["float64"].floors == floors
    for seen in (made["float64"].right, made["float64"].standing):
        for leaf, array in right.items():
            assert (seen[leaf].dtype, seen[leaf].shape) == (array.dtype, array.shape)
            assert seen[leaf].tobytes() == array.tobytes()
    found = made["float64"].batches[0]
    assert jax.tree.structure(found) == jax.tree.structure(batch)
    assert jax.tree.all(jax.tree.map(lambda x, y: np.all(x == y), found, batch))


def test_a_batch_that_cannot_be_kept_names_the_remedy(tmp_path):
    pair = linear_pair()
    with pytest.raises(parity.ParityError, match="holds a set, which .* Give record"):
        parity.record(pair.torch, tmp_path / "linear", 1, batch=lambda x: {1})
    assert list(tmp_path.iterdir()) == []


def test_what_is_interrupted_leaves_nothing(tmp_path):
    def interrupt(n):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parity.record(linear_pair().torch, tmp_path / "linear", 2, on_step=interrupt)
    assert list(tmp_path.iterdir()) == []


def _no_manifest(folder):
    (folder / "manifest.json").unlink()


def _no_step(folder):
    (folder / "step-000001.safetensors").unlink()


def _flipped_bit(folder):
    path = folder / "step-000001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _cut_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:-10])


def _other_schema(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_manifest, "holds no manifest.json, so it is no finished recording. Record it"),
        (_no_step, r"is not complete: it lacks step-000001.safetensors. Record it again"),
        (_flipped_bit, "is damaged: it is not the file that was recorded. Copy the folder"),
        (_cut_manifest, "manifest.json cannot be read: .* Record it again"),
        (_other_schema, "schema 99; this instep reads schema 1. Record and compare with the"),
    ],
)
def test_a_damaged_folder_is_refused(damage, message, tmp_path):
    pair = linear_pair()
    folder = recorded(pair, tmp_path / "linear", steps=1)
    damage(folder)
    with pytest.raises(parity.ParityError, match=message):
        parity.compare(folder, pair.jax, pair.weights)


def test_wrong_requests_name_the_remedy(tmp_path):
    pair = linear_pair()
    folder = recorded(pair, tmp_path / "linear", steps=1)
    with pytest.raises(parity.ParityError, match="is there already"):
        parity.record(pair.torch, folder, 1)
    with pytest.raises(TypeError, match=r"record\(pair.torch, folder, batch=pair.batch\)"):
        parity.record(pair, tmp_path / "other", 1)
    with pytest.raises(ValueError, match="PyTorch has accumulate=1, JAX 2"):
        parity.compare(folder, replace(pair.jax, accumulate=2), pair.weights)
    with pytest.raises(TypeError, match="the JAX half is a Pair"):
        parity.compare(folder, pair)
    with pytest.raises(parity.ParityError, match="'kernel' has no rule"):
        parity.compare(folder, pair.jax, [bridge.tensor("weight"), bridge.tensor("bias")])


HALF = """
    import jax.numpy as jnp
    import instep

    def half(lr=0.1):
        def loss_fn(params, x):
            first, last = params["0"], params["2"]
            x = jnp.tanh(x @ first["kernel"] + first["bias"])
            return ((x @ last["kernel"] + last["bias"]) ** 2).mean()

        params = {
            "0": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)},
            "2": {"kernel": jnp.zeros((4, 4)), "bias": jnp.zeros(4)},
        }
        return instep.JaxLoop(loss_fn, instep.optim.sgd(lr), params)

    def wrong():
        return half(0.11), "auto"
    """
LOOP = """
    import torch
    import instep

    def loop():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 4)
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        data = list(torch.randn(4, 8, 3))
        return instep.TorchLoop(model, lambda m, x: (m(x) ** 2).mean(), optimizer, data)
    """


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with both halves in files of their own."""
    for name, text in (("jax_half.py", HALF), ("torch_half.py", LOOP)):
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_processes_one_without_torch_and_one_without_a_device_for_jax(here):
    """Neither framework asks for memory of the GPU on which the other runs."""
    record = (
        "import torch_half, instep\n"
        "instep.parity.record(torch_half.loop(), 'folder', 3)\n"
        "from jax._src import xla_bridge\n"
        "print(xla_bridge.backends_are_initialized())"
    )
    compare = (
        "import sys\n"
        "sys.modules['torch'] = None  # import torch: ModuleNotFoundError\n"
        "import instep, jax_half\n"
        "report = instep.parity.compare('folder', jax_half.half())\n"
        "report.to_html('page.html'), report.to_json('report.json'), str(report)\n"
        "wrong = instep.parity.compare('folder', *jax_half.wrong())\n"
        "print(report.in_step, wrong.first_divergence.stage, report.environment['torch'])"
    )
    for code, printed in ((record, "False"), (compare, f"True schedule {torch.__version__}")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, printed), done.stderr
    assert json.loads(Path("report.json").read_text())["verdict"] == "in step"


def test_the_two_commands(here):
    def command(*args):
        done = CliRunner().invoke(app, [str(a) for a in args])
        return done.exit_code, " ".join(done.output.split())

    code, printed = command("record", "torch_half.py:loop", "folder", "--steps", 2)
    assert code == 0 and "folder: 2 steps, " in printed, printed
    code, printed = command("compare", "folder", "jax_half.py:half", "--json", "r.json")
    assert code == 0 and "jax_half.py:half: IN STEP" in printed, printed
    assert json.loads(Path("r.json").read_text())["steps"] == 2
    code, printed = command("compare", "folder", "jax_half.py:wrong")
    assert code == 1 and "The schedule stage is the first to diverge" in printed, printed
    code, printed = command("record", "torch_half.py:loop", "folder")
    assert code == 2 and "is there already" in printed, printed
    code, printed = command("record", "jax_half.py:half", "other")
    assert code == 2 and "record takes an instep.TorchLoop" in printed, printed
    code, printed = command("compare", "nowhere", "jax_half.py:half")
    assert code == 2 and "no finished recording" in printed, printed
