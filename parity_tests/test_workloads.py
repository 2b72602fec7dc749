"""The built-in workloads: in step, on data that does not overlap, trained to their targets."""

from dataclasses import replace
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from torch.utils.data import default_collate
from typer.testing import CliRunner

import instep
from conftest import assert_in_step
from instep import bridge, parity, workloads
from instep.bridge._torch_loop import windows
from instep.cli._app import app
from instep.workloads import _digits, _manual, _stdlib, byte_gpt, digits_vit, resnet, text_lstm
from instep.workloads._metric import ACCURACY, NATS_PER_BYTE
from instep.workloads._train import train
from instep.workloads._windows import Windows, held_out


RESNETS = list(resnet.SIZES)
LARGE = ["byte-gpt-10m", "byte-gpt-124m", *RESNETS]
TRAINED = [name for name in workloads.names() if name not in LARGE]
SMALL = replace(byte_gpt.SIZES["byte-gpt"], layers=2, heads=2, width=32, context=16)


@pytest.mark.parametrize("name", TRAINED)
def test_in_step(name):
    """byte-gpt in float64 only; in float32 below, narrower, and in the long sweep."""
    check(name, steps=3, precisions=[] if name == "byte-gpt" else None)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TRAINED)
def test_in_step_for_ten_steps(name):
    check(name, steps=10, precisions=None)


def check(name, steps, precisions):
    report = parity.run(workloads.get(name).make_pair(), steps, precisions)
    assert report.in_step, report
    assert not report.coverage.not_walked
    noise = {row.leaf.name for row in report.not_judged()}
    assert noise <= {"conv1.bias", "conv2.bias"}  # of digits-cnn, before BatchNorm


def small_pair(precision="float32") -> instep.Pair:
    """byte-gpt, narrower."""
    half = byte_gpt.torch_half(SMALL, precision)
    return instep.Pair(half, byte_gpt.jax_half(SMALL, precision), "auto")


def test_byte_gpt_in_bfloat16():
    """Both walks in float64 do without the rounding; the third has it on both sides."""
    report = parity.run(small_pair("bf16"), steps=3)
    assert report.in_step, report
    plain = parity.run(small_pair(), steps=1)
    assert max(_float32(report)) > 1e3 * max(_float32(plain)), "nothing was rounded"


def _float32(report):
    """PyTorch's own rounding of the first gradients, over their largest element."""
    walk = next(walk for walk in report.walks if walk.plan.dtype == "float32")
    rows = [row for row in walk.rows if row.leaf.kind == "gradient"]
    return [row.measurements[0].floor / row.measurements[0].scale for row in rows]


@pytest.mark.parametrize("name", RESNETS)
def test_a_narrow_resnet_is_in_step(name):
    """Fewer stages, blocks, channels, images and pixels; the rest is that of ``name``."""
    size = resnet.SIZES[name]
    side = 16 if size.small else 65
    narrow = replace(size, side=side, classes=10, batch=4, blocks=(1, 2), widths=(4, 8))
    report = parity.run(resnet.pair(narrow), steps=2, precisions=[])
    assert report.in_step, report
    assert not report.coverage.not_walked


# Mistakes in the Flax half of byte-gpt.


def test_the_narrow_pair_is_in_step():
    report = parity.run(small_pair(), steps=3)
    assert report.in_step, report


def test_a_mask_that_shows_the_next_byte_is_found(monkeypatch):
    def shifted(q, k, v, is_causal):
        assert is_causal
        T = q.shape[1]
        mask = jnp.tril(jnp.ones((T, T), bool), 1)[None, None]
        return right(q, k, v, mask=mask)

    right = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", shifted)
    report = parity.run(small_pair(), steps=2, precisions=[])
    assert not report.in_step
    assert [cause.name for cause in report.causes] == ["mask_shifted"], report


def test_decay_of_the_vectors_too_is_found(monkeypatch):
    right = instep.optim.adamw

    def decays(lr, betas, weight_decay):
        return right(lr, betas, weight_decay=byte_gpt.WEIGHT_DECAY)

    monkeypatch.setattr(instep.optim, "adamw", decays)
    report = parity.run(small_pair(), steps=2, precisions=[])
    assert not report.in_step
    assert [cause.name for cause in report.causes] == ["decay_on_all"], report


# The data.


def test_files_for_validation_are_none_of_those_for_training():
    train, validation = _stdlib.source_files()
    assert (train, validation) == _stdlib.source_files()
    assert train == sorted(train) and len(train) > 5 * len(validation) > 0
    assert not set(train) & set(validation)
    for path in (*train, *validation):
        assert not {"site-packages", "test", "tests"} & set(path.parts), path
    for codes, paths in zip(_stdlib.source_bytes(), (train, validation), strict=True):
        assert codes.dtype == np.uint8
        assert codes.tobytes() == b"".join(path.read_bytes() for path in paths)
        assert not codes.flags.writeable  # it is shared


def test_topics_for_validation_are_none_of_those_for_training():
    train, validation = _manual.topic_names()
    assert not set(train) & set(validation)
    assert set(train) | set(validation) == set(_manual.topics)
    for codes, names in zip(_manual.manual_codes(), (train, validation), strict=True):
        text = "".join(_manual.alphabet()[code] for code in codes)
        assert text == "".join(_manual.topics[name] for name in names)


def test_images_of_the_test_set_are_none_of_those_for_training():
    [(images, _)] = _digits.test_set()
    train = next(iter(_digits.train_loader(_digits.TRAIN)))
    assert len(images) + len(train[0]) == 1797
    everything = torch.cat([train[0], images]).flatten(1).sum(0)
    assert_in_step(everything, _digits._digits()[0].reshape(1797, 64).sum(0), finite=True)


def test_windows_are_of_one_text():
    windows_ = Windows(np.arange(32, dtype=np.uint8), 10)
    assert len(windows_) == 3
    inputs, labels = default_collate(list(map(windows_.__getitem__, range(3))))
    assert torch.equal(inputs.flatten(), torch.arange(30))
    assert torch.equal(labels, inputs + 1)
    [(inputs, _)] = held_out(np.arange(32, dtype=np.uint8), 10, 2, 1)
    assert inputs[:, 0].tolist() == [0, 20]


HALVES = {
    "byte-gpt": lambda seed: byte_gpt.torch_half(byte_gpt.SIZES["byte-gpt"], seed=seed),
    "digits-vit": digits_vit.torch_half,
    "text-lstm": text_lstm.torch_half,
}


@pytest.mark.parametrize("name", HALVES)
def test_the_seed_decides_the_weights_and_the_order(name):
    def beginning(seed):
        half = HALVES[name](seed)
        matrices = [p for p in half.model.parameters() if p.ndim > 1]
        return [*matrices, *(x for window in islice(windows(half), 2) for x in window[0])]

    first, again, other = beginning(1), beginning(1), beginning(2)
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))


# The sizes.

COUNTS = {"byte-gpt": 1_040_768, "byte-gpt-10m": 10_844_160, "byte-gpt-124m": 124_439_808}


@pytest.mark.parametrize("name", byte_gpt.SIZES)
def test_parameters_of_a_size(name):
    """Both halves, without any memory for them."""
    size = byte_gpt.SIZES[name]
    with torch.device("meta"):
        model = byte_gpt.TorchGPT(size)
    flax = jax.eval_shape(lambda: nnx.state(byte_gpt.GPT(size, None, nnx.Rngs(0)), nnx.Param))
    counts = {
        size.parameters,
        sum(p.numel() for p in model.parameters()),
        sum(x.size for x in jax.tree.leaves(flax)),
    }
    assert counts == {COUNTS[name]}
    assert f"{COUNTS[name]:,} parameters" in workloads.get(name).summary


RESNET_COUNTS = {
    "resnet18-32": 11_173_962,
    "resnet18-224": 11_689_512,
    "resnet50-224": 25_557_032,
}


@pytest.mark.parametrize("name", RESNETS)
def test_parameters_of_a_resnet(name):
    """Those of torchvision's networks, at 32 x 32 with the smaller stem."""
    size = resnet.SIZES[name]
    with torch.device("meta"):
        model = resnet.TorchResNet(size)
    flax = jax.eval_shape(lambda: nnx.state(resnet.ResNet(size, nnx.Rngs(0)), nnx.Param))
    assert sum(p.numel() for p in model.parameters()) == RESNET_COUNTS[name]
    assert sum(x.size for x in jax.tree.leaves(flax)) == RESNET_COUNTS[name]
    assert workloads.get(name).summary.startswith(f"ResNet-{name[6:8]} at ")


@pytest.mark.exhaustive
def test_the_124m_halves_compute_the_same():
    workload = workloads.get("byte-gpt-124m")
    pair = workload.make_pair()
    params = weights_of(pair)
    inputs = next(iter(workload.held_out()))[0][:1]
    with torch.no_grad():
        logits = pair.torch.model(inputs).numpy()
    found = np.asarray(jax.jit(pair.jax.apply)(params, None, jnp.asarray(inputs.numpy())))
    assert logits.shape == (1, 1024, 50_257)
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-5 * np.abs(logits).max())


def weights_of(pair):
    """The JAX parameters with PyTorch's values."""
    model = pair.torch.model
    weights = bridge.match_weights(pair.weights, model, pair.jax.params, pair.jax.buffers)
    return bridge.weights_to_jax(weights, model.state_dict(), pair.jax.params)


# What is measured, and what training reaches.


def test_accuracy_and_cross_entropy():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 5, 7).double(), torch.randint(7, (4, 5))
    right = (logits.argmax(-1) == labels).double()
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    arrays = logits.numpy(), labels.numpy()
    assert_in_step(right, ACCURACY.each(*arrays).astype(float))
    assert_in_step(losses, NATS_PER_BYTE.each(*arrays).ravel())
    assert ACCURACY.reached(0.97, 0.97) and not ACCURACY.reached(0.96, 0.97)
    assert NATS_PER_BYTE.reached(2.2, 2.2) and not NATS_PER_BYTE.reached(2.3, 2.2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TRAINED)
def test_both_halves_train_to_the_target(name):
    workload = workloads.get(name)
    trained = train(workload)
    for value in (trained.torch, trained.jax):
        assert workload.metric.reached(value, workload.target), trained
    untrained = train(replace(workload, total_steps=1))
    for value in (untrained.torch, untrained.jax):
        assert not workload.metric.reached(value, workload.target), untrained


def test_a_workload_without_a_target_is_not_trained(monkeypatch):
    large = replace(workloads.get("digits-mlp"), target=None)
    monkeypatch.setattr(workloads, "get", lambda name, precision: large)
    done = CliRunner().invoke(app, ["parity", "digits-mlp", "--steps", "1"])
    assert "IN STEP" in done.output and "trained" not in done.output


def test_what_there_is_not():
    assert [workloads.get(name).target for name in LARGE] == [None] * 5
    with pytest.raises(KeyError):
        workloads.get("byte-gpt-1b")
    for name in ("digits-mlp", "byte-gpt"):
        with pytest.raises(ValueError, match="has no precision 'fp16'"):
            workloads.get(name, precision="fp16")
