"""digits-vit: a vision transformer; AdamW, one-cycle schedule, label smoothing, clipping.

Letters: B batch, P patches, E width of the model.

Dosovitskiy et al., An Image is Worth 16x16 Words, 2021.
"""

from __future__ import annotations

import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

import instep

from ._digits import test_set, train_loader
from ._metric import ACCURACY
from ._workload import FlaxHalf, Workload


E, HEADS, LAYERS, PATCH, CLASSES = 64, 4, 3, 2, 10
P = (8 // PATCH) ** 2
LR, WEIGHT_DECAY, SMOOTHING = 3e-3, 0.05, 0.1
STEPS, BATCH, MAX_NORM = 400, 64, 1.0


# The PyTorch half, as a PyTorch user writes it.


class TorchBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(E)
        self.attn = nn.MultiheadAttention(E, HEADS, batch_first=True)
        self.norm2 = nn.LayerNorm(E)
        self.fc1 = nn.Linear(E, 2 * E)
        self.fc2 = nn.Linear(2 * E, E)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class TorchViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, E, PATCH, stride=PATCH)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, E))  # stands for the class
        self.position = nn.Parameter(0.02 * torch.randn(1, P + 1, E))
        self.blocks = nn.ModuleList([TorchBlock() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(E)
        self.head = nn.Linear(E, CLASSES)

    def forward(self, images):
        x_BPE = self.patches(images).flatten(2).transpose(1, 2)
        token = self.token.expand(len(images), -1, -1)
        x = torch.cat([token, x_BPE], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


def torch_loss(model, batch):
    images, labels = batch
    return F.cross_entropy(model(images), labels, label_smoothing=SMOOTHING)


def torch_half(seed: int = 0) -> instep.TorchLoop:
    torch.manual_seed(seed)
    model = TorchViT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    return instep.TorchLoop(
        model,
        torch_loss,
        optimizer,
        train_loader(BATCH, seed),
        scheduler=torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, STEPS),
        clip_grad_norm=MAX_NORM,
    )


# The Flax half, as a Flax user writes it, with PyTorch's GELU, epsilon and variance.


def layer_norm(rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(E, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm1 = layer_norm(rngs)
        self.attn = nnx.MultiHeadAttention(HEADS, E, decode=False, rngs=rngs)
        self.norm2 = layer_norm(rngs)
        self.fc1 = nnx.Linear(E, 2 * E, rngs=rngs)
        self.fc2 = nnx.Linear(2 * E, E, rngs=rngs)

    def __call__(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(nnx.gelu(self.fc1(self.norm2(x)), approximate=False))


class ViT(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(0.02)
        self.patches = nnx.Conv(1, E, (PATCH, PATCH), strides=PATCH, padding="VALID", rngs=rngs)
        self.token = nnx.Param(normal(rngs.params(), (1, 1, E)))
        self.position = nnx.Param(normal(rngs.params(), (1, P + 1, E)))
        self.blocks = nnx.List([Block(rngs) for _ in range(LAYERS)])
        self.norm = layer_norm(rngs)
        self.head = nnx.Linear(E, CLASSES, rngs=rngs)

    def __call__(self, images):
        B = images.shape[0]
        x_BPE = self.patches(images).reshape(B, P, E)
        token = jnp.broadcast_to(self.token[...], (B, 1, E))
        x = jnp.concatenate([token, x_BPE], 1) + self.position[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


def flax_loss(model, batch):
    images, labels = batch
    return instep.losses.cross_entropy(model(images), labels, label_smoothing=SMOOTHING)


def flax_half() -> FlaxHalf:
    return FlaxHalf(ViT(nnx.Rngs(0)), flax_loss)


def jax_half() -> instep.JaxLoop:
    graphdef, params, rest = nnx.split(ViT(nnx.Rngs(0)), nnx.Param, ...)  # keys, not drawn from

    def loss_fn(params, batch):
        return flax_loss(nnx.merge(graphdef, params, rest), batch)

    def apply(params, buffers, images):
        del buffers  # there are none
        return nnx.merge(graphdef, params, rest)(images)

    lr = instep.schedules.one_cycle_lr(LR, STEPS)  # and betas[0]
    return instep.JaxLoop(
        loss_fn,
        instep.optim.adamw(lr, weight_decay=WEIGHT_DECAY),
        params,
        clip_grad_norm=MAX_NORM,
        apply=apply,
    )


# What corresponds to what: the names are the same.


def channels_last(batch):
    images, *labels = batch
    return images.permute(0, 2, 3, 1), *labels


WORKLOAD = Workload(
    name="digits-vit",
    summary="patches, class token, attention; AdamW, one-cycle schedule, label smoothing",
    make_pair=lambda seed=0: instep.Pair(torch_half(seed), jax_half(), "auto", channels_last),
    total_steps=STEPS,
    held_out=test_set,
    metric=ACCURACY,
    target=0.96,
    flax=flax_half,
)
