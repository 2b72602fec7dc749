"""Requests that cannot be met say what to change; verdicts say where to look."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

import instep
from instep import bridge, parity
from instep.workloads import digits_mlp
from pairs import linear_pair, with_batches


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: parity.run(nn.Linear(1, 1)),
            TypeError,
            r"instep.TorchLoop.*got Linear",
        ),
        (lambda: parity.run(linear_pair(), steps=0), ValueError, r"steps=0"),
        (
            lambda: replace(linear_pair(), weights=bridge.linear("")),
            TypeError,
            r"weights are .auto. or a list of rules.*got linear\(''\)",
        ),
        (lambda: replace(linear_pair(), weights="all"), TypeError, r"got 'all'"),
        (
            lambda: replace(linear_pair().torch, model=[nn.Linear(3, 2)]),
            TypeError,
            r"model is a list; give an nn.Module",
        ),
        (
            lambda: parity.run(linear_pair(torch_loss=lambda m, x: (m(x).mean(), 1.0))),
            parity.ParityError,
            r"loss_fn must return a scalar tensor; it returned a tuple",
        ),
        (lambda: linear_pair(accumulate=2), ValueError, r"PyTorch has accumulate=1, JAX 2"),
        (
            lambda: instep.Pair(nn.Linear(1, 1), linear_pair().jax, []),
            TypeError,
            r"Pair.torch is a Linear; give an instep.TorchLoop",
        ),
        (
            lambda: instep.Pair(linear_pair().torch, nn.Linear(1, 1), []),
            TypeError,
            r"Pair.jax is a Linear",
        ),
        (
            lambda: parity.run(replace(linear_pair(), weights=[])),
            parity.ParityError,
            r"PyTorch leaf 'weight' has no rule",
        ),
        (
            lambda: parity.run(replace(linear_pair(), batch=lambda x: x.missing)),
            parity.ParityError,
            r"Pair.batch raised at step 1: AttributeError",
        ),
        (
            lambda: parity.run(linear_pair(lambda params, x: (x, x))),
            parity.ParityError,
            r"the JAX half raised at step 1: TypeError: loss_fn returned a tuple",
        ),
        (
            lambda: parity.run(linear_pair(torch_loss=lambda m, x: _elsewhere(x)), steps=1),
            parity.ParityError,
            r"no parameter has a gradient.*must use the model it is given",
        ),
        (
            lambda: _hooked(linear_pair()),
            parity.ParityError,
            r"parameters \['weight'\] have gradient hooks",
        ),
        (
            lambda: replace(linear_pair().torch, model=nn.Linear(3, 2)),
            ValueError,
            r"not parameters of the model \(group 0: shape \(2, 3\), group 0: shape \(2,\)\)",
        ),
        (
            lambda: with_batches(iter([torch.ones(8, 3)])),
            TypeError,
            r"batches is a list_iterator, which is used up after one pass",
        ),
        (
            lambda: _given_twice(iter([torch.ones(8, 3)])),
            parity.ParityError,
            r"batches of the PyTorch half raised at step 2.*a generator is used up",
        ),
    ],
)
def test_bad_requests(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_labels_out_of_range_are_named_with_the_step():
    pair = digits_mlp.WORKLOAD.make_pair()
    good = next(iter(pair.torch.batches))
    bad = good[0], torch.full_like(good[1], 12)
    pair = replace(pair, torch=replace(pair.torch, batches=[good, bad]))
    with pytest.raises(
        parity.ParityError,
        match=r"PyTorch half raised at step 2: IndexError: Target 12 is out of bounds.*Labels "
        r"are class indices from 0",
    ):
        parity.run(pair, steps=2)


def test_labels_shifted_in_the_jax_half_alone_are_seen():
    """instep.losses gives NaN under jit; optax clamps to the last class: both diverge."""
    pair = digits_mlp.WORKLOAD.make_pair()
    shifted = replace(pair, batch=lambda b: (b[0], b[1] + 1))
    first = parity.run(shifted, steps=1).first_divergence
    assert (first.step, first.stage) == (1, "loss")


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: _with_dropout(linear_pair()), "dropout is active (1)"),
        (lambda: _float32_constant(), "or from a constant made in float32"),
        (lambda: linear_pair(_nan), "one side has NaN or infinity"),
    ],
)
def test_hints(make, hint):
    report = parity.run(make(), steps=1)
    assert hint in report.hint and report.hint in " ".join(str(report).split())


def test_a_clip_that_no_view_shows_is_named_by_what_the_optimizer_makes_of_it():
    report = parity.run(_clipped_by_optax(), steps=2)
    assert [cause.name for cause in report.causes] == ["clip_without_epsilon"], report
    assert report.hint is None and "add PyTorch's 1e-6" in " ".join(str(report).split())


def _nan(params, x):
    return ((x @ params["kernel"] + params["bias"]) ** 2).mean() * jnp.nan


def _clipped_by_optax():
    pair = linear_pair(tx=optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1)))
    return replace(pair, torch=replace(pair.torch, clip_grad_norm=0.1))


def _elsewhere(x):
    return (x * torch.ones(3, requires_grad=True)).mean()


def _given_twice(iterator):
    return parity.run(with_batches(lambda: iterator), steps=2)


def _hooked(pair):
    pair.torch.model.weight.register_hook(lambda grad: grad * 0.5)
    parity.run(pair, steps=1)


def _with_dropout(pair):
    model = nn.Sequential(pair.torch.model, nn.Dropout(0.5))
    return replace(
        pair, torch=replace(pair.torch, model=model), weights=[bridge.linear("0", "")]
    )


def _float32_constant():
    def loss_fn(params, x):
        y = x @ params["kernel"] + params["bias"]
        return (y**2).mean() * np.sqrt(np.float32(2.0))

    return linear_pair(loss_fn, lambda model, x: (model(x) ** 2).mean() * 2**0.5)
