"""Convolution, pooling, padding and resampling, where PyTorch's database does not look."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import array, assert_in_step
from instep import ops


NAN, INF = float("nan"), float("inf")


def check(theirs, ours, *inputs, order=1):
    """Values, dtypes, shapes and gradients of a function of floating arrays."""
    leaves = [torch.tensor(x, requires_grad=True) for x in inputs]
    expected, made = theirs(*leaves), ours(*map(jnp.asarray, inputs))
    one = not isinstance(made, tuple)
    for x, y in zip([expected] if one else expected, [made] if one else made, strict=True):
        assert array(x).dtype == y.dtype and x.shape == y.shape
        assert_in_step(x.double(), np.asarray(y, float), "value", finite=False)
    noise = np.random.default_rng(7)
    weights = noise.normal(size=(expected if one else expected[0]).shape)

    def loss(*xs):
        y = ours(*xs)
        return jnp.sum((y if one else y[0]) ** order * jnp.asarray(weights))

    y = expected if one else expected[0]
    theirs_of = torch.autograd.grad((y**order * torch.tensor(weights)).sum(), leaves)
    ours_of = jax.grad(loss, tuple(range(len(inputs))))(*map(jnp.asarray, inputs))
    for x, y in zip(theirs_of, ours_of, strict=True):
        assert_in_step(x, y, "gradient", finite=False)


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def ties(*shape):
    return np.random.default_rng(0).integers(0, 2, shape).astype(float)


def holes(*shape):
    """Numbers, infinities and NaN."""
    x = images(*shape)
    for i, value in enumerate((NAN, INF, -INF)):
        x[np.random.default_rng(i).random(shape) < 0.1] = value
    return x


LOW = np.full((1, 1, 6, 6), -INF)


@pytest.mark.parametrize("x", [ties(2, 2, 9, 8), holes(2, 2, 9, 8), LOW], ids=str)
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (3, 2), "stride": 1, "dilation": (1, 3), "ceil_mode": True},
        {"kernel_size": (2, 3), "padding": 1, "dilation": 2, "ceil_mode": True},
    ],
    ids=str,
)
def test_max_pool_chooses_as_pytorch(x, window, x64):
    given = window | {"return_indices": True}
    check(lambda x: F.max_pool2d(x, **given), lambda x: ops.max_pool2d(x, **given), x)


@pytest.mark.parametrize("x", [ties(2, 1, 40), holes(2, 1, 40)], ids=str)
def test_max_pool_with_a_large_window(x, x64):
    given = {"kernel_size": 20, "stride": 7, "padding": 10, "return_indices": True}
    check(lambda x: F.max_pool1d(x, **given), lambda x: ops.max_pool1d(x, **given), x)


@pytest.mark.parametrize("x", [ties(2, 1, 7, 6), holes(2, 1, 7, 6)], ids=str)
@pytest.mark.parametrize("size", [(3, 4), (7, 3), 1])
def test_adaptive_pools(x, size, x64):
    check(
        lambda x: F.adaptive_max_pool2d(x, size, return_indices=True),
        lambda x: ops.adaptive_max_pool2d(x, size, return_indices=True),
        x,
    )
    check(
        lambda x: F.adaptive_avg_pool2d(x, size), lambda x: ops.adaptive_avg_pool2d(x, size), x
    )


@pytest.mark.parametrize("dtype", ["int32", "bfloat16"])
def test_pools_keep_dtypes(dtype, x64):
    x = np.random.default_rng(0).integers(-9, 9, (1, 2, 6, 6))
    tx, jx = torch.tensor(x).to(getattr(torch, dtype)), jnp.asarray(x).astype(dtype)
    pairs = [(F.max_pool2d(tx, 3, 2, 1), ops.max_pool2d(jx, 3, 2, 1))]
    if dtype == "bfloat16":
        pairs.append((F.avg_pool2d(tx, 3, 2, 1), ops.avg_pool2d(jx, 3, 2, 1)))
        pairs.append((F.adaptive_avg_pool2d(tx, 4), ops.adaptive_avg_pool2d(jx, 4)))
    for theirs, ours in pairs:
        assert str(theirs.dtype) == f"torch.{ours.dtype}"
        np.testing.assert_array_equal(theirs.double().numpy(), np.asarray(ours, float))
