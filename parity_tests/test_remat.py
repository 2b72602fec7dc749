"""What is computed again in the backward pass: the same numbers, from fewer kept activations."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import instep
from conftest import assert_bitwise
from instep._errors import LoweringError


B, T, C = 3, 8, 16


class Block(nn.Module):
    """A pre-norm block of a GPT, with dropout."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.mlp = nn.Sequential(
            nn.Linear(C, 4 * C), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * C, C)
        )

    def forward(self, x_BTC):
        heads = [h.unflatten(-1, (2, -1)).transpose(1, 2) for h in self._qkv(x_BTC)]
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True, dropout_p=0.1)
        x_BTC = x_BTC + self.out(mixed.transpose(1, 2).flatten(2))
        return x_BTC + self.mlp(self.norm2(x_BTC))

    def _qkv(self, x_BTC):
        return self.qkv(self.norm1(x_BTC)).chunk(3, dim=-1)


class Stack(nn.Module):
    """Blocks, each called through ``wrap``."""

    def __init__(self, block=Block, wrap=None, layers=3):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(block() for _ in range(layers))
        self.wrap = wrap

    def forward(self, x):
        for block in self.blocks:
            x = block(x) if self.wrap is None else self.wrap(block, x)
        return x


class Normed(nn.Module):
    """It writes buffers."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(T, T), nn.BatchNorm1d(T)

    def forward(self, x):
        return F.silu(self.norm(F.silu(self.linear(x.transpose(1, 2)).transpose(1, 2))))


def inputs():
    return torch.randn(B, T, C, generator=torch.Generator().manual_seed(1))


def differentiated(model, **options):
    """Loss, buffers and gradients under ``jax.jit``, and how many numbers are kept for them."""
    lowered = instep.lower(model, (inputs(),), **options)

    def loss(params, x):
        y, buffers = lowered(params, lowered.buffers, x, rng=jax.random.key(0))
        return jnp.sum(jnp.sin(y)), buffers

    x = inputs().numpy()
    made = jax.jit(jax.value_and_grad(loss, has_aux=True))(lowered.params, x)
    _, backward, _ = jax.vjp(loss, lowered.params, x, has_aux=True)
    return made, sum(np.size(kept) for kept in jax.tree.leaves(backward))


@pytest.fixture(scope="module")
def plain():
    """Without any recomputation, by the kind of block."""
    from conftest import strict_float64

    with strict_float64():
        return {block: differentiated(Stack(block)) for block in (Block, Normed)}


def reentrant(block, x):
    return checkpoint(block, x, use_reentrant=True)


def not_reentrant(block, x):
    return checkpoint(block, x, use_reentrant=False)


def of_a_function(block, x):
    return checkpoint(lambda y: torch.cat([block(y[:1]), block(y[1:])]), x, use_reentrant=False)


def nested(block, x):
    return checkpoint(lambda y: not_reentrant(block, y), x, use_reentrant=False)


REMAT = {
    "remat": (None, r"^blocks\.\d+$"),
    "remat of several": (None, [r"blocks\.0", r"blocks\.[12]"]),
    "reentrant": (reentrant, ()),
    "not reentrant": (not_reentrant, ()),
    "nested": (nested, ()),
    "both": (not_reentrant, r"^blocks\.\d+$"),
}


@pytest.mark.parametrize("block", [Block, Normed])
@pytest.mark.parametrize(("wrap", "remat"), REMAT.values(), ids=REMAT)
def test_the_same_bits_from_less_memory(wrap, remat, block, plain, x64):
    (whole, kept), (made, fewer) = (
        plain[block],
        differentiated(Stack(block, wrap), remat=remat),
    )
    assert_bitwise(whole, made)
    assert fewer < 0.5 * kept, (fewer, kept)
