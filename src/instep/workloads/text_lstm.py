"""text-lstm: a character model over Python's reference manual; centered RMSprop, clipping.

Letters: B batch, T time, E width of the embedding, H of the state, V vocabulary.

Graves, Generating Sequences With Recurrent Neural Networks, 2013, whose optimizer it is.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

import instep

from ._manual import alphabet, manual_codes
from ._metric import NATS_PER_CHARACTER
from ._windows import held_out, train_loader
from ._workload import FlaxHalf, Workload


V, E, H, LAYERS = len(alphabet()), 32, 128, 2
LR, ALPHA, EPS, MOMENTUM, MAX_NORM = 1e-3, 0.95, 1e-4, 0.9, 0.25
STEPS, GAMMA = 400, 0.995  # the rate falls by GAMMA at every step
BATCH, LENGTH, HELD_OUT = 32, 64, 8


# The PyTorch half, as a PyTorch user writes it.


class TorchLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, E)
        self.lstm = nn.LSTM(E, H, LAYERS, batch_first=True)
        self.head = nn.Linear(H, V)

    def forward(self, codes_BT):
        x, _ = self.lstm(self.embed(codes_BT))
        return self.head(x)


def torch_loss(model, batch):
    codes_BT, next_BT = batch
    return F.cross_entropy(model(codes_BT).flatten(0, 1), next_BT.flatten())


def torch_half(seed: int = 0) -> instep.TorchLoop:
    torch.manual_seed(seed)
    model = TorchLSTM()
    optimizer = torch.optim.RMSprop(
        model.parameters(), lr=LR, alpha=ALPHA, eps=EPS, momentum=MOMENTUM, centered=True
    )
    return instep.TorchLoop(
        model,
        torch_loss,
        optimizer,
        train_loader(manual_codes()[0], LENGTH, BATCH, seed),
        scheduler=torch.optim.lr_scheduler.ExponentialLR(optimizer, GAMMA),
        clip_grad_norm=MAX_NORM,
    )


# The Flax half, as a Flax user writes it; only the second bias of the cell is PyTorch's.


def two_bias_cell(inputs: int, rngs: nnx.Rngs) -> nnx.OptimizedLSTMCell:
    cell = nnx.OptimizedLSTMCell(inputs, H, rngs=rngs)
    cell.dense_i = nnx.Linear(inputs, 4 * H, rngs=rngs)
    return cell


class FlaxLSTM(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(V, E, rngs=rngs)
        sizes = [E] + [H] * (LAYERS - 1)
        self.lstm = nnx.List([nnx.RNN(two_bias_cell(size, rngs)) for size in sizes])
        self.head = nnx.Linear(H, V, rngs=rngs)

    def __call__(self, codes_BT):
        x: Any = self.embed(codes_BT)  # nnx.RNN may return its carry as well, if asked to
        for rnn in self.lstm:
            zeros = jnp.zeros((x.shape[0], H), self.head.kernel.dtype)
            x = rnn(x, initial_carry=(zeros, zeros))
        return self.head(x)


def flax_loss(model, batch):
    codes_BT, next_BT = batch
    return instep.losses.cross_entropy(model(codes_BT).reshape(-1, V), next_BT.reshape(-1))


def flax_half() -> FlaxHalf:
    return FlaxHalf(FlaxLSTM(nnx.Rngs(0)), flax_loss)


def jax_half() -> instep.JaxLoop:
    graphdef, params, rest = nnx.split(FlaxLSTM(nnx.Rngs(0)), nnx.Param, ...)  # rest: keys

    def loss_fn(params, batch):
        return flax_loss(nnx.merge(graphdef, params, rest), batch)

    def apply(params, buffers, codes_BT):
        del buffers  # there are none
        return nnx.merge(graphdef, params, rest)(codes_BT)

    lr = instep.schedules.exponential_lr(LR, GAMMA)
    return instep.JaxLoop(
        loss_fn,
        instep.optim.rmsprop(lr, ALPHA, EPS, momentum=MOMENTUM, centered=True),
        params,
        clip_grad_norm=MAX_NORM,
        apply=apply,
    )


# What corresponds to what: "auto" takes the layers of nn.LSTM for the cells of the list.

WORKLOAD = Workload(
    name="text-lstm",
    summary="two layers of LSTM over characters; centered RMSprop with momentum, clipping",
    make_pair=lambda seed=0: instep.Pair(torch_half(seed), jax_half(), "auto"),
    total_steps=STEPS,
    held_out=lambda: held_out(manual_codes()[1], LENGTH, BATCH, HELD_OUT),
    metric=NATS_PER_CHARACTER,
    target=1.85,
    flax=flax_half,
)
