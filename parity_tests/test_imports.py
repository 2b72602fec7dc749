"""The core needs jax, optax and NumPy; everything else is asked for by name."""

import subprocess
import sys

import pytest


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def python(code: str, blocked: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    code = BLOCK.format(blocked=set(blocked) or "()") + code
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_import_brings_no_torch_flax_or_orbax():
    done = python(
        "import instep, sys\n"
        "names = 'torch flax orbax grain rich typer tensorboard'.split()\n"
        "print(sorted({*names} & set(sys.modules)))"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_core_trains_without_torch():
    done = python(
        "import instep, jax.numpy as jnp\n"
        "def loss_fn(params, batch):\n"
        "    return instep.losses.mse_loss(batch[0] @ params['w'], batch[1])\n"
        "x, w = jnp.eye(3), jnp.arange(3.0)\n"
        "tx = instep.optim.adam(lr=0.1)\n"
        "state = instep.init_state({'w': jnp.zeros(3)}, tx)\n"
        "step = instep.make_train_step(loss_fn, tx)\n"
        "for _ in range(200): state, metrics = step(state, (x, x @ w))\n"
        "print(float(metrics.loss) < 1e-3)",
        blocked=("torch", "flax", "orbax", "rich", "typer", "sklearn"),
    )
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


def test_streams_and_the_runner_need_neither_torch_nor_grain_nor_orbax():
    done = python(
        "import instep, jax.numpy as jnp, numpy as np, sys\n"
        "from instep import data\n"
        "def loss_fn(params, batch): return ((params['w'] - batch) ** 2).mean()\n"
        "batches = data.prefetch(data.windows([np.ones(3, 'f')] * 5, 2))\n"
        "tx, w = instep.optim.sgd(0.1), jnp.zeros(3)\n"
        "loop = instep.JaxLoop(loss_fn, tx, {'w': w}, batches=batches, accumulate=2)\n"
        "print(int(instep.train(loop, 7).step))",
        blocked=("torch", "flax", "orbax", "grain", "rich", "typer", "sklearn"),
    )
    assert (done.returncode, done.stdout.strip()) == (0, "7"), done.stderr


@pytest.mark.parametrize(
    ("call", "package", "extra"),
    [
        ("checkpoint.Checkpointer('x')", "orbax", "checkpoint"),
        ("data.from_grain([])", "grain", "data"),
        ("data.from_loader([])", "torch", "parity"),
    ],
)
def test_what_a_run_needs_names_the_extra(call, package, extra):
    done = python(f"import instep\ninstep.{call}", blocked=(package,))
    assert done.returncode == 1
    assert f"needs {package}, which is not installed" in done.stderr
    assert f"pip install 'instep[{extra}]'" in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        *("TorchLoop", "Pair", "lower", "from_torch", "bridge.TorchLoop", "bridge.register"),
        *("parity.run", "parity.record", "parity.assert_in_step", "parity.Pair"),
    ],
)
def test_what_needs_torch_names_the_extra(name):
    done = python(f"import instep\ninstep.{name}", blocked=("torch",))
    assert done.returncode == 1
    assert "needs torch, which is not installed" in done.stderr
    assert "pip install 'instep[parity]'" in done.stderr


def test_what_compares_a_recording_needs_no_torch():
    done = python(
        "import instep, sys\n"
        "instep.parity.compare, instep.parity.Report, instep.bridge.linear\n"
        "print(sorted({'torch', 'flax'} & set(sys.modules)))",
        blocked=("torch", "flax", "typer"),
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize(("package", "extra"), [("torch", "parity"), ("typer", "compare")])
def test_command_without_its_packages_exits_2(package, extra):
    code = "import instep.cli, sys; sys.argv = ['instep', 'parity', 'digits-mlp']\n"
    done = python(code + "instep.cli.main()", blocked=(package,))
    assert done.returncode == 2, done.stderr
    assert f"pip install 'instep[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_attribute_is_an_attribute_error():
    done = python("import instep\ninstep.nothing")
    assert "module 'instep' has no attribute 'nothing'" in done.stderr
