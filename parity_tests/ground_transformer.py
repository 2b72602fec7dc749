"""What plants_transformer plants into: a small GPT, ragged labels, AdamW in two groups.

Letters: B batch, T time, H heads, D width of a head, E width of the model, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

import instep
from instep import bridge
from plants import ByHand, matrices, split


B, T, H, E, V, BLOCKS = 4, 12, 2, 16, 24, 2
LR, BETAS, EPS, DECAY, MAX_NORM, ACCUMULATE = 1e-3, (0.9, 0.95), 1e-8, 0.1, 0.5, 2
WARM, STEPS, IGNORED = 3, 12, -100


def batches(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens (B, T), and the next tokens where a line has not ended."""
    torch.manual_seed(100 + seed)
    found = []
    for n in range(2 * STEPS):
        tokens = torch.randint(V, (B, T + 1))
        ends = torch.randint(2, T + 1, (B,)) // (1 + n % 2)
        labels = tokens[:, 1:].masked_fill(torch.arange(T) >= ends[:, None], IGNORED)
        found.append((tokens[:, :-1], labels))
    return found


# The PyTorch half.


class TorchAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(E, 3 * E)
        self.out = nn.Linear(E, E)

    def forward(self, x):
        B, T, _ = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, H, E // H).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, E))


class TorchMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(E, 4 * E)
        self.fc2 = nn.Linear(4 * E, E)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class TorchBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(E)
        self.attn = TorchAttention()
        self.norm2 = nn.LayerNorm(E)
        self.mlp = TorchMLP()

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TorchGPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(V, E)
        self.wpe = nn.Embedding(T, E)
        self.blocks = nn.ModuleList([TorchBlock() for _ in range(BLOCKS)])
        self.norm = nn.LayerNorm(E)
        self.head = nn.Linear(E, V, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def torch_loss(model, batch):
    tokens, labels = batch
    return F.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())


def factor(step: int, cos=math.cos, minimum=min) -> float:
    """Of the learning rate: warm-up, times a cosine."""
    return minimum((step + 1) / WARM, 1.0) * 0.5 * (1.0 + cos(math.pi * step / STEPS))


def torch_half(seed: int = 0, max_norm: float = MAX_NORM, **options: Any) -> instep.TorchLoop:
    torch.manual_seed(seed)
    model = TorchGPT()
    for p in model.parameters():  # so that no bias is zero and no scale one
        p.data += 0.1 * torch.randn_like(p)
    model.wte.weight.data *= 0.3  # it is the head as well
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS, **options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return instep.TorchLoop(
        model, torch_loss, optimizer, batches(seed), scheduler,
        clip_grad_norm=max_norm, accumulate=ACCUMULATE,
    )  # fmt: skip


def whole_window(seed: int = 0) -> instep.TorchLoop:
    """The half whose loss is the mean over all labels of a window, not a mean of means."""
    half = torch_half(seed)
    microbatches = list(half.batches)
    counts = [(labels != IGNORED).sum() for _, labels in microbatches]
    share = [sum(counts[i - i % 2 : i - i % 2 + 2]) / 2 for i in range(len(counts))]

    def loss_fn(model, batch):
        tokens, labels, labelled = batch
        logits = model(tokens).flatten(0, 1)
        return F.cross_entropy(logits, labels.flatten(), reduction="sum") / labelled

    batches = [(*both, n) for both, n in zip(microbatches, share, strict=True)]
    return replace(half, loss_fn=loss_fn, batches=batches)


# The Flax half. What is an attribute here can be set otherwise.


def exact_gelu(x):
    return jax.nn.gelu(x, approximate=False)


class Attention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.qkv = nnx.Linear(E, 3 * E, rngs=rngs)
        self.out = nnx.Linear(E, E, rngs=rngs)
        self.scale = (E // H) ** -0.5
        self.last_seen = 0  # the newest token that is seen, counted from the own one
        self.axis = -1
        self.heads = lambda y_BTHD: y_BTHD

    def __call__(self, x_BTE):
        B, T, _ = x_BTE.shape
        q, k, v = jnp.moveaxis(self.qkv(x_BTE).reshape(B, T, 3, H, E // H), 2, 0)
        scores_BHTS = jnp.einsum("bthd,bshd->bhts", q, k) * self.scale
        seen = jnp.tril(jnp.ones((T, T), bool), self.last_seen)
        weights_BHTS = jax.nn.softmax(jnp.where(seen, scores_BHTS, -jnp.inf), self.axis)
        y = jnp.einsum("bhts,bshd->bthd", weights_BHTS, v)
        return self.out(self.heads(y).reshape(B, T, E))


class MLP(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.fc1 = nnx.Linear(E, 4 * E, rngs=rngs)
        self.fc2 = nnx.Linear(4 * E, E, rngs=rngs)
        self.activation = exact_gelu

    def __call__(self, x):
        return self.fc2(self.activation(self.fc1(x)))


def layer_norm(rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(E, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm1 = layer_norm(rngs)
        self.attn = Attention(rngs)
        self.norm2 = layer_norm(rngs)
        self.mlp = MLP(rngs)

    def __call__(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.wte = nnx.Embed(V, E, rngs=rngs)
        self.wpe = nnx.Embed(T, E, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(BLOCKS)])
        self.norm = layer_norm(rngs)
        self.scale = 1.0
        self.first_position = 0
        self.last_norm = GPT.normed
        self.head = GPT.tied_head

    def normed(self, x):
        return self.norm(x)

    def tied_head(self, x):
        return x @ self.wte.embedding[...].T

    def __call__(self, tokens_BT):
        positions = (jnp.arange(tokens_BT.shape[1]) + self.first_position) % T
        x = self.wte(tokens_BT) * self.scale + self.wpe(positions)
        for block in self.blocks:
            x = block(x)
        return self.head(self, self.last_norm(self, x))


def cross_entropy(logits_BTV, labels_BT):
    """The mean over the labels that are not ignored."""
    logp = jax.nn.log_softmax(logits_BTV)
    labelled = labels_BT != IGNORED
    picked = jnp.take_along_axis(logp, jnp.where(labelled, labels_BT, 0)[..., None], -1)[..., 0]
    return -jnp.sum(jnp.where(labelled, picked, 0.0)) / jnp.sum(labelled)


def jax_factor(count):
    return factor(count, jnp.cos, jnp.minimum)


rate = instep.schedules.lambda_lr(LR, jax_factor)


def adamw(lr: Callable = rate, decay=(DECAY, 0.0), make=instep.optim.adamw, **options: Any):
    """Two groups: matrices, and the rest."""
    options = {"betas": BETAS, "eps": EPS} | options
    return instep.optim.param_groups(
        [
            (lambda name, leaf: leaf.ndim > 1, make(lr, weight_decay=decay[0], **options)),
            (lambda name, leaf: leaf.ndim <= 1, make(lr, weight_decay=decay[1], **options)),
        ]
    )


def chain(adam: optax.GradientTransformation, lr=rate) -> optax.GradientTransformation:
    """AdamW of optax's parts, with another Adam."""
    decay = optax.add_decayed_weights(DECAY, matrices)
    return optax.chain(adam, decay, optax.scale_by_learning_rate(lr))


WEIGHTS = [
    bridge.embedding("wte"),
    bridge.embedding("wpe"),
    *[
        rule(f"blocks.{i}.{name}")
        for i in range(BLOCKS)
        for rule, name in [
            (bridge.layer_norm, "norm1"),
            (bridge.linear, "attn.qkv"),
            (bridge.linear, "attn.out"),
            (bridge.layer_norm, "norm2"),
            (bridge.linear, "mlp.fc1"),
            (bridge.linear, "mlp.fc2"),
        ]
    ],
    bridge.layer_norm("norm"),
]


def gpt(
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
    flax = GPT(nnx.Rngs(seed))
    model(flax)
    rules = rules or WEIGHTS
    graphdef, params, rest = split(flax, half.model, rules)

    def loss_fn(params, buffers, batch):
        tokens, labels, *_ = batch
        logits = nnx.merge(graphdef, inside(params), rest)(tokens)
        return loss(logits, labels), buffers

    right = ByHand(loss_fn, adamw(), half.clip_grad_norm)
    return instep.Pair(half, replace(right, **parts).loop(params), rules)


def labels_of(microbatch):
    """How many are not ignored."""
    return jnp.sum(microbatch[1] != IGNORED, dtype=jnp.result_type(float))


def gpt_whole_window(seed: int = 0) -> instep.Pair:
    """The right pair over the labels of a whole window."""
    return gpt(torch_half=whole_window(seed), weigh=labels_of)
