"""What the walk refuses to claim: noise, what never changed, what one side hides."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from torch import nn

import instep
from instep import bridge, parity
from instep.parity._records import Status
from instep.workloads import digits_cnn, digits_mlp
from pairs import linear_pair, with_batches


def test_conv_bias_before_batch_norm_is_noise_and_never_green():
    report = parity.run(digits_cnn.WORKLOAD.make_pair(), steps=3)
    assert report.in_step, report
    noise = {(row.leaf.kind, row.leaf.name) for row in report.not_judged()}
    biases = ("conv1.bias", "conv2.bias")
    assert noise == {(k, b) for k in ("gradient", "clipped gradient") for b in biases}
    for row in report.not_judged():
        assert row.status is Status.NOISE and row.judged == 0
        assert row.worst.floor > 1e-3 * row.worst.scale
    printed = str(report)
    assert "conv1.bias" in printed and "noise" in printed


def test_nothing_learned_is_inconclusive():
    report = parity.run(linear_pair(lr=0.0), steps=3)
    assert report.verdict is parity.Verdict.INCONCLUSIVE and not report.in_step
    assert "no update could be judged" in report.reason
    idle = {row.leaf.kind for row in report.not_judged()}
    assert idle == {"update", "parameter"}


def test_nan_from_some_step_on_is_inconclusive_and_says_from_where():
    poisoned = torch.full((8, 3), torch.nan)
    pair = linear_pair()
    good = pair.torch.batches
    batches = [*good[:3], poisoned, *good[3:]]
    report = parity.run(with_batches(batches), steps=6)
    assert report.verdict is parity.Verdict.INCONCLUSIVE
    assert "in step to step 3; from step 4 on no loss could be judged" in report.reason
    assert {row.status for row in report.not_judged()} == {Status.PARTLY}


def test_nan_on_both_sides_is_inconclusive():
    pair = linear_pair(
        lambda params, x: ((x @ params["kernel"] + params["bias"]) ** 2).mean() * jnp.nan,
        lambda model, x: (model(x) ** 2).mean() * torch.nan,
    )
    report = parity.run(pair, steps=2)
    assert report.verdict is parity.Verdict.INCONCLUSIVE, report


def test_a_clip_or_schedule_that_had_no_effect_is_idle_not_green():
    """Thresholds of 100 and 50 that never fire, a rate that never changes: not compared."""
    pair = linear_pair(clip_grad_norm=50.0)
    scheduler = torch.optim.lr_scheduler.StepLR(pair.torch.optimizer, 30)
    pair = replace(pair, torch=replace(pair.torch, clip_grad_norm=100.0, scheduler=scheduler))
    report = parity.run(pair, steps=3)
    assert {(r.leaf.kind, r.status) for r in report.not_judged()} == {
        ("clipped gradient", Status.IDLE),
        ("lr", Status.IDLE),
    }
    hidden = replace(pair, jax=replace(pair.jax, clip_grad_norm=None))
    (sentence,) = (s for s in parity.run(hidden, steps=3).coverage.unseen if "clipped" in s)
    assert sentence.endswith("it had no effect here, so nothing is known of it")


def test_clipping_at_zero_is_clipping():
    pair = linear_pair(clip_grad_norm=0.0)
    pair = replace(pair, torch=replace(pair.torch, clip_grad_norm=0.0))
    kinds = {row.leaf.kind for row in parity.run(pair, steps=2).rows}
    assert {"clipped gradient", "gradient norm"} <= kinds


def test_a_constant_buffer_of_pytorch_alone():
    pair = linear_pair()
    pair.torch.model.register_buffer("mask", torch.ones(3))
    with pytest.raises(parity.ParityError, match="PyTorch leaf 'mask' has no rule"):
        parity.run(pair, steps=2)
    pair = replace(pair, weights=[*pair.weights, bridge.torch_only("mask")])
    report = parity.run(pair, steps=2)
    assert report.in_step, report
    assert report.coverage.unseen == (
        "buffer: the JAX side does not show mask, which the PyTorch side has; said to be "
        "PyTorch's alone",
    )


def test_balanced_classes_from_zero_weights_are_no_false_alarm():
    """The bias gradient is zero but for rounding, and no ulp of a zero weight shows it."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    for p in model.parameters():
        nn.init.zeros_(p)
    batch = torch.randn(60, 4), torch.arange(60) % 3
    loop = instep.TorchLoop(
        model,
        lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        torch.optim.SGD(model.parameters(), lr=0.5),
        [batch],
    )

    def loss_fn(params, batch):
        x, y = batch
        return optax.softmax_cross_entropy_with_integer_labels(
            x @ params["kernel"] + params["bias"], y
        ).mean()

    params = {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}
    half = instep.JaxLoop(loss_fn, optax.sgd(0.5), params)
    report = parity.run(instep.Pair(loop, half, [bridge.linear("")]), steps=5)
    assert report.in_step, report


def test_opaque_without_gradients_is_inconclusive_not_green():
    pair = linear_pair()

    @jax.jit
    def step(params, x):
        loss, grads = jax.value_and_grad(pair.jax.loss_fn)(params, x)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), {"loss": loss, "g": grads}

    def hidden(params, metrics):
        return instep.View(metrics["loss"], params)

    def shown(params, metrics):
        return instep.View(metrics["loss"], params, grads=metrics["g"])

    make = instep.JaxLoop.opaque
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    report = parity.run(replace(pair, jax=make(step, params, hidden)), steps=3)
    assert report.verdict is parity.Verdict.INCONCLUSIVE
    assert "no gradient could be judged" in report.reason
    hidden_gradient = "gradient: the JAX side does not show"
    assert any(s.startswith(hidden_gradient) for s in report.coverage.unseen)
    report = parity.run(replace(pair, jax=make(step, params, shown)), steps=3)
    assert report.in_step, report


def test_hidden_learning_rate_is_said_and_judged_through_the_update():
    report = parity.run(digits_mlp.WORKLOAD.make_pair(), steps=2)
    assert report.in_step
    assert report.coverage.unseen == (
        "lr: the JAX side does not show group 0, which the PyTorch side has; judged through "
        "the update",
    )
