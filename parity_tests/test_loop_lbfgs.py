"""A loop with LBFGS: closures on both sides, written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

import instep
from conftest import assert_in_step
from instep import parity
from instep.parity._pair import lowered_pair
from loops import arrays, assert_same_parameters, loss_fn, make_loop


def lbfgs(params):
    return torch.optim.LBFGS(
        params, lr=0.8, max_iter=4, history_size=3, line_search_fn="strong_wolfe"
    )


def test_lbfgs_both_loops_written_out_and_back(x64):
    loop = make_loop(lbfgs, [4] * 4, accumulate=2, clip_grad_norm=0.4)
    epoch = [loop.batches[:2], loop.batches[2:]]
    train_step, state = instep.from_torch(loop)
    jax_losses = []
    for window in epoch:
        state, metrics = train_step(state, instep.stack([arrays(x) for x in window]))
        jax_losses.append(metrics.loss)
    back = make_loop(lbfgs, [4] * 4, accumulate=2, clip_grad_norm=0.4)
    instep.to_torch(state, back)

    optimizer, torch_losses = loop.optimizer, []
    for window in epoch:

        def closure(window=window):
            optimizer.zero_grad()
            total = torch.zeros(())
            for microbatch in window:
                loss = loss_fn(loop.model, microbatch) / 2
                loss.backward()
                total += loss.detach()
            clip_grad_norm_(loop.model.parameters(), 0.4)
            return total

        torch_losses.append(optimizer.step(closure).item())

    assert_in_step(np.array(torch_losses), np.array(jax_losses))
    assert_same_parameters(loop, state)
    right, found = (o.state_dict()["state"][0] for o in (optimizer, back.optimizer))
    assert len(right["old_dirs"]) == len(found["old_dirs"]) == 2
    assert right["n_iter"] == found["n_iter"] and right["func_evals"] == found["func_evals"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("searched", [True, False])
def test_parity_judges_lbfgs_from_where_torch_stands(searched):
    def fixed(params):
        return torch.optim.LBFGS(params, lr=0.3, max_iter=3, history_size=4)

    loop = make_loop(lbfgs if searched else fixed, [8] * 4, accumulate=2)
    report = parity.run(loop, steps=3)
    assert report.in_step, report
    assert "float64" not in [walk.plan.name for walk in report.walks]
    assert "drawn, not judged" in report.coverage.unseen[0]
    names = {row.leaf.name for row in report.rows if row.leaf.kind == "state"}
    assert {"0.weight.old_dirs", "2.bias.d", "LBFGS.H_diag", "LBFGS.func_evals"} <= names


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "wrong", [{"lr": 0.8001}, {"history_size": 2}, {"line_search_fn": None}, {"max_iter": 5}]
)
def test_parity_sees_another_lbfgs(wrong):
    loop = make_loop(lbfgs, [8] * 4)
    pair = lowered_pair(loop, 3)
    options = dict(lr=0.8, max_iter=4, history_size=3, line_search_fn="strong_wolfe")
    tx = instep.optim.lbfgs(**options | wrong)
    report = parity.run(
        replace(pair, jax=replace(pair.jax, tx=tx, opt_state=None)), steps=3, precisions=[]
    )
    assert not report.in_step and report.first_divergence.stage in ("optimizer", "schedule")
    named = {one.mistake for cause in report.causes for one in cause.explanations}
    assert named & {"another_lbfgs_setting", "another_base_rate"}, report


def with_module(module):
    loop = make_loop(lbfgs, [4])
    model = nn.Sequential(loop.model, module)
    return replace(loop, model=model, optimizer=lbfgs(model.parameters()))


LBFGS_REQUESTS = {
    "a scaler": (
        lambda: make_loop(lbfgs, scaler=torch.amp.GradScaler("cpu")),
        r"a closure\), which a GradScaler does not support",
    ),
    "BatchNorm": (
        lambda: instep.from_torch(with_module(nn.BatchNorm1d(3))),
        r"each time PyTorch would change 1.running_mean, .*in eval mode",
    ),
    "dropout": (
        lambda: instep.from_torch(with_module(nn.Dropout(0.5))),
        r"draws at random each time.*dropout in eval mode",
    ),
}


@pytest.mark.parametrize("name", LBFGS_REQUESTS)
def test_lbfgs_requests(name):
    call, message = LBFGS_REQUESTS[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.exhaustive
def test_lbfgs_with_a_disabled_scaler_and_modules_in_eval_mode():
    loop = with_module(nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).eval())
    loop = replace(loop, scaler=torch.amp.GradScaler("cpu", enabled=False))
    train_step, state = instep.from_torch(loop)
    state, first = train_step(state, arrays(loop.batches[0]))
    _, second = train_step(state, arrays(loop.batches[0]))
    assert second.loss < first.loss
