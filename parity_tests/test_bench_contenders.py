"""The contenders' own pieces: PyTorch's step, optax's optimizer, clipping by hand."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from instep import workloads
from instep.bench._by_hand import clip
from instep.bench._contender import build
from instep.bench._optax import optax_of
from instep.bench._problem import load
from instep.bench._settings import Settings
from instep.bench._torch import fuse, train_step
from instep.bridge._match import match_weights
from instep.bridge._torch_loop import run_step, windows
from instep.bridge._transfer import model_arrays


@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn", "text-lstm"])
def test_torch_contender_takes_the_steps_of_a_torch_loop(name):
    """``run_step`` is what a TorchLoop means; fused kernels aside, to the bit."""
    ours, meant = (workloads.get(name).make_pair().torch for _ in range(2))
    step, stream = train_step(ours, ours.model), windows(meant)
    for n in range(3):
        window = next(stream)
        assert float(step(n, window)) == float(run_step(meant, window, n + 1))
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


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of torch.compile
def test_what_is_not_compiled_is_said():
    """PyTorch's compiler leaves an ``nn.LSTM`` alone."""
    problem = load("text-lstm", Settings(device="cpu"), contender="torch-compile")
    contender = build("torch-compile", problem)
    assert "graphs" not in contender.notes
    torch._dynamo.utils.counters.clear()
    contender.step(0)
    assert contender.notes["graphs"] == "none compiled, PyTorch ran it eagerly"
    torch._dynamo.utils.counters["stats"]["unique_graphs"] = 2
    contender.step(0)
    assert contender.notes["graphs"] == "2 compiled"
