"""Loops under torch.autocast, and ``policy=``, against PyTorch's own: what is cast, and how."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import instep
from conftest import array
from instep import bridge, parity
from instep.bridge.lower import _compile
from instep.bridge.lower._table import Rule, rule_of
from instep.parity._judge import measure_rounding
from instep.parity._records import Status


WORDS, WIDTH = 11, 16


class Transformer(nn.Module):
    """One layer with a softmax, a LayerNorm and a GELU, written out."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, tokens_BT):
        x = self.embed(tokens_BT)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + (q @ k.transpose(1, 2) / WIDTH**0.5).softmax(-1) @ v
        return self.head(x + self.mlp(x))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, tokens_BT):
        return self.head(self.lstm(self.embed(tokens_BT))[0])


def mlp():
    return nn.Sequential(
        nn.Linear(6, WIDTH), nn.GELU(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)
    )


def cnn():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(72, 5),
    )  # fmt: skip


def vectors():
    return torch.randn(16, 6), torch.randint(0, 5, (16,))


def images():
    return torch.randn(8, 3, 8, 8), torch.randint(0, 5, (8,))


def words():
    return torch.randint(0, WORDS, (4, 6)), torch.randint(0, WORDS, (4, 6))


def loss_fn(model, batch):
    logits = model(batch[0])
    return F.cross_entropy(logits.flatten(0, -2), batch[1].flatten())


def loss_bf16(model, batch):
    """As people write it."""
    with torch.autocast("cpu", torch.bfloat16):
        return loss_fn(model, batch)


MODELS = {
    "mlp": (mlp, vectors),
    "cnn": (cnn, images),
    "transformer": (Transformer, words),
    "lstm": (Lstm, words),
}


def loop_of(name, loss=loss_bf16, **options):
    torch.manual_seed(0)
    make, draw = MODELS[name]
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return instep.TorchLoop(model, loss, optimizer, [draw() for _ in range(4)], **options)


def worst(report, dtype, kinds=("loss", "gradient")):
    """The largest error over its bound, re-synchronised."""
    (walk,) = [w for w in report.walks if w.plan.dtype == dtype and w.plan.synced]
    return {row.leaf: row.ratio for row in walk.rows if row.leaf.kind in kinds}


@pytest.mark.parametrize("name", MODELS)
def test_in_step(name):
    """In float64 autocast casts nothing; in float32 bfloat16 rounds, on both sides."""
    report = parity.run(loop_of(name), steps=2, checks=False)
    assert report.in_step, str(report)
