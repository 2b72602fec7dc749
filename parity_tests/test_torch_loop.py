"""What a TorchLoop may say: a metric, a short last window, a closure; each loop written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import ReduceLROnPlateau

import instep
from conftest import assert_in_step
from instep import bridge, parity


def loss_fn(model, batch):
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


def make_loop(optimizer, sizes=(4,), scheduler=None, **options) -> instep.TorchLoop:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    optimizer = optimizer(model.parameters())
    batches = [(torch.randn(n, 3), torch.randint(0, 3, (n,))) for n in sizes]
    if scheduler is not None:
        scheduler = scheduler(optimizer)
    return instep.TorchLoop(model, loss_fn, optimizer, batches, scheduler, **options)


def sgd(params):
    return torch.optim.SGD(params, lr=0.5, momentum=0.9)


def arrays(microbatch):
    return tuple(x.numpy() for x in microbatch)


def assert_same_parameters(loop, state):
    for name, p in loop.model.named_parameters():
        assert_in_step(p, state.params[name], name)


# ------------------------------------------------------------------- ReduceLROnPlateau


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
    pair = parity._pair.lowered_pair(loop, 8)
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


# --------------------------------------------------------------------------- drop_last


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
    pair = parity._pair.lowered_pair(loop, 4)
    with pytest.raises(ValueError, match="PyTorch has drop_last=False, JAX True"):
        replace(pair, jax=replace(pair.jax, drop_last=True))


# ------------------------------------------------------------------------------- LBFGS


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
    pair = parity._pair.lowered_pair(loop, 3)
    options = dict(lr=0.8, max_iter=4, history_size=3, line_search_fn="strong_wolfe")
    tx = instep.optim.lbfgs(**options | wrong)
    report = parity.run(
        replace(pair, jax=replace(pair.jax, tx=tx, opt_state=None)), steps=3, precisions=[]
    )
    assert not report.in_step and report.first_divergence.stage in ("optimizer", "schedule")


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


# ------------------------------------------------- what a loss_fn and a batch may not be


def of_loss(loss):
    return lambda: instep.from_torch(replace(make_loop(sgd), loss_fn=loss))


def squares(model, batch):
    return (model(batch[0]) ** 2).mean()


def backward_inside(model, batch):
    loss = squares(model, batch)
    loss.backward()
    return loss


REQUESTS = {
    "a tuple": (
        of_loss(lambda m, b: (squares(m, b), 0)),
        TypeError,
        "it returned a tuple of 2. Return the loss alone",
    ),
    "no scalar": (
        of_loss(lambda m, b: m(b[0])[0]),
        TypeError,
        r"a tensor of shape \(3,\). Reduce it",
    ),
    "a number": (
        of_loss(lambda m, b: squares(m, b).item()),
        TypeError,
        r"a number, which has no gradient. Leave out the .item\(\)",
    ),
    "nothing": (of_loss(lambda m, b: None), TypeError, "it returned a NoneType"),
    "detached": (
        of_loss(lambda m, b: squares(m, b).detach()),
        ValueError,
        "a gradient for no parameter of the model: it is detached",
    ),
    "backward inside": (of_loss(backward_inside), ValueError, r"loss_fn calls backward\(\)"),
    "two optimizers": (
        lambda: make_loop(lambda p: [torch.optim.SGD(list(p), lr=0.1)]),
        TypeError,
        "optimizer is a list; give one torch.optim.Optimizer.*docs/gan.md",
    ),
    "the meta device": (
        lambda: replace(
            make_loop(sgd),
            model=(meta := nn.Linear(3, 3, device="meta")),
            optimizer=sgd(meta.parameters()),
        ),
        ValueError,
        "weight, bias of the model are on the meta device",
    ),
    "a generator": (
        lambda: replace(make_loop(sgd), batches=(x for x in [1])),
        TypeError,
        "batches is a generator, which is used up after one pass",
    ),
    "no batches": (
        lambda: replace(make_loop(sgd), batches=3),
        TypeError,
        "batches is a int; give an iterable of microbatches",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests(name):
    call, error, message = REQUESTS[name]
    with pytest.raises(error, match=message):
        call()


def nested(n: int, scale: int = 3):
    inputs, labels = torch.randn(n, 3), torch.randint(0, 3, (n,))
    return {"x": inputs, "more": {"y": labels, "list": [scale, None]}, "name": "train"}


def of_nested(model, batch):
    scale, _ = batch["more"]["list"]
    return scale * F.cross_entropy(model(batch["x"]), batch["more"]["y"])


def test_constants_in_a_batch_are_part_of_the_step(x64):
    loop = replace(make_loop(sgd, accumulate=2), loss_fn=of_nested)
    loop = replace(loop, batches=[nested(4), nested(4)])
    train_step, state = instep.from_torch(loop)
    stacked = instep.stack([nested_arrays(x) for x in loop.batches])
    assert stacked["name"].shape == stacked["more"]["list"][0].shape == (2,)
    loss = bridge._torch_loop.run_step(loop, loop.batches, 1)
    state, metrics = train_step(state, stacked)
    assert_in_step(loss, metrics.loss)
    for wrong in (nested(4, scale=4), nested(4) | {"name": "test"}):
        with pytest.raises(ValueError, match="which is part of it.*or leave it out"):
            train_step(state, instep.stack([nested_arrays(wrong)] * 2))


def nested_arrays(batch):
    return bridge._tensors.to_numpy(batch)


def test_torch_tensors_of_any_kind_are_taken(x64):
    """bfloat16, which NumPy lacks, and one that requires a gradient."""
    loop = make_loop(sgd)
    inputs, labels = loop.batches[0]
    for wanted in (inputs.bfloat16(), inputs.clone().requires_grad_()):
        batch = wanted, labels
        given = replace(loop, batches=[batch], loss_fn=in_float64)
        train_step, state = instep.from_torch(given)
        _, metrics = train_step(state, batch)
        assert_in_step(in_float64(loop.model, batch), metrics.loss)


def in_float64(model, batch):
    return F.cross_entropy(model(batch[0].double()), batch[1])


# ------------------------------------------------------------------------- mid-training


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
