"""What plants_lstm plants into: an LSTM over padded lines; RMSprop, decay, clipping.

Letters: B batch, T time, E width of the embedding, H of the state, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

import instep
from instep import bridge
from plants import ByHand, split


B, T, E, H, V, CLASSES, PADDING = 8, 7, 6, 10, 12, 5, 0
LR, GAMMA, DECAY, MAX_NORM, ACCUMULATE, STEPS = 5e-3, 0.8, 1e-2, 0.1, 2, 12


def batches(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Lines of several lengths, padded at their ends, (B, T), and their classes."""
    torch.manual_seed(100 + seed)
    found = []
    for _ in range(2 * STEPS):
        tokens = torch.randint(1, V, (B, T))
        lengths = torch.randint(2, T + 1, (B, 1))
        padded = tokens.masked_fill(torch.arange(T) >= lengths, PADDING)
        found.append((padded, torch.randint(CLASSES, (B,))))
    return found


# The PyTorch half.


class TorchLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, E, padding_idx=PADDING)
        self.lstm = nn.LSTM(E, H, batch_first=True)
        self.head = nn.Linear(H, CLASSES)

    def forward(self, tokens):
        states, _ = self.lstm(self.embed(tokens))
        return self.head(states.mean(1))


def torch_loss(model, batch):
    tokens, classes = batch
    return F.cross_entropy(model(tokens), classes)


def rmsprop(parameters):
    return torch.optim.RMSprop(parameters, lr=LR, weight_decay=DECAY)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=LR, weight_decay=DECAY)


def adagrad(parameters):
    return torch.optim.Adagrad(parameters, lr=LR, weight_decay=DECAY)


def torch_half(
    seed: int = 0, make: Callable = rmsprop, max_norm: float = MAX_NORM
) -> instep.TorchLoop:
    torch.manual_seed(seed)
    model = TorchLSTM()
    for p in model.parameters():  # the row of the padding is not zero either
        p.data += 0.3 * torch.randn_like(p)
    optimizer = make(model.parameters())
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, GAMMA)
    return instep.TorchLoop(
        model, torch_loss, optimizer, batches(seed), scheduler,
        clip_grad_norm=max_norm, accumulate=ACCUMULATE,
    )  # fmt: skip


# The Flax half. What is an attribute here can be set otherwise.


def padded_rows(table, tokens):
    """Rows of the table; that of the padding has no gradient."""
    rows = table[tokens]
    return jnp.where((tokens == PADDING)[..., None], jax.lax.stop_gradient(rows), rows)


class Cell(nnx.Module):
    """One step of PyTorch's LSTM, with its two biases."""

    def __init__(self, rngs: nnx.Rngs):
        self.dense_i = nnx.Linear(E, 4 * H, rngs=rngs)
        self.dense_h = nnx.Linear(H, 4 * H, rngs=rngs)
        self.order = (0, 1, 2, 3)  # where i, f, g and o stand
        self.forget_bias = 0.0
        self.candidate = self.output = jnp.tanh

    def __call__(self, carry, x):
        c, h = carry
        gates = jnp.split(self.dense_i(x) + self.dense_h(h), 4, axis=-1)
        i, f, g, o = (gates[place] for place in self.order)
        c = nnx.sigmoid(f + self.forget_bias) * c + nnx.sigmoid(i) * self.candidate(g)
        h = nnx.sigmoid(o) * self.output(c)
        return (c, h), h


def mean(states_BTH, tokens_BT):
    return states_BTH.mean(1)


class LSTM(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(V, E, rngs=rngs)
        self.lookup = padded_rows
        self.scale = 1.0
        self.cell = Cell(rngs)
        self.backwards = False
        self.pool = mean
        self.head = nnx.Linear(H, CLASSES, rngs=rngs)

    def __call__(self, tokens_BT):
        x_BTE = self.lookup(self.embed.embedding[...], tokens_BT) * self.scale
        zeros = jnp.zeros((len(x_BTE), H), x_BTE.dtype)
        graphdef, weights = nnx.split(self.cell)

        def step(carry, x):
            return nnx.merge(graphdef, weights)(carry, x)

        x_TBE = jnp.swapaxes(x_BTE, 0, 1)
        _, states_TBH = jax.lax.scan(step, (zeros, zeros), x_TBE, reverse=self.backwards)
        return self.head(self.pool(jnp.swapaxes(states_TBH, 0, 1), tokens_BT))


def cross_entropy(logits, classes):
    logp = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(logp, classes[:, None], 1))


rate = instep.schedules.exponential_lr(LR, GAMMA)


def tx(make: Callable = instep.optim.rmsprop, lr: Any = rate, **options: Any):
    return make(lr, **({"weight_decay": DECAY} | options))


WEIGHTS = [bridge.embedding("embed"), bridge.lstm("lstm", "cell"), bridge.linear("head")]


def lstm(
    seed: int = 0,
    torch_half: instep.TorchLoop | None = None,
    model: Callable = lambda model: None,  # what is changed in the Flax model
    rules: list | None = None,
    loss: Callable = cross_entropy,
    inside: Callable = lambda params: params,  # what is done to the weights before the forward
    **parts: Any,
) -> instep.Pair:
    """The pair, with what is got wrong."""
    half = torch_half or globals()["torch_half"](seed)
    rules = rules or WEIGHTS
    flax = LSTM(nnx.Rngs(seed))
    model(flax)
    graphdef, params, rest = split(flax, half.model, rules)

    def loss_fn(params, buffers, batch):
        tokens, classes = batch
        return loss(nnx.merge(graphdef, inside(params), rest)(tokens), classes), buffers

    by_hand = replace(ByHand(loss_fn, tx(), half.clip_grad_norm), **parts)
    return instep.Pair(half, by_hand.loop(params), rules)


def loop_pair(loss: Callable = cross_entropy, **options: Any) -> instep.Pair:
    """The pair whose JAX half is a ``JaxLoop``, with what is got wrong."""
    half = torch_half()
    graphdef, params, rest = split(LSTM(nnx.Rngs(0)), half.model, WEIGHTS)

    def loss_fn(params, batch):
        tokens, classes = batch
        return loss(nnx.merge(graphdef, params, rest)(tokens), classes)

    options = {"accumulate": ACCUMULATE, "clip_grad_norm": MAX_NORM, "tx": tx()} | options
    return instep.Pair(half, instep.JaxLoop(loss_fn, params=params, **options), WEIGHTS)
