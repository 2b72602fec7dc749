"""resnet18-32, resnet18-224 and resnet50-224: residual networks, on random images, for speed.

The networks of ImageNet at 224 x 224; at 32 x 32 with the stem that CIFAR has (one 3 x 3
convolution, no pooling). ResNet-50 is of bottlenecks with the stride in their 3 x 3
convolution, as torchvision has them. SGD with momentum and weight decay. The images are random:
nobody trains them here, and no accuracy is claimed.

He et al., Deep Residual Learning for Image Recognition, 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

import instep

from ._metric import ACCURACY
from ._random_images import held_out, train_loader
from ._workload import FlaxHalf, Workload
from .digits_cnn import BatchNorm, channels_last


LR, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 1e-4
EXPANSION = 4  # of a bottleneck: channels that it returns, over its width


@dataclass(frozen=True)
class Size:
    """The images, how many of them, and the blocks of the network."""

    side: int
    classes: int
    batch: int
    blocks: tuple[int, ...] = (2, 2, 2, 2)  # in each stage
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = False

    @property
    def small(self) -> bool:
        """Whether the stem is that of CIFAR."""
        return self.side <= 64

    @property
    def expansion(self) -> int:
        """Channels that a block returns, over its width."""
        return EXPANSION if self.bottleneck else 1

    @property
    def layers(self) -> int:
        """Convolutions on the longest path, and the last linear layer."""
        return 2 + (3 if self.bottleneck else 2) * sum(self.blocks)

    def shapes(self) -> list[tuple[int, int, int]]:
        """Inputs, width and stride of every block."""
        found, inputs = [], self.widths[0]
        for stage, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for block in range(blocks):
                found.append((inputs, width, 2 if stage and not block else 1))
                inputs = width * self.expansion
        return found


SIZES = {
    "resnet18-32": Size(32, 10, 64),
    "resnet18-224": Size(224, 1000, 16),
    "resnet50-224": Size(224, 1000, 16, blocks=(3, 4, 6, 3), bottleneck=True),
}


# The PyTorch half, as a PyTorch user writes it.


class TorchBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        x = x if self.shortcut is None else self.bn3(self.shortcut(x))
        return F.relu(x + y)


class TorchBottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.bn4 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        x = x if self.shortcut is None else self.bn4(self.shortcut(x))
        return F.relu(x + y)


class TorchResNet(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.small = size.small
        kernel, stride = (3, 1) if size.small else (7, 2)
        first, last = size.widths[0], size.widths[-1] * size.expansion
        self.conv = nn.Conv2d(3, first, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(first)
        block = TorchBottleneck if size.bottleneck else TorchBlock
        self.blocks = nn.ModuleList([block(*shape) for shape in size.shapes()])
        self.fc = nn.Linear(last, size.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = F.relu(self.bn(self.conv(x)))
        if not self.small:
            x = F.max_pool2d(x, 3, 2, padding=1)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3)))


def torch_loss(model, batch):
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def torch_half(size: Size, seed: int = 0) -> instep.TorchLoop:
    torch.manual_seed(seed)
    model = TorchResNet(size)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    batches = train_loader(size.side, size.classes, size.batch, seed=seed)
    return instep.TorchLoop(model, torch_loss, optimizer, batches)


# The Flax half, as a Flax user writes it, with PyTorch's BatchNorm.


def conv(inputs: int, outputs: int, kernel: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(
        inputs,
        outputs,
        (kernel, kernel),
        strides=stride,
        padding=kernel // 2,
        use_bias=False,
        rngs=rngs,
    )


class Block(nnx.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs):
        self.conv1 = conv(inputs, outputs, 3, stride, rngs)
        self.bn1 = BatchNorm(outputs)
        self.conv2 = conv(outputs, outputs, 3, 1, rngs)
        self.bn2 = BatchNorm(outputs)
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.shortcut = conv(inputs, outputs, 1, stride, rngs)
            self.bn3 = BatchNorm(outputs)

    def __call__(self, x, training: bool):
        y = nnx.relu(self.bn1(self.conv1(x), training))
        y = self.bn2(self.conv2(y), training)
        x = self.bn3(self.shortcut(x), training) if self.projects else x
        return nnx.relu(x + y)


class Bottleneck(nnx.Module):
    def __init__(self, inputs: int, width: int, stride: int, rngs: nnx.Rngs):
        outputs = EXPANSION * width
        self.conv1 = conv(inputs, width, 1, 1, rngs)
        self.bn1 = BatchNorm(width)
        self.conv2 = conv(width, width, 3, stride, rngs)
        self.bn2 = BatchNorm(width)
        self.conv3 = conv(width, outputs, 1, 1, rngs)
        self.bn3 = BatchNorm(outputs)
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.shortcut = conv(inputs, outputs, 1, stride, rngs)
            self.bn4 = BatchNorm(outputs)

    def __call__(self, x, training: bool):
        y = nnx.relu(self.bn1(self.conv1(x), training))
        y = nnx.relu(self.bn2(self.conv2(y), training))
        y = self.bn3(self.conv3(y), training)
        x = self.bn4(self.shortcut(x), training) if self.projects else x
        return nnx.relu(x + y)


class ResNet(nnx.Module):
    def __init__(self, size: Size, rngs: nnx.Rngs):
        self.small = size.small
        kernel, stride = (3, 1) if size.small else (7, 2)
        first, last = size.widths[0], size.widths[-1] * size.expansion
        self.conv = conv(3, first, kernel, stride, rngs)
        self.bn = BatchNorm(first)
        block = Bottleneck if size.bottleneck else Block
        self.blocks = nnx.List([block(*shape, rngs) for shape in size.shapes()])
        self.fc = nnx.Linear(last, size.classes, rngs=rngs)

    def __call__(self, x, training: bool):
        x = nnx.relu(self.bn(self.conv(x), training))
        if not self.small:
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
        for block in self.blocks:
            x = block(x, training)
        return self.fc(x.mean((1, 2)))


def flax_loss(model, batch):
    images, labels = batch
    return instep.losses.cross_entropy(model(images, training=True), labels)


def flax_half(size: Size) -> FlaxHalf:
    return FlaxHalf(ResNet(size, nnx.Rngs(0)), flax_loss)


def jax_half(size: Size) -> instep.JaxLoop:
    graphdef, params, buffers = nnx.split(flax_half(size).model, nnx.Param, nnx.BatchStat)

    def loss_fn(params, buffers, batch, rng):
        del rng  # nothing is drawn
        model = nnx.merge(graphdef, params, buffers)
        loss = flax_loss(model, batch)
        return instep.Loss(loss, buffers=nnx.state(model, nnx.BatchStat))

    def apply(params, buffers, images):
        return nnx.merge(graphdef, params, buffers)(images, training=False)

    tx = instep.optim.sgd(LR, MOMENTUM, weight_decay=WEIGHT_DECAY)
    return instep.JaxLoop(loss_fn, tx, params, buffers, apply=apply)


def pair(size: Size, seed: int = 0) -> instep.Pair:
    return instep.Pair(torch_half(size, seed), jax_half(size), "auto", channels_last)


def workload(name: str) -> Workload:
    """One of ``SIZES``."""
    size = SIZES[name]
    images = f"{size.side} x {size.side} on random images"
    return Workload(
        name=name,
        summary=f"ResNet-{size.layers} at {images}, for speed; SGD",
        make_pair=lambda seed=0: pair(size, seed),
        total_steps=100,
        held_out=lambda: held_out(size.side, size.classes, size.batch),  # pyright: ignore
        metric=ACCURACY,
        target=None,
        flax=lambda: flax_half(size),
    )
