"""A small GPT on padded text: AdamW in two groups, warm-up and cosine, clip, accumulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
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
from plants import Plant, rows


VOCAB, LENGTH, WIDTH, HEADS, LAYERS = 24, 12, 16, 2, 2
LR, BETAS, DECAY, MAX_NORM, ACCUMULATE, WARMUP, STEPS = 1e-3, (0.9, 0.95), 0.1, 0.5, 2, 3, 20


# The PyTorch half.


class TorchBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        heads = self.qkv(self.ln1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class TorchGPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(TorchBlock() for _ in range(LAYERS))
        self.ln = nn.LayerNorm(WIDTH)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.ln(x) @ self.tokens.weight.T


def torch_loss(model, batch):
    ids, labels = batch
    return F.cross_entropy(model(ids).flatten(0, 1), labels.flatten(), ignore_index=-100)


def warmup_cosine(n):
    if n < WARMUP:
        return (n + 1) / (WARMUP + 1)
    return 0.5 * (1 + math.cos(math.pi * (n - WARMUP) / (STEPS - WARMUP)))


def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(2 * ACCUMULATE * 3):
        ids = torch.randint(VOCAB, (4, LENGTH + 1), generator=generator)
        ends = torch.randint(4, LENGTH + 1, (4, 1), generator=generator)
        labels = ids[:, 1:].masked_fill(torch.arange(LENGTH) >= ends, -100)
        made.append((ids[:, :-1], labels))
    return made


def torch_half(seed: int = 0) -> instep.TorchLoop:
    torch.manual_seed(seed)
    model = TorchGPT()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS)
    return instep.TorchLoop(
        model,
        torch_loss,
        optimizer,
        batches(seed),
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine),
        clip_grad_norm=MAX_NORM,
        accumulate=ACCUMULATE,
    )


# The Flax half. What a port may get wrong is an argument; the defaults are right.


exact, tanh = partial(jax.nn.gelu, approximate=False), jax.nn.gelu


def attend(q, k, v, scale=None, mask=None, axis=-1):
    """(B, T, H, D)"""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * scale
    seen = (
        jnp.tril(jnp.ones(scores.shape[-2:], bool)) if mask is None else mask(scores.shape[-1])
    )
    scores = jnp.where(seen, scores, -1e30)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis), v)


class FlaxBlock(nnx.Module):
    def __init__(self, rngs, eps, act, attention):
        self.ln1 = nnx.LayerNorm(WIDTH, epsilon=eps, rngs=rngs)
        self.ln2 = nnx.LayerNorm(WIDTH, epsilon=eps, rngs=rngs)
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.out = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)
        self.act, self.attention = act, attention

    def __call__(self, x):
        q, k, v = jnp.moveaxis(self.qkv(self.ln1(x)).reshape(*x.shape[:2], 3, HEADS, -1), 2, 0)
        x = x + self.out(self.attention(q, k, v).reshape(x.shape))
        return x + self.down(self.act(self.up(self.ln2(x))))


class FlaxGPT(nnx.Module):
    def __init__(
        self,
        rngs,
        eps=1e-5,
        last_eps=1e-5,
        act=exact,
        acts=None,
        attention=attend,
        scale=1.0,
        shift=0,
        norm=lambda norm, x: norm(x),
        head=lambda table: table,
        look=lambda table: table,
    ):
        self.tokens = nnx.Embed(VOCAB, WIDTH, rngs=rngs)
        self.positions = nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.blocks = nnx.List(
            FlaxBlock(rngs, eps, (acts or [act] * LAYERS)[i], attention) for i in range(LAYERS)
        )
        self.ln = nnx.LayerNorm(WIDTH, epsilon=last_eps, rngs=rngs)
        self.scale, self.shift, self.norm, self.head, self.look = scale, shift, norm, head, look

    def __call__(self, ids):
        table = self.tokens.embedding[...]
        x = self.look(table)[ids] * self.scale
        x = x + self.positions((jnp.arange(ids.shape[1]) + self.shift) % LENGTH)
        for block in self.blocks:
            x = block(x)
        return self.norm(self.ln, x) @ self.head(table).T


def token_mean(logits, labels):
    """The mean over the labels of a microbatch, as PyTorch's."""
    kept = labels >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(kept, labels, 0))
    return jnp.sum(losses * kept) / kept.sum()


def weights():
    layers = ["qkv", "out", "up", "down"]
    return [
        bridge.embedding("tokens"),
        bridge.embedding("positions"),
        bridge.layer_norm("ln"),
        *(bridge.linear(f"blocks.{i}.{name}") for i in range(LAYERS) for name in layers),
        *(bridge.layer_norm(f"blocks.{i}.{n}") for i in range(LAYERS) for n in ("ln1", "ln2")),
    ]


def is_matrix(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def adamw(lr, b1=BETAS[0], b2=BETAS[1], eps=1e-8, decay=DECAY, mask=is_matrix, **others):
    return optax.adamw(lr, b1, b2, eps, weight_decay=decay, mask=mask, **others)


def schedule(n):
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * (n - WARMUP) / (STEPS - WARMUP)))
    return LR * jnp.where(n < WARMUP, (n + 1) / (WARMUP + 1), cosine)


@dataclass(frozen=True)
class ByHand:
    """One training step, in parts."""

    loss_fn: Callable
    tx: optax.GradientTransformation
    first: Callable = lambda i: i  # the microbatch that is taken as the i-th
    count: int = ACCUMULATE
    start: Callable = lambda zeros, last: zeros
    divisor: float = ACCUMULATE
    grads: Callable = lambda now, last: now
    each: Callable = lambda grads: grads
    clip: Callable = lambda grads: instep.clip_grad_norm(grads, MAX_NORM)[0]
    apply: Callable = optax.apply_updates

    def step(self, state, batch):
        params, opt_state, last = state
        total = self.start(jax.tree.map(jnp.zeros_like, params), last)
        losses = []
        for i in range(self.count):
            micro = jax.tree.map(lambda x, i=i: x[self.first(i)], batch)
            loss, grads = jax.value_and_grad(self.loss_fn)(params, micro)
            total = jax.tree.map(jnp.add, total, self.each(grads))
            losses.append(loss)
        mean = jax.tree.map(lambda g: g / self.divisor, total)
        grads = self.grads(mean, jax.tree.map(lambda g: g / self.divisor, last))
        clipped = self.clip(grads)
        updates, opt_state = self.tx.update(clipped, opt_state, params)
        seen = {"loss": sum(losses) / len(losses), "grads": grads, "clipped": clipped}
        return (self.apply(params, updates), opt_state, total), seen


def view(state, seen):
    params, opt_state, _ = state
    return instep.View(
        loss=seen["loss"],
        params=params,
        opt_state=opt_state,
        grads=seen["grads"],
        clipped_grads=seen["clipped"],
    )


def make_pair(seed=0, tx=None, loss=token_mean, steps=None, torch=None, port=None, **model):
    """The pair; ``model`` is what the Flax model does otherwise, ``steps`` the step."""
    graphdef, params = nnx.split(FlaxGPT(nnx.Rngs(0), **model))

    def loss_fn(params, batch):
        ids, labels = batch
        return loss(nnx.merge(graphdef, params)(ids), labels)

    half = replace(ByHand(loss_fn, tx or adamw(schedule)), **(steps or {}))

    def state():
        zeros = jax.tree.map(jnp.zeros_like, params)
        return params, half.tx.init(params), zeros

    jax_half = instep.JaxLoop.opaque(jax.jit(half.step), state, view)
    return instep.Pair(torch or torch_half(seed), jax_half, port or weights())


# What people get wrong.


def edit(tree, name: str, fn: Callable) -> Any:
    """``tree`` with ``fn`` applied to the leaves whose path contains ``name``."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: fn(x) if name in jax.tree_util.keystr(path, simple=True) else x, tree
    )


def no_correction(lr):
    def update(grads, state, params=None):
        mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: 0.95 * v + (1 - 0.95) * g * g, state.nu, grads)
        steps = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + 1e-8), mu, nu)
        return steps, optax.ScaleByAdamState(state.count + 1, mu, nu)

    adam = optax.GradientTransformation(optax.scale_by_adam().init, update)
    decay = optax.add_decayed_weights(DECAY, is_matrix)
    return optax.chain(adam, decay, optax.scale_by_learning_rate(lr))


def coupled(lr):
    decay = optax.add_decayed_weights(DECAY, is_matrix)
    return optax.chain(decay, optax.adam(lr, *BETAS))


def unscaled_decay(lr):
    decay = optax.add_decayed_weights(-DECAY, is_matrix)
    return optax.chain(optax.adam(lr, *BETAS), decay)


def by_global_norm(grads):
    norm = optax.tree.norm(grads)
    return jax.tree.map(lambda g: g * jnp.minimum(1.0, MAX_NORM / norm), grads)


def each_alone(grads):
    return jax.tree.map(lambda g: instep.clip_grad_norm(g, MAX_NORM)[0], grads)


def shifted(k):
    return lambda n: jnp.tril(jnp.ones((n, n), bool), k)


def counted(logits, labels):
    """Ignored labels count in the mean."""
    kept = labels >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(kept, labels, 0))
    return jnp.mean(losses * kept)


def as_class_0(logits, labels):
    labels = jnp.maximum(labels, 0)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


PLANTS: list[Plant] = rows(
    make_pair,
    {
        "gelu of jax": ({"act": tanh}, "gelu_by_tanh"),
        "gelu of jax, one block": ({"acts": [exact, tanh]}, "gelu_by_tanh", "blocks.1"),
        "relu": ({"act": jax.nn.relu}, "activation_exchanged"),
        "silu in one block": (
            {"acts": [jax.nn.silu, exact]},
            "activation_exchanged",
            "blocks.0",
        ),
        "epsilon of flax": ({"eps": 1e-6, "last_eps": 1e-6}, "another_norm_epsilon"),
        "epsilon of the last norm": ({"last_eps": 1e-6}, "another_norm_epsilon", "ln"),
        "epsilon of the blocks": ({"eps": 1e-6}, "another_norm_epsilon"),
        "no mask": (
            {"attention": partial(attend, mask=lambda n: jnp.ones((n, n), bool))},
            "not_causal",
        ),
        "mask too early": ({"attention": partial(attend, mask=shifted(1))}, "mask_shifted"),
        "no scale": ({"attention": partial(attend, scale=1.0)}, "attention_unscaled"),
        "scale by the width": (
            {"attention": partial(attend, scale=WIDTH**-0.5)},
            "another_attention_scale",
        ),
        "softmax over queries": (
            {"attention": partial(attend, axis=-2)},
            "softmax_over_another_axis",
        ),
        "embedding times sqrt(d)": ({"scale": WIDTH**0.5}, "embedding_scaled", "tokens"),
        "positions from 1": ({"shift": 1}, "positions_shifted", "positions"),
        "no last norm": ({"norm": lambda norm, x: x}, "norm_missing", "ln"),
        "head not tied": ({"head": jax.lax.stop_gradient}, "tied_weights_untied"),
        "lookup not tied": ({"look": jax.lax.stop_gradient}, "tied_weights_untied", "tokens"),
        "ignored labels in the mean": ({"loss": counted}, "ignored_labels_counted"),
        "ignored labels as class 0": ({"loss": as_class_0}, "ignored_labels_counted"),
        "no bias correction": ({"tx": no_correction(schedule)}, "no_bias_correction"),
        "decay of optax": ({"tx": adamw(schedule, decay=1e-4)}, "another_decay"),
        "decay on all": ({"tx": adamw(schedule, mask=None)}, "decay_on_all"),
        "no decay": ({"tx": adamw(schedule, decay=0.0)}, "no_decay"),
        "decay in the gradient": ({"tx": coupled(schedule)}, "decay_coupled"),
        "decay without the rate": ({"tx": unscaled_decay(schedule)}, "decay_not_scaled_by_lr"),
        "beta2 of optax": ({"tx": adamw(schedule, b2=0.999)}, "another_beta"),
        "epsilon 1e-6": ({"tx": adamw(schedule, eps=1e-6)}, "another_epsilon"),
        "epsilon in the root": (
            {"tx": adamw(schedule, eps=0.0, eps_root=1e-8)},
            "epsilon_inside_root",
        ),
        "nesterov": ({"tx": adamw(schedule, nesterov=True)}, "another_algorithm"),
        "schedule ahead": ({"tx": adamw(lambda n: schedule(n + 1))}, "schedule_ahead"),
        "schedule behind": (
            {"tx": adamw(lambda n: schedule(jnp.maximum(n - 1, 0)))},
            "schedule_behind",
        ),
        "schedule constant": (
            {"tx": adamw(LR)},
            "schedule_constant schedule_missing_warmup",
        ),
        "schedule by microbatch": (
            {"tx": adamw(lambda n: schedule(ACCUMULATE * n))},
            "schedule_per_microbatch",
        ),
        "rate halved": ({"tx": adamw(lambda n: schedule(n) / 2)}, "another_base_rate"),
        "clip of optax": ({"steps": {"clip": by_global_norm}}, "clip_without_epsilon"),
        "clip of each leaf": ({"steps": {"clip": each_alone}}, "clip_each_leaf"),
        "clip forgotten": ({"steps": {"clip": lambda grads: grads}}, "clip_missing"),
        "clip by value": (
            {"steps": {"clip": lambda grads: instep.clip_grad_value(grads, MAX_NORM)}},
            "clip_by_value clip_missing",
        ),
        "clip at 1.0": (
            {"steps": {"clip": lambda grads: instep.clip_grad_norm(grads, 1.0)[0]}},
            "clip_to_another_norm",
        ),
        "sum of microbatches": ({"steps": {"divisor": 1}}, "sum_for_mean"),
        "divided twice": ({"steps": {"divisor": ACCUMULATE**2}}, "divided_twice"),
        "one microbatch": ({"steps": {"count": 1, "divisor": 1}}, "microbatch_dropped"),
        "the same microbatch": ({"steps": {"first": lambda i: 0}}, "microbatch_repeated"),
        "no zero_grad": (
            {"steps": {"start": lambda zeros, last: last}},
            "gradients_kept",
        ),
        "stale gradients": (
            {"steps": {"grads": lambda now, last: last}},
            "gradients_of_last_step",
        ),
        "one gradient negated": (
            {"steps": {"grads": lambda now, last: edit(now, "ln/scale", jnp.negative)}},
            "gradient_negated",
            "ln.weight",
        ),
        "a block frozen": (
            {"steps": {"each": lambda g: edit(g, "blocks/0/up", jnp.zeros_like)}},
            "gradient_missing",
            "blocks.0.up",
        ),
        "positions not updated": (
            {
                "steps": {
                    "apply": lambda p, u: optax.apply_updates(
                        p, edit(u, "positions", jnp.zeros_like)
                    )
                }
            },
            "parameter_frozen",
            "positions",
        ),
    },
)
CLEAN = make_pair
