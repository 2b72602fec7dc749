"""What plants_cnn plants into: convolutions, BatchNorm, pooling; SGD, cosine, clipping.

Letters: B batch, H W image, C channels.
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


B, SIZE, C1, C2, WIDTH, CLASSES = 8, 24, 4, 6, 10, 10
LR, MOMENTUM, DECAY, SMOOTHING, MAX_NORM, ACCUMULATE = 0.05, 0.9, 5e-4, 0.1, 0.2, 2
STEPS = 12


def batches(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(100 + seed)
    return [
        (torch.randn(B, 2, SIZE, SIZE) + 0.5, torch.randint(CLASSES, (B,)))
        for _ in range(2 * STEPS)
    ]


# The PyTorch half.


class TorchCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, C1, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(C1)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(C1, C2, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(C2)
        self.pool2 = nn.AvgPool2d(3, stride=3, padding=1)
        self.fc1 = nn.Linear(C2 * 2 * 2, WIDTH)
        self.fc2 = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        x = self.pool1(F.relu(self.bn1(self.conv1(x))))
        x = self.pool2(F.relu(self.bn2(self.conv2(x))))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def torch_loss(model, batch):
    images, labels = batch
    return F.cross_entropy(model(images), labels, label_smoothing=SMOOTHING)


def torch_half(
    seed: int = 0,
    max_norm: float = MAX_NORM,
    scheduler: Callable = lambda sgd: torch.optim.lr_scheduler.CosineAnnealingLR(sgd, STEPS),
    **options: Any,
) -> instep.TorchLoop:
    torch.manual_seed(seed)
    model = TorchCNN()
    for p in model.parameters():  # so that no bias is zero and no scale one
        p.data += 0.1 * torch.randn_like(p)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY, **options
    )
    return instep.TorchLoop(
        model, torch_loss, optimizer, batches(seed), scheduler(optimizer),
        clip_grad_norm=max_norm, accumulate=ACCUMULATE,
    )  # fmt: skip


def step_lr(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)


# The Flax half. What is an attribute here can be set otherwise.


class BatchNorm(nnx.Module):
    """With PyTorch's memory, of the unbiased variance."""

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.epsilon, self.momentum = 1e-5, 0.9
        self.unbiased, self.updated, self.training, self.left_out = True, True, True, False

    def __call__(self, x_BHWC):
        if self.left_out:
            return x_BHWC
        n = x_BHWC.size // x_BHWC.shape[-1]
        mean, var = x_BHWC.mean((0, 1, 2)), x_BHWC.var((0, 1, 2))
        if not self.training:
            mean, var = self.mean[...], self.var[...]
        elif self.updated:
            self.remember(self.mean, mean)
            self.remember(self.var, var * n / (n - 1) if self.unbiased else var)
        y = (x_BHWC - mean) / jnp.sqrt(var + self.epsilon)
        return y * self.scale[...] + self.bias[...]

    def remember(self, memory, seen):
        old, seen = memory[...], jax.lax.stop_gradient(seen)
        new = self.momentum * old + (1 - self.momentum) * seen
        memory[...] = new.astype(old.dtype)


def pool1(x):
    return nnx.max_pool(x, (2, 2), strides=(2, 2))


def pool2(x):
    return nnx.avg_pool(x, (3, 3), strides=(3, 3), padding=((1, 1), (1, 1)))


class CNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(2, C1, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.bn1 = BatchNorm(C1)
        self.pool1 = pool1
        self.conv2 = nnx.Conv(C1, C2, (3, 3), strides=2, padding=1, rngs=rngs)
        self.bn2 = BatchNorm(C2)
        self.pool2 = pool2
        self.fc1 = nnx.Linear(2 * 2 * C2, WIDTH, rngs=rngs)
        self.fc2 = nnx.Linear(WIDTH, CLASSES, rngs=rngs)
        self.activation1 = self.activation2 = self.activation3 = nnx.relu

    def __call__(self, x_BHWC):
        x = self.pool1(self.activation1(self.bn1(self.conv1(x_BHWC))))
        x = self.pool2(self.activation2(self.bn2(self.conv2(x))))
        return self.fc2(self.activation3(self.fc1(x.reshape(x.shape[0], -1))))


def cross_entropy(logits, labels, smoothing=SMOOTHING):
    """The mean over the batch, with smoothed labels."""
    target = jax.nn.one_hot(labels, CLASSES, dtype=logits.dtype)
    target = (1 - smoothing) * target + smoothing / CLASSES
    return -jnp.sum(target * jax.nn.log_softmax(logits)) / len(labels)


rate = instep.schedules.cosine_annealing_lr(LR, STEPS)


def sgd(lr: Any = rate, momentum=MOMENTUM, decay=DECAY, **options: Any):
    return instep.optim.sgd(lr, momentum, weight_decay=decay, **options)


WEIGHTS = [
    bridge.conv("conv1"),
    bridge.batch_norm("bn1"),
    bridge.conv("conv2"),
    bridge.batch_norm("bn2"),
    bridge.linear("fc1", flattened=(C2, 2, 2)),
    bridge.linear("fc2"),
]


def channels_last(batch):
    images, *labels = batch
    return images.permute(0, 2, 3, 1), *labels


def cnn(
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
    flax = CNN(nnx.Rngs(seed))
    model(flax)
    graphdef, params, buffers = split(flax, half.model, rules)

    def loss_fn(params, buffers, batch):
        images, labels = batch
        own = jax.tree.map(lambda x: x, buffers)  # Flax writes into what it is given
        model = nnx.merge(graphdef, inside(params), own)
        value = loss(model(images), labels)
        return value, nnx.state(model, nnx.BatchStat)

    right = ByHand(loss_fn, sgd(), half.clip_grad_norm)
    return instep.Pair(
        half, replace(right, **parts).loop(params, buffers), rules, channels_last
    )
