"""A transformer and an LSTM, each as a PyTorch user and as a Flax user writes it."""

from __future__ import annotations

import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

import instep
from instep import bridge


VOCAB, LENGTH, BATCH = 96, 64, 8
WIDTH, HEADS, LAYERS = 128, 4, 4
LR, MAX_NORM = 1e-3, 1.0


# The transformer, in PyTorch.


class TorchBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        b, t, c = x.shape
        heads = self.qkv(self.norm1(x)).view(b, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class TorchGPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(TorchBlock() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


# The transformer, in Flax.


class FlaxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.out = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.norm2 = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        b, t, c = x.shape
        heads = self.qkv(self.norm1(x)).reshape(b, t, 3, HEADS, c // HEADS)
        causal = nnx.make_causal_mask(jnp.ones((b, t)))
        mixed = nnx.dot_product_attention(*jnp.moveaxis(heads, 2, 0), mask=causal)
        x = x + self.out(mixed.reshape(b, t, c))
        return x + self.down(nnx.gelu(self.up(self.norm2(x)), approximate=False))


class FlaxGPT(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.tokens = nnx.Embed(VOCAB, WIDTH, rngs=rngs)
        self.positions = nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.blocks = nnx.List([FlaxBlock(rngs) for _ in range(LAYERS)])
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.head = nnx.Linear(WIDTH, VOCAB, rngs=rngs)

    def __call__(self, ids):
        x = self.tokens(ids) + self.positions(jnp.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


# The LSTM, in PyTorch and in Flax. Flax's own cell has one bias where PyTorch's has two.


class TorchLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids):
        return self.head(self.lstm(self.tokens(ids))[0])


class FlaxLSTM(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.tokens = nnx.Embed(VOCAB, WIDTH, rngs=rngs)
        cell = nnx.OptimizedLSTMCell(WIDTH, WIDTH, rngs=rngs)
        cell.dense_i = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.rnn = nnx.RNN(cell)
        self.head = nnx.Linear(WIDTH, VOCAB, rngs=rngs)

    def __call__(self, ids):
        x = self.tokens(ids)
        zeros = jnp.zeros((len(ids), WIDTH), self.head.kernel.dtype)
        return self.head(self.rnn(x, initial_carry=(zeros, zeros)))


def gpt() -> instep.Pair:
    torch.manual_seed(0)
    return _pair(TorchGPT(), FlaxGPT(nnx.Rngs(0)), "auto")


def lstm() -> instep.Pair:
    torch.manual_seed(0)
    rules = [bridge.embedding("tokens"), bridge.lstm("lstm", "rnn.cell"), bridge.linear("head")]
    return _pair(TorchLSTM(), FlaxLSTM(nnx.Rngs(0)), rules)


TWINS = {"gpt": gpt, "lstm": lstm}


def _pair(torch_model: nn.Module, flax_model: nnx.Module, weights) -> instep.Pair:
    """Next-token prediction of random tokens; AdamW, clipping."""

    def torch_loss(model, ids):
        return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    graphdef, params, rest = nnx.split(flax_model, nnx.Param, ...)

    def loss_fn(params, ids):
        logits = nnx.merge(graphdef, params, rest, copy=True)(ids[:, :-1])
        return instep.losses.cross_entropy(logits.reshape(-1, VOCAB), ids[:, 1:].reshape(-1))

    optimizer = torch.optim.AdamW(torch_model.parameters(), lr=LR)
    batches = [torch.randint(VOCAB, (BATCH, LENGTH)) for _ in range(10)]
    return instep.Pair(
        instep.TorchLoop(torch_model, torch_loss, optimizer, batches, clip_grad_norm=MAX_NORM),
        instep.JaxLoop(loss_fn, instep.optim.adamw(LR), params, clip_grad_norm=MAX_NORM),
        weights,
    )
