"""digits-cnn: convolutions with BatchNorm, SGD with momentum, cosine schedule, clipping."""

from __future__ import annotations

import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

import instep
from instep import bridge

from ._digits import test_set, train_loader
from ._metric import ACCURACY
from ._workload import FlaxHalf, Workload


LR, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 5e-4
STEPS, ACCUMULATE, MICROBATCH, MAX_NORM = 420, 4, 16, 1.0


# The PyTorch half, as a PyTorch user writes it.


class TorchCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32 * 4 * 4, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.max_pool2d(x, 2)
        return self.fc(x.flatten(1))


def torch_loss(model, batch):
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def torch_half(seed: int = 0) -> instep.TorchLoop:
    torch.manual_seed(seed)
    model = TorchCNN()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    return instep.TorchLoop(
        model,
        torch_loss,
        optimizer,
        train_loader(MICROBATCH, seed),
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS),
        clip_grad_norm=MAX_NORM,
        accumulate=ACCUMULATE,
    )


# The Flax half, as a Flax user writes it; only BatchNorm is PyTorch's, since Flax's own
# remembers the biased variance.


class BatchNorm(nnx.Module):
    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.num_batches_tracked = nnx.BatchStat(jnp.zeros((), int))

    def __call__(self, x, training: bool):
        x, self.mean[...], self.var[...] = instep.ops.batch_norm(
            x, self.mean[...], self.var[...], self.scale[...], self.bias[...],
            training, axis=-1,
        )  # fmt: skip
        self.num_batches_tracked[...] += int(training)
        return x


class FlaxCNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 16, (3, 3), padding=1, rngs=rngs)
        self.bn1 = BatchNorm(16)
        self.conv2 = nnx.Conv(16, 32, (3, 3), padding=1, rngs=rngs)
        self.bn2 = BatchNorm(32)
        self.fc = nnx.Linear(4 * 4 * 32, 10, rngs=rngs)

    def __call__(self, x, training: bool):
        x = nnx.relu(self.bn1(self.conv1(x), training))
        x = nnx.relu(self.bn2(self.conv2(x), training))
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        return self.fc(x.reshape(x.shape[0], -1))


def flax_loss(model, batch):
    images, labels = batch
    return instep.losses.cross_entropy(model(images, training=True), labels)


def flax_half() -> FlaxHalf:
    return FlaxHalf(FlaxCNN(nnx.Rngs(0)), flax_loss)


def jax_half() -> instep.JaxLoop:
    graphdef, params, buffers = nnx.split(FlaxCNN(nnx.Rngs(0)), nnx.Param, nnx.BatchStat)

    def loss_fn(params, buffers, batch, rng):
        del rng  # nothing is drawn
        model = nnx.merge(graphdef, params, buffers)
        loss = flax_loss(model, batch)
        return instep.Loss(loss, buffers=nnx.state(model, nnx.BatchStat))

    def apply(params, buffers, images):
        return nnx.merge(graphdef, params, buffers)(images, training=False)

    lr = instep.schedules.cosine_annealing_lr(LR, STEPS)
    return instep.JaxLoop(
        loss_fn,
        instep.optim.sgd(lr, MOMENTUM, weight_decay=WEIGHT_DECAY),
        params,
        buffers,
        accumulate=ACCUMULATE,
        clip_grad_norm=MAX_NORM,
        apply=apply,
    )


# What corresponds to what.

WEIGHTS = [
    bridge.conv("conv1"),
    bridge.batch_norm("bn1"),
    bridge.conv("conv2"),
    bridge.batch_norm("bn2"),
    bridge.linear("fc", flattened=(32, 4, 4)),
]


def channels_last(batch):
    images, *labels = batch
    return images.permute(0, 2, 3, 1), *labels


WORKLOAD = Workload(
    name="digits-cnn",
    summary="conv, BatchNorm; SGD momentum, cosine schedule, clipping, accumulation 4",
    make_pair=lambda seed=0: instep.Pair(torch_half(seed), jax_half(), WEIGHTS, channels_last),
    total_steps=STEPS,
    held_out=test_set,
    metric=ACCURACY,
    target=0.98,
    flax=flax_half,
)
