"""byte-gpt: a decoder-only transformer over the bytes of Python's own library, in three sizes.

Letters: B batch, T time, H heads, D width of a head, E width of the model, V vocabulary.

Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

import instep

from ._metric import NATS_PER_BYTE
from ._stdlib import source_bytes
from ._windows import held_out, train_loader
from ._workload import FlaxHalf, Workload


BETAS, WEIGHT_DECAY, MAX_NORM, ACCUMULATE, STD = (0.9, 0.95), 0.1, 1.0, 4, 0.02


@dataclass(frozen=True)
class Size:
    """The shape of a model, and how it is trained."""

    layers: int
    heads: int
    width: int  # E
    context: int  # T
    vocabulary: int  # V; the bytes are the first 256
    microbatch: int  # B
    lr: float
    warm_up: int
    steps: int
    held_out: int  # microbatches
    target: float | None

    @property
    def parameters(self) -> int:
        """Of the model; the head is the embedding."""
        E = self.width
        block = 12 * E * E + 13 * E  # 4 matrices, their biases, 2 norms
        return (self.vocabulary + self.context) * E + self.layers * block + 2 * E


# The last is GPT-2 small to the parameter: its 50,257 tokens, of which the first 256 are bytes.
SIZES = {
    "byte-gpt": Size(5, 4, 128, 128, 256, 4, 2e-3, 20, 400, 32, 2.2),
    "byte-gpt-10m": Size(6, 6, 384, 256, 256, 16, 1e-3, 100, 5_000, 16, None),
    "byte-gpt-124m": Size(12, 12, 768, 1024, 50_257, 4, 6e-4, 700, 20_000, 16, None),
}


# The PyTorch half, as a PyTorch user writes it.


class TorchAttention(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.out = nn.Linear(size.width, size.width)

    def forward(self, x):
        B, T, E = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, E // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, E))


class TorchMLP(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.fc1 = nn.Linear(size.width, 4 * size.width)
        self.fc2 = nn.Linear(4 * size.width, size.width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class TorchBlock(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width)
        self.attn = TorchAttention(size)
        self.norm2 = nn.LayerNorm(size.width)
        self.mlp = TorchMLP(size)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TorchGPT(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.wte = nn.Embedding(size.vocabulary, size.width)
        self.wpe = nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList([TorchBlock(size) for _ in range(size.layers)])
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.vocabulary, bias=False)
        self.head.weight = self.wte.weight
        for name, p in self.named_parameters():
            if name.endswith(("out.weight", "fc2.weight")):  # they add to the residual stream
                nn.init.normal_(p, std=STD / math.sqrt(2 * size.layers))
            elif p.ndim > 1:
                nn.init.normal_(p, std=STD)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, tokens_BT):
        positions = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        x = self.wte(tokens_BT) + self.wpe(positions)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def torch_loss(model, batch):
    tokens_BT, next_BT = batch
    return F.cross_entropy(model(tokens_BT).flatten(0, 1), next_BT.flatten())


def torch_loss_bf16(model, batch):
    with torch.autocast(batch[0].device.type, torch.bfloat16):
        return torch_loss(model, batch)


def torch_half(size: Size, precision: str = "float32", seed: int = 0) -> instep.TorchLoop:
    torch.manual_seed(seed)
    model = TorchGPT(size)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=size.lr, betas=BETAS)
    warm_up = torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=1 / size.warm_up, total_iters=size.warm_up
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, size.steps - size.warm_up, eta_min=size.lr / 10
    )
    return instep.TorchLoop(
        model,
        torch_loss_bf16 if precision == "bf16" else torch_loss,
        optimizer,
        train_loader(source_bytes()[0], size.context, size.microbatch, seed),
        scheduler=torch.optim.lr_scheduler.SequentialLR(
            optimizer, [warm_up, cosine], milestones=[size.warm_up]
        ),
        clip_grad_norm=MAX_NORM,
        accumulate=ACCUMULATE,
    )


# The Flax half, as a Flax user writes it, with PyTorch's GELU, epsilon and variance.
# ``dtype`` is that of the matrix products; None: that of the weights.


def linear(inputs: int, outputs: int, dtype, rngs: nnx.Rngs, std: float = STD) -> nnx.Linear:
    init = nnx.initializers.normal(std)
    return nnx.Linear(inputs, outputs, kernel_init=init, dtype=dtype, rngs=rngs)


def layer_norm(size: Size, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(size.width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


def gelu(x):
    """Computed in at least float32, as PyTorch's kernels do."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return nnx.gelu(wide, approximate=False).astype(x.dtype)


class Attention(nnx.Module):
    def __init__(self, size: Size, dtype, rngs: nnx.Rngs):
        E, residual = size.width, STD / math.sqrt(2 * size.layers)
        self.heads = size.heads
        self.qkv = linear(E, 3 * E, dtype, rngs)
        self.out = linear(E, E, dtype, rngs, residual)

    def __call__(self, x_BTE):
        B, T, E = x_BTE.shape
        qkv = self.qkv(x_BTE).reshape(B, T, 3, self.heads, E // self.heads)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        y_BTHD = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return self.out(y_BTHD.reshape(B, T, E))


class MLP(nnx.Module):
    def __init__(self, size: Size, dtype, rngs: nnx.Rngs):
        E, residual = size.width, STD / math.sqrt(2 * size.layers)
        self.fc1 = linear(E, 4 * E, dtype, rngs)
        self.fc2 = linear(4 * E, E, dtype, rngs, residual)

    def __call__(self, x):
        return self.fc2(gelu(self.fc1(x)))


class Block(nnx.Module):
    def __init__(self, size: Size, dtype, rngs: nnx.Rngs):
        self.norm1 = layer_norm(size, rngs)
        self.attn = Attention(size, dtype, rngs)
        self.norm2 = layer_norm(size, rngs)
        self.mlp = MLP(size, dtype, rngs)

    def __call__(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nnx.Module):
    def __init__(self, size: Size, dtype, rngs: nnx.Rngs):
        embed = partial(nnx.Embed, embedding_init=nnx.initializers.normal(STD), rngs=rngs)
        self.wte = embed(size.vocabulary, size.width)
        self.wpe = embed(size.context, size.width)
        self.blocks = nnx.List([Block(size, dtype, rngs) for _ in range(size.layers)])
        self.norm = layer_norm(size, rngs)
        self.dtype = dtype

    def __call__(self, tokens_BT):
        x = self.wte(tokens_BT) + self.wpe(jnp.arange(tokens_BT.shape[1]))
        for block in self.blocks:
            x = block(x)
        x, table_VE = self.norm(x), self.wte.embedding[...]
        return jnp.dot(
            x.astype(self.dtype or x.dtype), table_VE.astype(self.dtype or x.dtype).T
        )


def adamw(size: Size):
    """Two groups: matrices, and the rest."""
    warm_up = instep.schedules.linear_lr(size.lr, 1 / size.warm_up, total_iters=size.warm_up)
    cosine = instep.schedules.cosine_annealing_lr(
        size.lr, size.steps - size.warm_up, eta_min=size.lr / 10
    )
    lr = instep.schedules.sequential_lr([warm_up, cosine], [size.warm_up])
    decayed = instep.optim.adamw(lr, BETAS, weight_decay=WEIGHT_DECAY)
    plain = instep.optim.adamw(lr, BETAS, weight_decay=0.0)
    return instep.optim.param_groups(
        [
            (lambda name, leaf: leaf.ndim > 1, decayed),
            (lambda name, leaf: leaf.ndim <= 1, plain),
        ]
    )


def flax_loss(model, batch):
    tokens_BT, next_BT = batch
    logits = model(tokens_BT)
    logits = logits.reshape(-1, logits.shape[-1])
    if model.dtype is not None:
        logits = logits.astype(jnp.float32)
    return instep.losses.cross_entropy(logits, next_BT.reshape(-1))


def flax_half(size: Size, precision: str = "float32") -> FlaxHalf:
    dtype = jnp.bfloat16 if precision == "bf16" else None
    return FlaxHalf(GPT(size, dtype, nnx.Rngs(0)), flax_loss)


def jax_half(size: Size, precision: str = "float32") -> instep.JaxLoop:
    graphdef, params = nnx.split(flax_half(size, precision).model, nnx.Param)

    def loss_fn(params, batch):
        return flax_loss(nnx.merge(graphdef, params), batch)

    def apply(params, buffers, tokens_BT):
        del buffers  # there are none
        return nnx.merge(graphdef, params)(tokens_BT)

    options = {"accumulate": ACCUMULATE, "clip_grad_norm": MAX_NORM}
    return instep.JaxLoop(loss_fn, adamw(size), params, apply=apply, **options)


def workload(name: str, precision: str = "float32") -> Workload:
    """One of ``SIZES``; with ``precision="bf16"`` under autocast, and with Flax's ``dtype``."""
    size = SIZES[name]

    def make_pair(seed: int = 0) -> instep.Pair:
        return instep.Pair(torch_half(size, precision, seed), jax_half(size, precision), "auto")

    return Workload(
        name=name,
        summary=f"GPT with {size.parameters:,} parameters; AdamW in two groups, warm-up and "
        f"cosine, clipping, accumulation {ACCUMULATE}",
        make_pair=make_pair,
        total_steps=size.steps,
        held_out=lambda: held_out(
            source_bytes()[1], size.context, size.microbatch, size.held_out
        ),
        metric=NATS_PER_BYTE,
        target=size.target,
        precision=precision,
        flax=lambda: flax_half(size, precision),
    )
