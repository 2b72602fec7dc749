"""Short last windows, small last batches, and a loop taken in the middle of an epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.utils import clip_grad_norm_

import instep
from conftest import assert_in_step
from instep import bridge, parity
from instep.parity._pair import lowered_pair
from loops import arrays, assert_same_parameters, loss_fn, make_loop, sgd


def test_a_short_last_window_written_out(x64):
    """5 microbatches in windows of 2: the last window has one, and the mean is its own."""
    loop = make_loop(sgd, [4] * 5, accumulate=2, drop_last=False, clip_grad_norm=0.3)
    epoch = [loop.batches[i : i + 2] for i in range(0, 5, 2)]
    train_step, state = instep.from_torch(loop)
    jax_losses = []
    for window in epoch:
        state, metrics = train_step(state, instep.stack([arrays(x) for x in window]))
        jax_losses.append(metrics.loss)

    torch_losses = []
    for window in epoch:
        loop.optimizer.zero_grad()
        total = 0.0
        for microbatch in window:
            loss = loss_fn(loop.model, microbatch) / len(window)
            loss.backward()
            total += loss.item()
        clip_grad_norm_(loop.model.parameters(), 0.3)
        loop.optimizer.step()
        torch_losses.append(total)
    assert_in_step(np.array(torch_losses), np.array(jax_losses))
    assert_same_parameters(loop, state)


def test_windows_end_with_the_epoch():
    def lengths(n, **options):
        loop = make_loop(sgd, [1] * n, accumulate=3, **options)
        stream = bridge._torch_loop.windows(loop)
        return [len(next(stream)) for _ in range(4)]

    assert lengths(7) == [3, 3, 3, 3]
    assert lengths(7, drop_last=False) == [3, 3, 1, 3]
    assert lengths(2, drop_last=False) == [2, 2, 2, 2]
    with pytest.raises(ValueError, match="yielded 2 microbatches in an epoch; accumulate=3"):
        lengths(2)
    with pytest.raises(ValueError, match="yielded 0 microbatches.*needs at least 1"):
        lengths(0, drop_last=False)


def test_a_window_of_another_length_is_refused():
    """A full window is the rule; and no window is longer than that."""
    for n, drop_last in ((1, True), (3, True), (3, False)):
        loop = make_loop(sgd, [4] * 3, accumulate=2, drop_last=drop_last)
        train_step, state = instep.from_torch(loop)
        window = instep.stack([arrays(x) for x in loop.batches[:n]])
        with pytest.raises(ValueError, match=r"with accumulate=2 every leaf.*\(2, b, ...\)"):
            train_step(state, window)


def test_a_smaller_last_batch_is_traced_once_more(x64):
    """What DataLoader(drop_last=False) yields: (4, 3), (4, 3), (2, 3)."""
    loop = make_loop(sgd, [4, 4, 2])
    train_step, state = instep.from_torch(loop)
    for n, microbatch in enumerate(loop.batches * 2, start=1):
        state, metrics = train_step(state, arrays(microbatch))
        loss = bridge._torch_loop.run_step(loop, [microbatch], n)
        assert_in_step(loss, metrics.loss)
    assert_same_parameters(loop, state)


@pytest.mark.exhaustive
@pytest.mark.parametrize("scaled", [False, True])
def test_parity_walks_short_windows_and_small_batches(scaled):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0) if scaled else None
    loop = make_loop(sgd, [4, 4, 4, 4, 2], accumulate=2, drop_last=False, scaler=scaler)
    report = parity.run(loop, steps=4)  # the third window has one microbatch, of two examples
    assert report.in_step, report
    pair = lowered_pair(loop, 4)
    with pytest.raises(ValueError, match="PyTorch has drop_last=False, JAX True"):
        replace(pair, jax=replace(pair.jax, drop_last=True))


@pytest.mark.exhaustive
def test_parity_goes_on_in_the_middle_of_an_epoch():
    """After 2 of the 3 optimizer steps of an epoch, the first one of the walk ends it."""

    def adamw(params):
        return torch.optim.AdamW(params, lr=0.1)

    def halved(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    loop = make_loop(adamw, [4] * 4, halved, scheduler_every=3)
    for n in (1, 2):
        bridge._torch_loop.run_step(loop, [loop.batches[n]], n)
    report = parity.run(loop, steps=3, precisions=[])
    assert report.in_step, report
    (rate,) = (row for row in report.rows if row.leaf.kind == "lr")
    assert rate.status == "in step"
