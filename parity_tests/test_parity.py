"""The walk itself: what it touches, what it sees, and what it refuses to claim."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

import instep
from instep import bridge, parity
from instep.parity._judge import measure
from instep.parity._records import Status
from instep.workloads import digits_cnn, digits_mlp


def linear_pair(loss_fn=None, torch_loss=None, lr=0.1, steps=6, **jax_options):
    """Least squares: the smallest pair that has every stage but buffers."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    data = torch.randn(steps, 8, 3)
    loop = instep.TorchLoop(
        model,
        torch_loss or (lambda model, x: (model(x) ** 2).mean()),
        torch.optim.SGD(model.parameters(), lr=lr),
        list(data),
    )

    def right(params, x):
        return ((x @ params["kernel"] + params["bias"]) ** 2).mean()

    params = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}
    tx = jax_options.pop("tx", instep.optim.sgd(lr))
    loop_jax = instep.JaxLoop(loss_fn or right, tx, params, **jax_options)
    return instep.Pair(loop, loop_jax, [bridge.linear("")])


def test_smallest_pair_is_in_step():
    report = parity.run(linear_pair(), steps=6)
    assert report.in_step, report
    assert {row.leaf.kind for row in report.rows} == {
        "loss", "gradient", "update", "parameter", "lr",
    }  # fmt: skip
    assert all(row.status is Status.IN_STEP for row in report.rows)
    assert report.coverage.unseen == ()


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


def test_what_the_user_has_is_left_as_it_was():
    pair = digits_cnn.WORKLOAD.make_pair()
    loop = pair.torch
    rng, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()

    def everything():
        return json.dumps(
            [
                {n: t.tolist() for n, t in loop.model.state_dict().items()},
                str(loop.optimizer.state_dict()),
                str(loop.scheduler.state_dict()),
                str(loop.optimizer.param_groups[0]["lr"]),
                [str(p.dtype) for p in loop.model.parameters()],
                [p.grad is None for p in loop.model.parameters()],
            ]
        )

    before = everything()
    params = jax.tree.map(np.array, pair.jax.params)
    parity.run(pair, steps=2)
    assert everything() == before
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, pair.jax.params, params)))
    assert torch.equal(torch.get_rng_state(), rng)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert torch.get_default_dtype() is torch.float32
    assert jnp.zeros(()).dtype == jnp.float32
    # and the optimizer of the user, whose step a scheduler has wrapped, was not stepped
    assert loop.scheduler.last_epoch == 0


def test_global_settings_are_restored_when_a_half_raises():
    def broken(model, x):
        raise KeyError("my own bug")

    with pytest.raises(parity.ParityError, match="the PyTorch half raised at step 1: KeyError"):
        parity.run(linear_pair(torch_loss=broken))
    assert torch.get_default_dtype() is torch.float32
    assert jnp.zeros(()).dtype == jnp.float32


def test_a_loop_in_flight_starts_from_where_it_is():
    """Momentum already built up in PyTorch is not there on the JAX side: said at step 0."""
    pair = linear_pair(tx=instep.optim.sgd(0.1, momentum=0.9))
    optimizer = torch.optim.SGD(pair.torch.model.parameters(), lr=0.1, momentum=0.9)
    pair = replace(pair, torch=replace(pair.torch, optimizer=optimizer))
    assert parity.run(pair, steps=3).in_step
    pair.torch.loss_fn(pair.torch.model, pair.torch.batches[0]).backward()
    optimizer.step()
    report = parity.run(pair, steps=3)
    first = report.first_divergence
    assert (first.step, first.stage, first.leaf.kind) == (0, "optimizer", "state")
    assert "compare from a fresh optimizer" in report.hint


def test_a_cosine_schedule_to_its_end_and_past_it():
    """Near zero PyTorch's 1 + cos(x) cancels: its rate is then off by 1e-12 of itself."""
    pair = linear_pair(tx=instep.optim.sgd(instep.schedules.cosine_annealing_lr(0.1, 420)))
    optimizer = torch.optim.SGD(pair.torch.model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 420)
    loop = replace(pair.torch, optimizer=optimizer, scheduler=scheduler)
    report = parity.run(replace(pair, torch=loop), steps=440)
    assert report.in_step, report
    (rate,) = (row for row in report.rows if row.leaf.kind == "lr")
    assert rate.worst.scale == 0.1


def test_one_trace_of_the_jax_half():
    traces = 0

    def counted(params, x):
        nonlocal traces
        traces += 1
        return ((x @ params["kernel"] + params["bias"]) ** 2).mean()

    assert parity.run(linear_pair(counted), steps=5).in_step
    assert traces == 2  # one in float64, one in float32


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda x: x, Status.IN_STEP),
        (lambda x: x * (1 + 1e-13), Status.IN_STEP),
        (lambda x: x * (1 + 1e-11), Status.DIVERGED),
        (lambda x: -x, Status.DIVERGED),
        (lambda x: x[:, None], Status.DIVERGED),
        (lambda x: np.where(x == x[0], np.nan, x), Status.DIVERGED),
        (lambda x: np.where(x == x[0], np.inf, x), Status.DIVERGED),
        (lambda x: x[::-1], Status.DIVERGED),
    ],
)
def test_measure(change, status):
    x = np.array([1.0, -2.0, 3.0])
    assert measure(1, x, change(x), floor=0.0).status is status


def test_measure_noise_and_not_finite():
    x = np.array([1.0, 2.0])
    assert measure(1, x, x * 1.5, floor=3e-6).status is Status.NOISE
    assert measure(1, x, x + 7e-7, floor=1e-7).status is Status.IN_STEP
    assert measure(1, x, x + 9e-7, floor=1e-7).status is Status.DIVERGED
    nan = np.array([np.nan, 1.0])
    assert measure(1, nan, nan, floor=0.0).status is Status.NOT_FINITE
    assert measure(1, nan, nan[::-1], floor=0.0).status is Status.DIVERGED
    assert measure(1, x, x, floor=np.inf).status is Status.NOISE
    assert measure(1, np.zeros(2), np.zeros(2), floor=0.0).status is Status.IN_STEP
    assert measure(1, np.zeros(2), np.full(2, 1e-300), floor=0.0).status is Status.DIVERGED


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
    report = parity.run(_with_batches(batches), steps=6)
    assert report.verdict is parity.Verdict.INCONCLUSIVE
    assert "in step to step 3; from step 4 on no loss could be judged" in report.reason
    assert {row.status for row in report.not_judged()} == {Status.PARTLY}


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


def test_one_optimizer_of_several_parts_is_in_step():
    """optax.partition: decay on the weight, none on the bias; each part has its own state."""
    tx = optax.partition(
        {
            "decay": instep.optim.sgd(0.1, momentum=0.9, weight_decay=0.1),
            "plain": instep.optim.sgd(0.1, momentum=0.9),
        },
        {"kernel": "decay", "bias": "plain"},
    )
    pair = linear_pair(tx=tx)
    w, b = pair.torch.model.weight, pair.torch.model.bias
    groups = [{"params": [w], "weight_decay": 0.1}, {"params": [b]}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    pair = replace(pair, torch=replace(pair.torch, optimizer=optimizer))
    report = parity.run(pair, steps=4)
    assert report.in_step, report
    assert sum(row.leaf.kind == "state" for row in report.rows) == 2
    swapped = optax.partition(
        {
            "decay": instep.optim.sgd(0.1, momentum=0.9, weight_decay=0.1),
            "plain": instep.optim.sgd(0.1, momentum=0.9),
        },
        {"kernel": "plain", "bias": "decay"},
    )
    wrong = replace(pair, jax=replace(pair.jax, tx=swapped))
    assert parity.run(wrong, steps=2).first_divergence.stage == "optimizer"


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


def test_a_loss_that_masks_its_labels_in_place_does_not_reach_the_jax_half():
    pair = digits_mlp.WORKLOAD.make_pair()
    batches = list(pair.torch.batches)[:2]
    kept = [labels.clone() for _, labels in batches]

    def masks(model, batch):
        images, labels = batch
        labels[labels == 0] = -100
        return nn.functional.cross_entropy(model(images), labels)

    pair = replace(pair, torch=replace(pair.torch, loss_fn=masks, batches=batches))
    assert parity.run(pair, steps=2).first_divergence.stage == "loss"
    assert all(torch.equal(labels, k) for (_, labels), k in zip(batches, kept, strict=True))


def test_optimizer_hooks_are_part_of_the_loop():
    pair = linear_pair()

    def halve(optimizer, args, kwargs):
        with torch.no_grad():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.mul_(0.5)

    pair.torch.optimizer.register_step_post_hook(halve)
    first = parity.run(pair, steps=2).first_divergence
    assert (first.step, first.stage) == (1, "optimizer")


def test_the_generator_of_a_data_loader_is_left_as_it_was():
    pair = digits_mlp.WORKLOAD.make_pair()
    first, second = parity.run(pair, steps=2), parity.run(pair, steps=2)
    assert [r.worst for r in first.rows] == [r.worst for r in second.rows]


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


def test_a_frozen_layer_may_be_a_buffer_of_the_jax_half():
    pair = linear_pair()
    pair.torch.model.bias.requires_grad_(False)

    def loss_fn(params, buffers, x, rng):
        return ((x @ params["kernel"] + buffers["bias"]) ** 2).mean()

    half = replace(
        pair.jax,
        loss_fn=loss_fn,
        params={"kernel": jnp.zeros((3, 2))},
        buffers={"bias": jnp.zeros(2)},
    )
    report = parity.run(replace(pair, jax=half), steps=3)
    assert report.in_step, report
    assert {r.leaf for r in report.not_judged()} == {
        parity.Leaf(kind, "bias") for kind in ("gradient", "update", "parameter")
    }


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: _with_dropout(linear_pair()), "dropout is active (1)"),
        (lambda: _float32_constant(), "float32's: look for a cast"),
    ],
)
def test_hints(make, hint):
    report = parity.run(make(), steps=1)
    assert hint in report.hint and hint in str(report)


def test_clipping_at_zero_is_clipping():
    pair = linear_pair(clip_grad_norm=0.0)
    pair = replace(pair, torch=replace(pair.torch, clip_grad_norm=0.0))
    kinds = {row.leaf.kind for row in parity.run(pair, steps=2).rows}
    assert {"clipped gradient", "gradient norm"} <= kinds


def test_nan_on_both_sides_is_inconclusive():
    pair = linear_pair(
        lambda params, x: ((x @ params["kernel"] + params["bias"]) ** 2).mean() * jnp.nan,
        lambda model, x: (model(x) ** 2).mean() * torch.nan,
    )
    report = parity.run(pair, steps=2)
    assert report.verdict is parity.Verdict.INCONCLUSIVE, report


def test_a_frozen_parameter_that_jax_trains_is_seen():
    pair = linear_pair()
    pair.torch.model.bias.requires_grad_(False)
    first = parity.run(pair, steps=2).first_divergence
    assert (first.stage, first.leaf.name) == ("gradient", "bias")


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


def test_json(tmp_path):
    report = parity.run(linear_pair(tx=optax.sgd(0.11)), steps=2)
    path = tmp_path / "report.json"
    report.to_json(path)
    data = json.loads(path.read_text())
    assert (data["schema"], data["verdict"], data["in_step"]) == (2, "not in step", False)
    assert data["first_divergence"]["stage"] == "optimizer"
    assert data["first_divergence"]["jax"] in ("kernel", "bias")
    leaves = data["walks"][0]["leaves"]
    assert len(leaves) == len(report.rows)
    assert {"status", "judged", "worst", "stage", "kind", "name"} <= set(leaves[0])
    assert data["environment"]["torch"] == torch.__version__
    assert data["tolerance"]["relative"] == 1e-12


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: parity.run(nn.Linear(1, 1)), TypeError, r"takes an instep.Pair.*got Linear"),
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
        (lambda: linear_pair(accumulate=2), ValueError, r"PyTorch 1, JAX 2"),
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
            lambda: parity.run(_with_batches(iter([torch.ones(8, 3)])), steps=2),
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


def _with_batches(batches):
    pair = linear_pair()
    return replace(pair, torch=replace(pair.torch, batches=batches))


def _elsewhere(x):
    return (x * torch.ones(3, requires_grad=True)).mean()


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
