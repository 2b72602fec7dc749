"""``from_torch`` and ``to_torch``: one step in JAX is the step of the loop, and back."""

from __future__ import annotations

import copy

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_

import instep
from conftest import assert_bitwise, assert_in_step
from instep.bridge import array_to_tensor


K = 2


class Net(nn.Module):
    """Convolution, BatchNorm, a frozen layer and one that the loss never uses."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, images):
        x = F.relu(self.norm(self.conv(images)))
        return self.head(self.frozen(x.mean((2, 3))))


def loss_fn(model, batch):
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def make_loop(scheduler=None, scaler=None, **options) -> instep.TorchLoop:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batches = [(torch.randn(4, 1, 5, 5), torch.randint(0, 3, (4,))) for _ in range(6)]
    if scheduler is not None:
        scheduler = scheduler(optimizer)
    return instep.TorchLoop(
        model, loss_fn, optimizer, batches, scheduler, accumulate=K, scaler=scaler, **options
    )


def arrays(window):
    return instep.stack([tuple(x.numpy() for x in microbatch) for microbatch in window])


def windows(loop):
    return [loop.batches[i : i + K] for i in range(0, len(loop.batches), K)]


def standing(loop):
    """Everything that a loop holds, as arrays."""
    tensors = {**loop.model.state_dict()}
    for name, p in loop.model.named_parameters():
        for slot, value in loop.optimizer.state.get(p, {}).items():
            tensors[f"{name}.{slot}"] = value
    tensors["lr"] = torch.tensor(loop.optimizer.param_groups[0]["lr"])
    return {name: x.detach().numpy().copy() for name, x in tensors.items()}


def test_both_loops_written_out(x64):
    loop = make_loop(clip_grad_norm=0.5)
    model, optimizer = loop.model, loop.optimizer

    train_step, state = instep.from_torch(loop)
    jax_losses = []
    for window in windows(loop):
        state, metrics = train_step(state, arrays(window))
        jax_losses.append(metrics.loss)

    torch_losses = []
    for window in windows(loop):
        optimizer.zero_grad()
        total = 0.0
        for microbatch in window:
            loss = loss_fn(model, microbatch) / K
            loss.backward()
            total += loss.item()
        clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        torch_losses.append(total)

    assert_in_step(np.array(torch_losses), np.array(jax_losses), "losses")
    for name, p in model.named_parameters():
        assert_in_step(p, state.params[name], name, at_least=1.0)
    for name, b in model.named_buffers():
        assert_in_step(b.double(), np.asarray(state.buffers[name], float), name, at_least=1.0)


def test_the_loop_is_left_untouched():
    loop = make_loop(lambda o: torch.optim.lr_scheduler.StepLR(o, 2))
    before, rng = copy.deepcopy(standing(loop)), torch.get_rng_state()
    train_step, state = instep.from_torch(loop)
    for window in windows(loop):
        state, _ = train_step(state, arrays(window))
    after = standing(loop)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(p.grad is None for p in loop.model.parameters())


SCHEDULERS = {
    "none": None,
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
    "one_cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_hand_over_in_the_middle_and_back(scheduler, x64):
    """Torch, JAX, torch: a step each, against three steps of PyTorch."""
    whole, handed = make_loop(scheduler), make_loop(scheduler)
    first, second, third = windows(whole)
    for n, window in enumerate((first, second, third), start=1):
        run_in_torch(whole, window, n)

    run_in_torch(handed, first, 1)
    train_step, state = instep.from_torch(handed)
    state, _ = train_step(state, arrays(second))
    instep.to_torch(state, handed)
    run_in_torch(handed, third, 3)

    expected, found = standing(whole), standing(handed)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        if value.dtype.kind == "f":
            assert_in_step(value, found[name], name, at_least=1.0)
        else:
            assert np.array_equal(value, found[name]) and value.dtype == found[name].dtype, name


def run_in_torch(loop, window, n):
    from instep.bridge._torch_loop import run_step

    run_step(loop, window, n)


def test_to_torch_of_a_fresh_state_changes_nothing():
    loop = make_loop()
    _, state = instep.from_torch(loop)
    before = standing(loop)
    instep.to_torch(state, loop)
    assert_bitwise(before, standing(loop))


def test_grad_none_means_no_step_and_frozen_stays():
    loop = make_loop()
    train_step, state = instep.from_torch(loop)
    before = jax.device_get(state.params)
    state, _ = train_step(state, arrays(windows(loop)[0]))
    for name, old in before.items():
        still = name.startswith(("unused", "frozen"))
        assert np.array_equal(old, state.params[name]) == still, name


def test_a_batch_of_another_shape_is_traced_anew(x64):
    loop = make_loop()
    train_step, state = instep.from_torch(loop)
    small = [(images[:3], labels[:3]) for images, labels in loop.batches[:K]]
    state, metrics = train_step(state, arrays(small))
    expected = sum(loss_fn(loop.model, microbatch) for microbatch in small) / K
    assert_in_step(expected, metrics.loss)


def test_torch_tensors_are_taken_as_well():
    loop = make_loop()
    train_step, state = instep.from_torch(loop)
    stacked = tuple(torch.stack(x) for x in zip(*loop.batches[:K], strict=True))
    assert np.isfinite(train_step(state, stacked)[1].loss)


def test_parity_takes_the_loop():
    report = instep.parity.run(make_loop(clip_grad_norm=1.0), steps=2)
    assert report.in_step, str(report)


def test_parity_replays_what_dropout_draws():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(4)]
    loop = instep.TorchLoop(model, loss_fn, optimizer, batches, accumulate=2)
    report = instep.parity.run(loop, steps=2)
    assert report.in_step, str(report)


def test_parity_of_a_lowered_loop_can_fail(monkeypatch):
    """With a rule that is PyTorch's no more, the gradient is where it diverges."""
    from instep import ops
    from instep.bridge.lower import _table

    monkeypatch.setitem(_table.ATEN, "relu", lambda x: ops.leaky_relu(x, 1e-6))
    report = instep.parity.run(make_loop(), steps=1)
    assert not report.in_step and report.first_divergence.stage == "loss"


def test_gradients_that_nothing_clears_are_refused_with_clipping():
    loop = make_loop(clip_grad_norm=1.0)
    optimizer = torch.optim.SGD(loop.model.head.parameters(), lr=0.1)
    loop = instep.TorchLoop(
        loop.model, loss_fn, optimizer, loop.batches, accumulate=K, clip_grad_norm=1.0
    )
    with pytest.raises(ValueError, match=r"'conv.weight'.*no optimizer clears"):
        instep.from_torch(loop)


def test_a_state_of_another_model_is_refused():
    _, state = instep.from_torch(make_loop())
    torch.manual_seed(0)
    other = nn.Linear(4, 3)
    loop = instep.TorchLoop(
        other,
        loss_fn,
        torch.optim.SGD(other.parameters()),
        [(torch.ones(2, 4), torch.zeros(2))],
    )
    with pytest.raises(
        ValueError, match=r"of another model: .*conv.weight.* only in the state"
    ):
        instep.to_torch(state, loop)


def test_a_scaler_goes_along():
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    loop = make_loop(scaler=scaler)
    train_step, state = instep.from_torch(loop)
    state, _ = train_step(state, arrays(windows(loop)[0]))
    assert float(state.scaler.scale) == 8.0
    instep.to_torch(state, loop)
    assert scaler.get_scale() == 8.0
    assert array_to_tensor(np.asarray(state.params["head.bias"])).equal(loop.model.head.bias)
