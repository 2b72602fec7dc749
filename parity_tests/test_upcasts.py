"""Casts inside the halves: lifted in float64 walks, and judged as rounding below."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from flax import nnx
from torch import nn

import instep
from instep import parity
from pairs import linear_pair


def torch_upcast(model, x):
    y = model(x).float()
    return torch.softmax(y, -1, dtype=torch.float32).square().mean()


def jax_upcast(params, x):
    y = (x @ params["kernel"] + params["bias"]).astype(jnp.float32)
    return (jax.nn.softmax(y) ** 2).mean(dtype=jnp.float32)


@pytest.mark.parametrize("upcast", ["torch", "jax", "both"])
def test_casts_to_float32_are_lifted_in_float64_walks(upcast):
    """As RMSNorm and softmax have them: right where people train, and not a rounding here."""

    def torch_loss(model, x):
        return torch.softmax(model(x), -1).square().mean()

    def loss_fn(params, x):
        return (jax.nn.softmax(x @ params["kernel"] + params["bias"]) ** 2).mean()

    pair = linear_pair(
        loss_fn if upcast == "torch" else jax_upcast,
        torch_loss if upcast == "jax" else torch_upcast,
    )
    report = parity.run(pair, steps=3)
    assert report.in_step, report
    with jax.enable_x64(True):  # nothing is lifted any more
        y = jax.jit(jax_upcast)({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, jnp.ones(3))
    assert y.dtype == jnp.float32
    assert torch_upcast(nn.Linear(3, 2).double(), torch.ones(3).double()).dtype is torch.float32


def stock_pair():
    """Programs that Flax pins to float32, and every construct a lifted dtype passes through."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    tokens = [torch.randint(7, (5, 6)) for _ in range(3)]

    def torch_loss(model, tokens):
        y = model(tokens) + tokens.float()[..., None] / 255
        for _ in range(3):
            y = torch.tanh(y.float())
        y = y * torch.sigmoid(y) if y.sum() > 0 else y
        return ((y.cumsum(1) * 0.1) ** 2).mean()

    graphdef, params, rest = nnx.split(
        nnx.Sequential(nnx.Embed(7, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 3, rngs=nnx.Rngs(0))),
        nnx.Param,
        ...,
    )

    def tanh32(y):
        return jnp.tanh(y.astype(jnp.float32))

    def loss_fn(params, tokens):
        y = nnx.merge(graphdef, params, rest)(tokens) + tokens[..., None] / 255
        y = jax.lax.fori_loop(0, 1, lambda i, y: tanh32(y).astype(y.dtype), y)
        y, _ = jax.lax.scan(lambda y, _: (tanh32(y), None), y.astype(jnp.float32), length=2)
        y = jax.lax.cond(y.sum() > 0, lambda y: y * jax.nn.sigmoid(y), lambda y: y, y)
        y = jax.checkpoint(lambda y: y.astype(jnp.float32))(y)
        y = jnp.cumsum(y, 1) * jnp.float32(0.1)
        return jnp.mean(y**2, dtype=jnp.float32)

    loop = instep.TorchLoop(
        model, torch_loss, torch.optim.SGD(model.parameters(), lr=0.1), tokens
    )
    return instep.Pair(loop, instep.JaxLoop(loss_fn, optax.sgd(0.1), params))


def test_float32_is_lifted_inside_loops_branches_and_calls():
    report = parity.run(stock_pair(), steps=3)
    assert report.in_step, str(report)


def test_bfloat16_inside_both_halves_is_pytorchs_own_error():
    """As under autocast: a float32 loop whose products are taken in bfloat16."""

    def torch_loss(model, x):
        low = torch.bfloat16
        y = nn.functional.linear(x.to(low), model.weight.to(low), model.bias.to(low))
        return (y.float() ** 2).mean()

    def loss_fn(params, x):
        x, w, b = (a.astype(jnp.bfloat16) for a in (x, params["kernel"], params["bias"]))
        return ((x @ w + b).astype(jnp.float32) ** 2).mean()

    for seed in range(5):
        pair = linear_pair(loss_fn, torch_loss)
        batches = torch.randn(5, 8, 3, generator=torch.Generator().manual_seed(seed))
        pair = replace(pair, torch=replace(pair.torch, batches=list(batches)))
        report = parity.run(pair, steps=5)
        assert report.in_step, (seed, str(report))


def test_an_upcast_that_jax_lacks_is_seen_in_bfloat16():
    def loss_fn(params, x):
        return (jax.nn.softmax(x @ params["kernel"] + params["bias"]) ** 2).mean()

    report = parity.run(linear_pair(loss_fn, torch_upcast), steps=12, precisions=["bfloat16"])
    assert [walk.in_step for walk in report.walks] == [True, True, False]
    first = report.first_divergence
    assert (first.walk, first.stage) == ("bfloat16 re-synchronised", "loss")
