"""Whole recipes in parity.run: loops in mid-training, parameter groups, cycled momentum."""

from dataclasses import replace

import pytest
import torch
from torch.optim import lr_scheduler

import instep
from instep import bridge, parity
from instep.schedules import one_cycle_lr
from pairs import linear_pair


def in_flight(make_optimizer, make_scheduler, steps=3):
    """A pair whose PyTorch half has taken steps, and whose JAX half starts from there."""
    pair = linear_pair()
    loop = pair.torch
    optimizer = make_optimizer(loop.model.parameters())
    scheduler = make_scheduler and make_scheduler(optimizer)
    for x in loop.batches[:steps]:
        optimizer.zero_grad()
        loop.loss_fn(loop.model, x).backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
    params, rules = pair.jax.params, [bridge.linear("")]
    weights = bridge.match_weights(rules, loop.model, params)

    def from_torch():
        return bridge.optimizer_from_torch(
            optimizer,
            loop.model,
            weights=weights,
            params=params,
            scheduler=scheduler,
            total_steps=20,
        )

    half = replace(pair.jax, tx=from_torch()[0], opt_state=lambda: from_torch()[1])
    loop = replace(loop, optimizer=optimizer, scheduler=scheduler)
    return instep.Pair(loop, half, rules)


RECIPES = {
    "Adam": (lambda p: torch.optim.Adam(p, 0.1, amsgrad=True), None),
    "SGD with dampening": (lambda p: torch.optim.SGD(p, 0.1, 0.9, 0.5), None),
    "NAdam, cosine": (
        lambda p: torch.optim.NAdam(p, 0.1),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    ),
    "ASGD, chained": (
        lambda p: torch.optim.ASGD(p, 0.1),
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)]
        ),
    ),
    "AdamW, one cycle": (
        lambda p: torch.optim.AdamW(p, 0.1),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, 20),
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_loop_in_mid_training(name):
    report = parity.run(in_flight(*RECIPES[name]), steps=6)
    assert report.in_step, report
    kinds = {row.leaf.kind for row in report.rows}
    assert {"state", "lr"} <= kinds
    assert ("momentum" in kinds) == (name == "AdamW, one cycle")


def test_a_state_of_another_optimizer_is_an_error():
    pair = linear_pair()
    half = replace(pair.jax, opt_state=instep.optim.adam().init(pair.jax.params))
    with pytest.raises(parity.ParityError, match=r"opt_state does not match tx.init\(params\)"):
        parity.run(replace(pair, jax=half), steps=1)


def one_cycle_pair(**options):
    lr = one_cycle_lr(0.1, total_steps=20, **options)
    pair = linear_pair(tx=instep.optim.sgd(lr, momentum=0.9))
    optimizer = torch.optim.SGD(pair.torch.model.parameters(), 0.1, momentum=0.9)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, 20)
    return replace(pair, torch=replace(pair.torch, optimizer=optimizer, scheduler=scheduler))


def test_one_cycle_cycles_the_momentum_too():
    report = parity.run(one_cycle_pair(), steps=6)
    assert report.in_step, report
    (momentum,) = (row for row in report.rows if row.leaf.kind == "momentum")
    assert momentum.worst.scale == pytest.approx(0.95)


def test_a_forgotten_momentum_cycle_is_found():
    report = parity.run(one_cycle_pair(cycle_momentum=False), steps=6)
    first = report.first_divergence
    assert (first.step, first.stage, first.leaf.kind) == (0, "schedule", "momentum")


def groups_pair(second_lr):
    pair = linear_pair()
    model = pair.torch.model
    optimizer = torch.optim.AdamW(
        [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.3}], lr=0.1
    )
    tx = instep.optim.param_groups(
        [("kernel", instep.optim.adamw(0.1)), ("bias", instep.optim.adamw(second_lr))]
    )
    return replace(
        pair,
        torch=replace(pair.torch, optimizer=optimizer),
        jax=replace(pair.jax, tx=tx),
    )


def test_the_rate_of_every_group_is_compared():
    report = parity.run(groups_pair(0.3), steps=4)
    assert report.in_step, report
    rates = sorted(row.leaf.name for row in report.rows if row.leaf.kind == "lr")
    assert rates == ["group 0", "group 1"]
    first = parity.run(groups_pair(0.1), steps=4).first_divergence
    assert (first.stage, first.leaf.kind, first.leaf.name) == ("schedule", "lr", "group 1")
