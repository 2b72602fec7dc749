"""Small pairs, which the tests of the walk change one thing at a time."""

from dataclasses import replace

import jax.numpy as jnp
import torch
from torch import nn

import instep
from instep import bridge


def linear_pair(loss_fn=None, torch_loss=None, lr=0.1, steps=6, **jax_options):
    """Least squares: the smallest pair that has every stage but buffers."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    data = torch.randn(steps, 8, 3)
    loop = instep.TorchLoop(
        model,
        torch_loss or (lambda model, x: (model(x) ** 2).mean()),
        torch.optim.SGD(model.parameters(), lr=lr),
        list(data),
    )

    def right(params, x):
        return ((x @ params["kernel"] + params["bias"]) ** 2).mean()

    params = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}
    tx = jax_options.pop("tx", instep.optim.sgd(lr))
    loop_jax = instep.JaxLoop(loss_fn or right, tx, params, **jax_options)
    return instep.Pair(loop, loop_jax, [bridge.linear("")])


def with_batches(batches):
    pair = linear_pair()
    return replace(pair, torch=replace(pair.torch, batches=batches))


def mean_pair(var):
    """Normalised inputs whose mean is 30 times their deviation."""
    torch.manual_seed(0)
    model = nn.Linear(64, 8)
    data = [(torch.randn(16, 64) + 30.0) for _ in range(3)]

    def torch_loss(model, x):
        centred = (x - x.mean(1, keepdim=True)) / x.var(1, keepdim=True, correction=0).sqrt()
        return (model(centred) ** 2).mean()

    def loss_fn(params, x):
        centred = (x - x.mean(1, keepdims=True)) / jnp.sqrt(var(x))
        return ((centred @ params["kernel"] + params["bias"]) ** 2).mean()

    loop = instep.TorchLoop(
        model, torch_loss, torch.optim.SGD(model.parameters(), lr=0.1), data
    )
    params = {"kernel": jnp.zeros((64, 8)), "bias": jnp.zeros(8)}
    return instep.Pair(
        loop, instep.JaxLoop(loss_fn, instep.optim.sgd(0.1), params), [bridge.linear("")]
    )


def fast_variance(x):
    return (x**2).mean(1, keepdims=True) - x.mean(1, keepdims=True) ** 2
