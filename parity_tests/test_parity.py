"""The walk itself: what it touches, and what it sees."""

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
from instep import parity
from instep.parity._records import Status
from instep.workloads import digits_cnn, digits_mlp
from pairs import linear_pair


def test_smallest_pair_is_in_step():
    report = parity.run(linear_pair(), steps=6)
    assert report.in_step, report
    assert {row.leaf.kind for row in report.rows} == {
        "loss", "gradient", "update", "parameter", "lr",
    }  # fmt: skip
    assert all(row.status is Status.IN_STEP for row in report.rows)
    assert report.coverage.unseen == ()


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
    assert not report.causes and not report.unexplained  # no step is to blame
    assert "opt_state=lambda: bridge.optimizer_from_torch" in report.hint


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


def test_gradients_are_on_in_the_walk_and_stay_off_outside():
    with torch.no_grad():
        assert parity.run(linear_pair(), steps=2).in_step
        assert not torch.is_grad_enabled()


def test_one_trace_of_the_jax_half():
    traces = 0

    def counted(params, x):
        nonlocal traces
        traces += 1
        return ((x @ params["kernel"] + params["bias"]) ** 2).mean()

    assert parity.run(linear_pair(counted), steps=5, checks=False).in_step
    assert traces == 2  # one in float64, one in float32


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


def test_a_frozen_parameter_that_jax_trains_is_seen():
    pair = linear_pair()
    pair.torch.model.bias.requires_grad_(False)
    first = parity.run(pair, steps=2).first_divergence
    assert (first.stage, first.leaf.name) == ("gradient", "bias")


def test_json(tmp_path):
    report = parity.run(linear_pair(tx=optax.sgd(0.11)), steps=2)
    path = tmp_path / "report.json"
    report.to_json(path)
    data = json.loads(path.read_text())
    assert (data["schema"], data["verdict"], data["in_step"]) == (4, "not in step", False)
    assert data["first_divergence"]["stage"] == "optimizer"
    assert data["first_divergence"]["jax"] in ("kernel", "bias")
    leaves = data["walks"][0]["leaves"]
    assert len(leaves) == len(report.rows)
    assert {"status", "judged", "worst", "stage", "kind", "name"} <= set(leaves[0])
    assert data["environment"]["torch"] == torch.__version__
    assert data["tolerance"]["relative"] == 1e-12
