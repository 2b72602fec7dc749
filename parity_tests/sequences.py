"""Two sequence models over characters, each twice: an LSTM and a transformer encoder.

``instep parity parity_tests/sequences.py:lstm_pair`` walks the first.

Letters: B batch, T time, H heads, D width of a head, E width of the model, V vocabulary.
"""

from __future__ import annotations

import inspect
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

import instep
from instep import bridge


TEXT = inspect.getsource(textwrap)
ALPHABET = sorted(set(TEXT))
V, E, H, WIDTH, LAYERS = len(ALPHABET), 16, 2, 24, 2
B, T, STEPS = 8, 12, 100


def batches(seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Windows of the text, (B, T), and the same windows one character later."""
    codes = torch.tensor([ALPHABET.index(c) for c in TEXT])
    starts = np.random.default_rng(seed).integers(len(TEXT) - T - 1, size=(STEPS, B))
    windows = codes[torch.as_tensor(starts)[..., None] + torch.arange(T + 1)]
    return [(window[:, :-1], window[:, 1:]) for window in windows]


# The LSTM as a PyTorch user writes it.


class TorchLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, E)
        self.lstm = nn.LSTM(E, WIDTH, LAYERS, batch_first=True)
        self.head = nn.Linear(WIDTH, V)

    def forward(self, tokens_BT):
        x, _ = self.lstm(self.embed(tokens_BT))
        return self.head(x)


def torch_loss(model, batch):
    tokens_BT, next_BT = batch
    return F.cross_entropy(model(tokens_BT).flatten(0, 1), next_BT.flatten())


def lstm_torch_half(seed: int = 0) -> instep.TorchLoop:
    torch.manual_seed(seed)
    model = TorchLSTM()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    return instep.TorchLoop(model, torch_loss, optimizer, batches(seed), clip_grad_norm=0.5)


# The LSTM as a Flax user writes it; only the second bias is PyTorch's.


def two_bias_cell(inputs: int, rngs: nnx.Rngs) -> nnx.OptimizedLSTMCell:
    cell = nnx.OptimizedLSTMCell(inputs, WIDTH, rngs=rngs)
    cell.dense_i = nnx.Linear(inputs, 4 * WIDTH, rngs=rngs)
    return cell


class FlaxLSTM(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(V, E, rngs=rngs)
        sizes = [E] + [WIDTH] * (LAYERS - 1)
        self.lstm = nnx.List([nnx.RNN(two_bias_cell(size, rngs)) for size in sizes])
        self.head = nnx.Linear(WIDTH, V, rngs=rngs)

    def __call__(self, tokens_BT):
        x = self.embed(tokens_BT)
        for rnn in self.lstm:
            dtype = jnp.result_type(x, self.head.kernel)  # x is float32 whatever the weights
            zeros = jnp.zeros((x.shape[0], WIDTH), dtype)
            x = rnn(x, initial_carry=(zeros, zeros))
        return self.head(x)


def lstm_jax_half() -> instep.JaxLoop:
    tx = instep.optim.adamw(1e-2, weight_decay=1e-2)
    return flax_loop(FlaxLSTM(nnx.Rngs(0)), tx, clip_grad_norm=0.5)


def flax_loop(model: nnx.Module, tx, **options) -> instep.JaxLoop:
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)  # rest: keys that nothing draws

    def loss_fn(params, batch):
        tokens_BT, next_BT = batch
        logits = nnx.merge(graphdef, params, rest)(tokens_BT)
        return instep.losses.cross_entropy(logits.reshape(-1, V), next_BT.reshape(-1))

    return instep.JaxLoop(loss_fn, tx, params, **options)


def lstm_pair(seed: int = 0) -> instep.Pair:
    return instep.Pair(lstm_torch_half(seed), lstm_jax_half(), weights="auto")


# The transformer encoder as a PyTorch user writes it.


class TorchBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(E)
        self.attn = nn.MultiheadAttention(E, H, batch_first=True)
        self.norm2 = nn.LayerNorm(E)
        self.fc1 = nn.Linear(E, 4 * E)
        self.fc2 = nn.Linear(4 * E, E)

    def forward(self, x, mask):
        y = self.norm1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class TorchEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, E)
        self.position = nn.Parameter(0.02 * torch.randn(T, E))
        self.blocks = nn.ModuleList([TorchBlock() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(E)
        self.head = nn.Linear(E, V)
        self.register_buffer("future", torch.ones(T, T, dtype=torch.bool).triu(1))

    def forward(self, tokens_BT):
        x = self.embed(tokens_BT) + self.position
        for block in self.blocks:
            x = block(x, self.future)
        return self.head(self.norm(x))


def attention_torch_half(seed: int = 0) -> instep.TorchLoop:
    torch.manual_seed(seed)
    model = TorchEncoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    return instep.TorchLoop(model, torch_loss, optimizer, batches(seed), scheduler)


# The encoder as a Flax user writes it, with PyTorch's epsilon, variance and GELU.


def layer_norm(rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(E, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


class FlaxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm1 = layer_norm(rngs)
        self.attn = nnx.MultiHeadAttention(H, E, decode=False, rngs=rngs)
        self.norm2 = layer_norm(rngs)
        self.fc1 = nnx.Linear(E, 4 * E, rngs=rngs)
        self.fc2 = nnx.Linear(4 * E, E, rngs=rngs)

    def __call__(self, x, mask):
        x = x + self.attn(self.norm1(x), mask=mask)
        return x + self.fc2(jax.nn.gelu(self.fc1(self.norm2(x)), approximate=False))


class FlaxEncoder(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(V, E, rngs=rngs)
        self.position = nnx.Param(jnp.zeros((T, E)))
        self.blocks = nnx.List([FlaxBlock(rngs) for _ in range(LAYERS)])
        self.norm = layer_norm(rngs)
        self.head = nnx.Linear(E, V, rngs=rngs)

    def __call__(self, tokens_BT):
        x = self.embed(tokens_BT) + self.position[...]
        mask = nnx.make_causal_mask(tokens_BT)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


def attention_jax_half() -> instep.JaxLoop:
    lr = instep.schedules.cosine_annealing_lr(3e-3, STEPS)
    return flax_loop(FlaxEncoder(nnx.Rngs(0)), instep.optim.adamw(lr, weight_decay=1e-2))


def attention_pair(seed: int = 0) -> instep.Pair:
    weights = ["auto", bridge.torch_only("future")]
    return instep.Pair(attention_torch_half(seed), attention_jax_half(), weights)
