"""Losses that hold more than they are given: teachers, criteria, the model by another name."""

from __future__ import annotations

import copy

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import instep
from conftest import assert_in_step, strict_float64
from instep._errors import LoweringError
from instep.bridge._copy import copy_loop
from instep.bridge.lower._loss import LoweredLoss


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)
    )


def criterion(model):
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.7]))
    return lambda m, b: weighted(m(b[0]), b[1])


def teacher(model):
    taught_by = net().eval()

    def loss_fn(m, b):
        with torch.no_grad():
            target = taught_by(b[0]).softmax(-1)
        return F.kl_div(m(b[0]).log_softmax(-1), target, reduction="batchmean")

    return loss_fn


def ema(model):
    slow = copy.deepcopy(model).requires_grad_(False).eval()
    return lambda m, b: F.mse_loss(m(b[0]), slow(b[0]))


class Perceptual(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Linear(3, 2).requires_grad_(False)
        self.register_buffer("mean", torch.full((3,), 0.1))

    def forward(self, x, y):
        return F.l1_loss(self.features(x - self.mean), self.features(y))


def perceptual(model):
    distance = Perceptual()
    return lambda m, b: distance(m(b[0]), b[0])


def head_that_nothing_trains(model):
    head = nn.Linear(3, 3)
    return lambda m, b: F.cross_entropy(head(m(b[0])), b[1])


class Method:
    def __init__(self):
        self.modules = {"teacher": net().eval(), "mix": [torch.tensor(0.3)]}

    def loss(self, m, b):
        target = self.modules["teacher"](b[0]).detach()
        return F.mse_loss(m(b[0]), target) * self.modules["mix"][0]


def method(model):
    return Method().loss


def its_parameters(model):
    def loss_fn(m, b):
        return F.cross_entropy(m(b[0]), b[1]) + sum(
            p.square().sum() for p in model.parameters()
        )

    return loss_fn


def itself(model):
    return lambda m, b: F.cross_entropy(model(b[0]), b[1])


FEW = (teacher, perceptual, its_parameters)
MORE = (criterion, ema, head_that_nothing_trains, method, itself)
HOLDING = [*FEW, *(pytest.param(holding, marks=pytest.mark.exhaustive) for holding in MORE)]


def loop(holding) -> instep.TorchLoop:
    torch.manual_seed(0)
    model, batch = net(), (torch.randn(5, 3), torch.randint(3, (5,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return instep.TorchLoop(model, holding(model), optimizer, [batch])


@pytest.mark.parametrize("holding", HOLDING, ids=lambda f: f.__name__)
def test_loss_gradients_and_buffers_in_float64(holding):
    """Of a float32 loop, as a walk does it."""
    mine = loop(holding)
    lowered = LoweredLoss(mine.model, mine.loss_fn, mine.batches[0])
    with strict_float64():
        theirs = copy_loop(mine, torch.float64)
        x, labels = mine.batches[0]
        names = dict(theirs.model.named_parameters())
        params, buffers = (
            {name: p.detach().numpy().copy() for name, p in given}
            for given in (theirs.model.named_parameters(), theirs.model.named_buffers())
        )

        def loss(params):
            made = lowered(params, buffers, [x.double().numpy(), labels.numpy()], None)
            return made.total, made

        grads, made = jax.grad(loss, has_aux=True)(params)
        expected = theirs.loss_fn(theirs.model, (x.double(), labels))
        expected.backward()
        assert_in_step(expected, made.total)
        for name, p in names.items():
            assert_in_step(p.grad, grads[name], name)
        for name, b in theirs.model.named_buffers():
            assert_in_step(b, made.buffers[name], name)
    assert all(p.grad is None for p in mine.model.parameters())
    assert mine.model[1].num_batches_tracked == 0


def test_a_step_is_that_of_the_loop():
    """Whose loss uses its model by its other name: two ways to say the same."""
    mine, plain = loop(its_parameters), loop(its_parameters)

    def loss_fn(m, b):
        return F.cross_entropy(m(b[0]), b[1]) + sum(p.square().sum() for p in m.parameters())

    plain = instep.TorchLoop(plain.model, loss_fn, plain.optimizer, plain.batches)
    states = []
    for each in (mine, plain):
        train_step, state = instep.from_torch(each)
        batch = tuple(x.numpy() for x in each.batches[0])
        states.append(train_step(state, batch)[0].params)
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.exhaustive
@pytest.mark.parametrize("holding", HOLDING, ids=lambda f: f.__name__)
def test_walks(holding):
    instep.parity.assert_in_step(loop(holding), steps=2)


def test_a_teacher_that_is_written_is_refused():
    def training(model):
        taught_by = net()
        return lambda m, b: F.mse_loss(m(b[0]), taught_by(b[0]).detach())

    with pytest.raises(LoweringError, match=r"a teacher with BatchNorm\) must be inside"):
        instep.from_torch(loop(training))
