"""digits-mlp: three linear layers, one of them square; AdamW; the Flax half in plain optax."""

from __future__ import annotations

import optax
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

import instep
from instep import bridge

from ._digits import test_set, train_loader
from ._metric import ACCURACY
from ._workload import FlaxHalf, Workload


LR, WEIGHT_DECAY = 2e-3, 1e-2
STEPS, BATCH = 400, 64


# The PyTorch half, as a PyTorch user writes it.


class TorchMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc3 = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def torch_loss(model, batch):
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def torch_half(seed: int = 0) -> instep.TorchLoop:
    torch.manual_seed(seed)
    model = TorchMLP()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    return instep.TorchLoop(model, torch_loss, optimizer, train_loader(BATCH, seed))


# The Flax half, as a Flax user writes it: nothing from instep but the description.


class FlaxMLP(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.fc1 = nnx.Linear(64, 64, rngs=rngs)
        self.fc2 = nnx.Linear(64, 64, rngs=rngs)
        self.fc3 = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.fc1(x.reshape(x.shape[0], -1)))
        x = nnx.relu(self.fc2(x))
        return self.fc3(x)


def flax_loss(model, batch):
    images, labels = batch
    logits = model(images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def flax_half() -> FlaxHalf:
    return FlaxHalf(FlaxMLP(nnx.Rngs(0)), flax_loss)


def jax_half() -> instep.JaxLoop:
    graphdef, params = nnx.split(FlaxMLP(nnx.Rngs(0)), nnx.Param)

    def loss_fn(params, batch):
        return flax_loss(nnx.merge(graphdef, params), batch)

    def apply(params, buffers, images):
        del buffers
        return nnx.merge(graphdef, params)(images)

    tx = optax.adamw(LR, weight_decay=WEIGHT_DECAY)
    return instep.JaxLoop(loss_fn, tx, params, apply=apply)


# What corresponds to what.

WEIGHTS = [bridge.linear("fc1"), bridge.linear("fc2"), bridge.linear("fc3")]

WORKLOAD = Workload(
    name="digits-mlp",
    summary="three linear layers, one of them square; AdamW, in plain optax on the JAX side",
    make_pair=lambda seed=0: instep.Pair(torch_half(seed), jax_half(), WEIGHTS),
    total_steps=STEPS,
    held_out=test_set,
    metric=ACCURACY,
    target=0.95,
    flax=flax_half,
)
