"""Small pairs for ``weak_gates.py``, beside each the mistakes that a weak gate lets through.

The JAX half keeps its weights under PyTorch's names and in PyTorch's layouts.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
import torch
import torch.nn.functional as F
from torch import nn

import instep
from instep import bridge, ops


ROWS, FEATURES, CLASSES, LR, DECAY = 6, 5, 8, 0.1, 1e-3


def pair_of(loop: instep.TorchLoop, loss_fn, tx, apply) -> instep.Pair:
    params = {name: jnp.zeros(p.shape) for name, p in loop.model.named_parameters()}
    buffers = {name: jnp.asarray(b.numpy()) for name, b in loop.model.named_buffers()} or None
    half = instep.JaxLoop(
        loss_fn, tx, params, buffers, accumulate=loop.accumulate,
        apply=lambda params, buffers, x: apply(params | (buffers or {}), x),
    )  # fmt: skip
    return instep.Pair(loop, half, [bridge.tensor(n) for n in [*params, *(buffers or {})]])


def classified(steps: int = 8):
    return [
        (torch.randn(ROWS, FEATURES), torch.randint(CLASSES, (ROWS,))) for _ in range(steps)
    ]


def torch_loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y)


def linear(p, name: str, x):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


# Two linear layers, the second one square, GELU and a norm.


class Net(nn.Module):
    def __init__(self, norm: Callable[[int], nn.Module] = nn.LayerNorm):
        super().__init__()
        self.fc1 = nn.Linear(FEATURES, CLASSES)
        self.fc2 = nn.Linear(CLASSES, CLASSES)
        self.norm = norm(CLASSES)

    def forward(self, x):
        return self.norm(self.fc2(F.gelu(self.fc1(x))))


def exact_gelu(x):
    return jax.nn.gelu(x, approximate=False)


def body(p, x, gelu=exact_gelu):
    return linear(p, "fc2", gelu(linear(p, "fc1", x)))


def forward(p, x, gelu=exact_gelu, eps=1e-5):
    h = body(p, x, gelu)
    return ops.layer_norm(h, (CLASSES,), p["norm.weight"], p["norm.bias"], eps=eps)


def net(apply=forward, loss_fn=None, tx=None, optimizer=None) -> instep.Pair:
    torch.manual_seed(0)
    model = Net()

    def right(params, batch):
        x, y = batch
        return instep.losses.cross_entropy(apply(params, x), y)

    optimizer = optimizer or (lambda p: torch.optim.SGD(p, LR, weight_decay=DECAY))
    loop = instep.TorchLoop(
        model, torch_loss, optimizer(model.parameters()), classified(), accumulate=2
    )
    return pair_of(
        loop, loss_fn or right, tx or instep.optim.sgd(LR, weight_decay=DECAY), apply
    )


def rate_half_again():
    return net(tx=instep.optim.sgd(1.5 * LR, weight_decay=DECAY))


def decay_forgotten():
    return net(tx=instep.optim.sgd(LR))


def gelu_by_tanh():
    return net(lambda p, x: forward(p, x, jax.nn.gelu))


def relu_for_gelu():
    """What a LayerNorm hands on has a sum of zero, whatever it is given."""
    return net(lambda p, x: forward(p, x, jax.nn.relu))


def epsilon_of_flax():
    return net(lambda p, x: forward(p, x, eps=1e-6))


def detached():
    return net(lambda p, x: forward(p, x, lambda h: exact_gelu(jax.lax.stop_gradient(h))))


def softmax_over_the_batch():
    """Logits of shape (classes, rows), and the softmax still over the last axis."""

    def apply(params, x):
        return forward(params, x).T

    def loss_fn(params, batch):
        x, y = batch
        scores = jax.nn.log_softmax(apply(params, x))
        return -scores[y, jnp.arange(ROWS)].mean()

    return net(apply, loss_fn)


def momentum(tx=None):
    return net(
        tx=tx or instep.optim.sgd(LR, momentum=0.9),
        optimizer=lambda p: torch.optim.SGD(p, LR, momentum=0.9),
    )


def momentum_forgotten():
    """The buffer is written anew at every step; the first is as it should be."""
    right = instep.optim.sgd(LR, momentum=0.9)

    def update(grads, state, params=None):
        return right.update(grads, right.init(params), params)

    return momentum(optax.GradientTransformation(right.init, update))


def adam(loss_fn=None):
    return net(
        loss_fn=loss_fn,
        tx=instep.optim.adam(1e-3),
        optimizer=lambda p: torch.optim.Adam(p, 1e-3),
    )


def sum_instead_of_mean():
    """The mean over both microbatches is logged, and the gradient is that of their sum."""

    def loss_fn(params, batch):
        x, y = batch
        loss = instep.losses.cross_entropy(forward(params, x), y)
        return 2 * loss - jax.lax.stop_gradient(loss)

    return adam(loss_fn)


# BatchNorm for the norm.


def batch_norm(momentum: float = 0.1) -> instep.Pair:
    torch.manual_seed(0)
    model = Net(nn.BatchNorm1d)

    def norm(p, x, training: bool):
        mean, var, weight, bias = (
            p[f"norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        return ops.batch_norm(x, mean, var, weight, bias, training, momentum, axis=-1)

    def loss_fn(params, buffers, batch, rng):
        x, y = batch
        logits, mean, var = norm(params | buffers, body(params, x), training=True)
        count = buffers["norm.num_batches_tracked"] + 1
        new = {"running_mean": mean, "running_var": var, "num_batches_tracked": count}
        loss = instep.losses.cross_entropy(logits, y)
        return instep.Loss(loss, buffers={f"norm.{name}": x for name, x in new.items()})

    def apply(p, x):
        return norm(p, body(p, x), training=False)[0]

    optimizer = torch.optim.SGD(model.parameters(), LR)
    loop = instep.TorchLoop(model, torch_loss, optimizer, classified())
    return pair_of(loop, loss_fn, instep.optim.sgd(LR), apply)


def momentum_of_flax():
    """Flax's default, 0.99 of the old, is 0.01 in PyTorch's terms."""
    return batch_norm(momentum=0.01)


# A point in a plane, regressed.


def box(order=lambda out: out) -> instep.Pair:
    torch.manual_seed(0)
    model = nn.Linear(FEATURES, 2)
    data = [(torch.randn(ROWS, FEATURES), torch.randn(ROWS, 2)) for _ in range(4)]

    def apply(p, x):
        return order(x @ p["weight"].T + p["bias"])

    def loss_fn(params, batch):
        x, y = batch
        return ((apply(params, x) - y) ** 2).mean()

    loop = instep.TorchLoop(
        model,
        lambda model, batch: F.mse_loss(model(batch[0]), batch[1]),
        torch.optim.SGD(model.parameters(), LR),
        data,
    )
    return pair_of(loop, loss_fn, instep.optim.sgd(LR), apply)


def coordinates_swapped():
    """(y, x) for (x, y)."""
    return box(lambda out: out[:, ::-1])


# Attention over tokens at rotated positions.

TOKENS, WIDTH, LENGTH = 7, 8, 24


def angles(length: int, base: float):
    return torch.outer(torch.arange(length), base ** -(torch.arange(0, WIDTH, 2) / WIDTH))


def rotated(x, cos, sin, concatenate):
    a, b = x[..., : WIDTH // 2], x[..., WIDTH // 2 :]
    return concatenate([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    def __init__(self, base: float):
        super().__init__()
        self.base = base
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens):
        x, angle = self.embed(tokens), angles(tokens.shape[1], self.base).to(self.head.weight)
        q, k = (
            rotated(w(x), angle.cos(), angle.sin(), torch.cat) for w in (self.query, self.key)
        )
        return self.head(F.scaled_dot_product_attention(q, k, x, is_causal=True))


def rope(base: float = 5e5) -> instep.Pair:
    torch.manual_seed(0)
    model = Attention(5e5)
    data = [(torch.randint(TOKENS, (2, LENGTH)),) for _ in range(4)]

    def apply(p, tokens):
        x, angle = p["embed.weight"][tokens], angles(tokens.shape[1], base).numpy()
        angle = jnp.asarray(angle, x.dtype)
        q, k = (
            rotated(linear(p, name, x), jnp.cos(angle), jnp.sin(angle), jnp.concatenate)
            for name in ("query", "key")
        )
        scores = q @ k.swapaxes(1, 2) / WIDTH**0.5
        causal = jnp.tril(jnp.ones(scores.shape[1:], bool))
        weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))
        return linear(p, "head", weights @ x)

    def loss_fn(params, batch):
        (tokens,) = batch
        logits = apply(params, tokens[:, :-1])
        return instep.losses.cross_entropy(logits.reshape(-1, TOKENS), tokens[:, 1:].ravel())

    def next_token(model, batch):
        (tokens,) = batch
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    loop = instep.TorchLoop(model, next_token, torch.optim.SGD(model.parameters(), LR), data)
    return pair_of(loop, loss_fn, instep.optim.sgd(LR), apply)


def another_rope_base():
    """10,000 is the base of the first Llama, 500,000 that of the third."""
    return rope(1e4)


# A transposed convolution that doubles a picture.


def upsampled(padding=(1, 2)) -> instep.Pair:
    torch.manual_seed(0)
    model = nn.ConvTranspose2d(2, 1, 3, stride=2, padding=1, output_padding=1)
    data = [(torch.randn(3, 2, 4, 4), torch.randn(3, 1, 8, 8)) for _ in range(4)]

    def apply(p, x):
        kernel = jnp.flip(p["weight"].swapaxes(0, 1), (2, 3))
        out = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), [padding] * 2, lhs_dilation=(2, 2)
        )
        return out + p["bias"][:, None, None]

    def loss_fn(params, batch):
        x, y = batch
        return ((apply(params, x) - y) ** 2).mean()

    loop = instep.TorchLoop(
        model,
        lambda model, batch: F.mse_loss(model(batch[0]), batch[1]),
        torch.optim.SGD(model.parameters(), LR),
        data,
    )
    return pair_of(loop, loss_fn, instep.optim.sgd(LR), apply)


def off_by_one_pixel():
    return upsampled(padding=(2, 1))


# An embedding with a row for padding.


def padded(padding_idx: int | None = 0) -> instep.Pair:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(TOKENS, WIDTH, padding_idx=0), nn.Linear(WIDTH, 1))
    data = [(torch.randint(TOKENS, (ROWS, 4)), torch.randn(ROWS, 4, 1)) for _ in range(4)]

    def apply(p, tokens):
        return linear(p, "1", ops.embedding(tokens, p["0.weight"], padding_idx))

    def loss_fn(params, batch):
        tokens, y = batch
        return ((apply(params, tokens) - y) ** 2).mean()

    loop = instep.TorchLoop(
        model,
        lambda model, batch: F.mse_loss(model(batch[0]), batch[1]),
        torch.optim.SGD(model.parameters(), LR),
        data,
    )
    return pair_of(loop, loss_fn, instep.optim.sgd(LR), apply)


def gradient_of_the_padding():
    return padded(padding_idx=None)
