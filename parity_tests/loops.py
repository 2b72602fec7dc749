"""A small loop that classifies, with the optimizer and what else a test gives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import instep
from conftest import assert_in_step


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


def linear_mean() -> instep.TorchLoop:
    """The least that is a loop: the mean of one linear layer, on one batch of shape (2, 3)."""
    model = torch.nn.Linear(3, 1)
    return instep.TorchLoop(
        model,
        lambda model, x: model(x).mean(),
        torch.optim.SGD(model.parameters(), lr=0.1),
        [torch.ones(2, 3)],
    )
