"""A loop whose ReduceLROnPlateau gets its own loss, both written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

import instep
from conftest import assert_in_step
from instep import bridge, parity
from instep.parity._pair import lowered_pair
from loops import arrays, assert_same_parameters, loss_fn, make_loop, sgd


def plateau(optimizer):
    return ReduceLROnPlateau(optimizer, factor=0.5, patience=0, cooldown=1, threshold=0.9)


PLATEAU = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


def test_plateau_both_loops_written_out_and_back(x64):
    loop = make_loop(sgd, [4] * 10, plateau, scheduler_every=2, metric=lambda loss: 2 * loss)
    train_step, state = instep.from_torch(loop)
    jax_losses, jax_rates = [], []
    for microbatch in loop.batches:
        state, metrics = train_step(state, arrays(microbatch))
        jax_losses.append(metrics.loss)
        jax_rates.append(float(instep.optim.hyperparams(state.opt_state)["lr"]))
    back = make_loop(sgd, [4] * 10, plateau, scheduler_every=2, metric=loop.metric)
    instep.to_torch(state, back)

    optimizer, scheduler = loop.optimizer, loop.scheduler
    torch_losses, torch_rates = [], []
    for n, microbatch in enumerate(loop.batches, start=1):
        optimizer.zero_grad()
        loss = loss_fn(loop.model, microbatch)
        loss.backward()
        optimizer.step()
        if n % 2 == 0:
            scheduler.step(2 * loss.item())
        torch_losses.append(loss.item())
        torch_rates.append(optimizer.param_groups[0]["lr"])

    assert len(set(torch_rates)) > 2  # reduced twice
    assert_in_step(np.array(torch_rates), np.array(jax_rates))
    assert_in_step(np.array(torch_losses), np.array(jax_losses))
    assert_same_parameters(loop, state)
    for name in PLATEAU:
        assert_in_step(
            np.array(getattr(scheduler, name)), np.array(getattr(back.scheduler, name)), name
        )
    assert back.optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    assert back.scheduler.get_last_lr() == scheduler.get_last_lr()


def test_plateau_goes_on_where_the_scaler_skips(x64):
    """PyTorch's scheduler does not know that a step was skipped, and counts it as bad."""

    def scaler():
        return torch.amp.GradScaler("cpu", init_scale=2.0)

    loop = make_loop(sgd, [4] * 3, plateau, metric=lambda loss: loss, scaler=scaler())
    loop.batches[1][0][0, 0] = torch.inf
    train_step, state = instep.from_torch(loop)
    skipped = []
    for microbatch in loop.batches:
        state, metrics = train_step(state, arrays(microbatch))
        skipped.append(bool(metrics.skipped))
    assert skipped == [False, True, False]
    for n, microbatch in enumerate(loop.batches, start=1):
        bridge._torch_loop.run_step(loop, [microbatch], n)
    seen = state.opt_state.plateau
    for name in PLATEAU:
        assert_in_step(np.array(getattr(loop.scheduler, name)), getattr(seen, name), name)
    assert float(seen.lr) == loop.optimizer.param_groups[0]["lr"] == 0.25
    assert_same_parameters(loop, state)


def test_plateau_has_a_rate_for_each_group(x64):
    def groups(params):
        a, b, c, _ = params
        return torch.optim.SGD(
            [
                {"params": [a], "lr": 0.1},
                {"params": [b.requires_grad_(False)]},
                {"params": [c]},
            ],
            lr=0.7,
        )

    def every_step(optimizer):
        return ReduceLROnPlateau(optimizer, patience=0, min_lr=[0.0, 0.2, 0.05], threshold=1.0)

    loop = make_loop(groups, [4] * 3, every_step, metric=lambda loss: loss)
    train_step, state = instep.from_torch(loop)
    for n, microbatch in enumerate(loop.batches, start=1):
        state, _ = train_step(state, arrays(microbatch))
        bridge._torch_loop.run_step(loop, [microbatch], n)
    rates = [group["lr"] for group in loop.optimizer.param_groups]
    assert_in_step(np.array(rates), np.asarray(state.opt_state.plateau.lr))
    assert_same_parameters(loop, state)
    before = [float(x) for x in rates]
    instep.to_torch(state, loop)
    assert [group["lr"] for group in loop.optimizer.param_groups] == before


@pytest.mark.exhaustive
def test_parity_judges_the_plateau():
    loop = make_loop(sgd, [4] * 8, plateau, metric=lambda loss: loss)
    report = parity.run(loop, steps=8)
    assert report.in_step, report
    judged = {row.leaf.name: row.status for row in report.rows if row.leaf.kind == "plateau"}
    assert set(judged) == set(PLATEAU) and judged["best"] == "in step"


@pytest.mark.exhaustive
def test_parity_sees_another_patience():
    loop = make_loop(sgd, [4] * 8, plateau, metric=lambda loss: loss)
    pair = lowered_pair(loop, 8)
    other = instep.schedules.reduce_lr_on_plateau(
        0.5, factor=0.5, patience=1, cooldown=1, threshold=0.9
    )
    tx = instep.optim.on_plateau(instep.optim.sgd(0.5, momentum=0.9), other)
    report = parity.run(replace(pair, jax=replace(pair.jax, tx=tx, opt_state=None)), steps=8)
    assert report.first_divergence.stage == "schedule", report


PLATEAU_REQUESTS = {
    "no metric": (
        lambda: make_loop(sgd, scheduler=plateau),
        ValueError,
        r"ReduceLROnPlateau steps on a metric: give metric=lambda loss: loss",
    ),
    "a metric for another scheduler": (
        lambda: make_loop(
            sgd,
            scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1),
            metric=lambda loss: loss,
        ),
        ValueError,
        r"metric is what ReduceLROnPlateau steps on, and there is StepLR",
    ),
    "a subclass": (
        lambda: make_loop(
            sgd, scheduler=type("Mine", (ReduceLROnPlateau,), {}), metric=lambda loss: loss
        ),
        TypeError,
        r"Mine is not torch's own ReduceLROnPlateau",
    ),
    "a metric that cannot be traced": (
        lambda: _first_step(make_loop(sgd, scheduler=plateau, metric=lambda loss: float(loss))),
        TypeError,
        r"JAX must be able to trace it.*metric=lambda loss: -loss",
    ),
    "no loss": (
        lambda: _without_a_loss(),
        ValueError,
        r"tx.update\(grads, opt_state, params, value=loss\)",
    ),
    "too few rates": (
        lambda: instep.optim.on_plateau(
            instep.optim.param_groups(
                [("a", instep.optim.sgd(0.1)), ("b", instep.optim.sgd(0.2))]
            ),
            instep.schedules.reduce_lr_on_plateau(0.1),
        ).init({"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}),
        ValueError,
        r"learning rates of groups \[0, 1\], and the plateau those of 1",
    ),
    "a state without a plateau": (
        lambda: _of_another_scheduler(),
        ValueError,
        r"opt_state is a OptimizerState, which is not that of an optimizer with a ReduceLRO",
    ),
}


def _first_step(loop):
    train_step, state = instep.from_torch(loop)
    return train_step(state, arrays(loop.batches[0]))


def _without_a_loss():
    made = instep.schedules.reduce_lr_on_plateau(0.1)
    tx, params = instep.optim.on_plateau(instep.optim.sgd(0.1), made), {"a": np.ones(1)}
    tx.update(params, tx.init(params), params)


def _of_another_scheduler():
    loop = make_loop(sgd)
    _, opt_state = bridge.optimizer_from_torch(loop.optimizer, loop.model)
    scheduler = ReduceLROnPlateau(loop.optimizer)
    bridge.optimizer_to_torch(opt_state, loop.optimizer, loop.model, scheduler=scheduler)


@pytest.mark.parametrize("name", PLATEAU_REQUESTS)
def test_plateau_requests(name):
    call, error, message = PLATEAU_REQUESTS[name]
    with pytest.raises(error, match=message):
        call()
