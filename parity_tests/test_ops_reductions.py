"""Reductions, extrema and sorting against PyTorch: ties, zeros, NaN, dtypes and empty axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from conftest import array, assert_in_step
from instep import ops


NAN, INF = float("nan"), float("inf")
ROWS = np.array(
    [[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0], [NAN, 1.0, NAN, 1.0], [5.0, 0.0, 2.0, 0.0]]
)


def same(theirs, ours, x, differentiable=True):
    """Values, dtypes and the gradients of floating results."""
    given = torch.tensor(x, requires_grad=differentiable and x.dtype.kind == "f")
    made = theirs(given)
    made = made if isinstance(made, tuple) else (made,)

    def both(x):
        mine, pull = jax.vjp(ours, x)
        several = mine if isinstance(mine, tuple) else (mine,)
        grad = None
        if given.requires_grad and made[0].requires_grad:
            ones = [jnp.ones(several[0].shape)] + [
                np.zeros(i.shape, jax.dtypes.float0)
                if jnp.issubdtype(i.dtype, jnp.integer)
                else jnp.zeros(i.shape)
                for i in several[1:]
            ]
            [grad] = pull(tuple(ones) if isinstance(mine, tuple) else ones[0])
        return several, grad

    mine, grad = jax.jit(both)(jnp.asarray(x))
    for a, b in zip(made, mine, strict=True):
        assert str(a.dtype) == f"torch.{b.dtype}" and tuple(a.shape) == b.shape
        np.testing.assert_allclose(array(a), b, rtol=1e-12)
    if not given.requires_grad or not made[0].requires_grad:
        return
    torch.autograd.backward(made[0], torch.ones_like(made[0]))
    assert_in_step(given.grad, grad, "gradient", finite=False)


@pytest.mark.parametrize("name", ["amax", "amin", "max", "min", "sum", "mean", "prod", "var"])
@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("keepdim", [True, False])
def test_along_an_axis(name, dim, keepdim, x64):
    def theirs(x):
        y = getattr(torch, name)(x, dim, keepdim=keepdim)
        return y if torch.is_tensor(y) else tuple(y)

    same(theirs, lambda x: getattr(ops, name)(x, dim, keepdim=keepdim), ROWS[[0, 1, 3]])


@pytest.mark.parametrize("name", ["amax", "amin", "max", "min", "sum", "nansum", "std"])
def test_of_all(name, x64):
    for x in (ROWS, ROWS[1], ROWS[0], ROWS[2]):
        same(getattr(torch, name), getattr(ops, name), x)


@pytest.mark.parametrize("name", ["argmax", "argmin", "count_nonzero", "all", "any"])
def test_without_gradient(name, x64):
    for x in (ROWS, ROWS[[0, 1]], ROWS > 1, np.arange(4).reshape(2, 2), np.ones(3, np.uint8)):
        if name.startswith("arg") and x.dtype == bool:
            continue
        same(getattr(torch, name), getattr(ops, name), x)
        same(lambda x: getattr(torch, name)(x, 0), lambda x: getattr(ops, name)(x, 0), x)


@pytest.mark.parametrize("name", ["sort", "cummax", "cummin"])
def test_ties_and_nan_keep_their_order(name, x64):
    for x in ROWS:
        same(lambda x: tuple(getattr(torch, name)(x, 0)), lambda x: getattr(ops, name)(x, 0), x)
    same(
        lambda x: tuple(torch.sort(x, -1, descending=True)),
        lambda x: ops.sort(x, -1, True),
        ROWS,
    )


@pytest.mark.parametrize("largest", [True, False])
def test_topk(largest, x64):
    x = np.random.default_rng(0).permutation(12.0 * np.arange(12)).reshape(3, 4)
    x[0, 1] = NAN
    same(
        lambda x: tuple(torch.topk(x, 3, largest=largest)),
        lambda x: ops.topk(x, 3, largest=largest),
        x,
    )


@pytest.mark.parametrize("name", ["sum", "prod", "cumsum", "cumprod"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "bfloat16", "float32"])
def test_dtypes_of_sums(name, dtype, x64):
    args = (0,) if name.startswith("cum") else ()
    theirs = getattr(torch, name)(torch.ones(300).to(getattr(torch, dtype)), *args)
    ours = getattr(ops, name)(jnp.ones(300, dtype), *args)
    assert str(theirs.dtype) == f"torch.{ours.dtype}"
    np.testing.assert_array_equal(theirs.double().numpy(), np.asarray(ours, float))


@pytest.mark.parametrize("name", ["sum", "prod", "all", "any"])
def test_empty(name, x64):
    x = np.zeros((0, 3))
    same(getattr(torch, name), getattr(ops, name), x)
    same(lambda x: getattr(torch, name)(x, 0), lambda x: getattr(ops, name)(x, 0), x)


@pytest.mark.parametrize("values", [[-INF, -INF], [INF, 1.0], [1.0, 2.0], [-INF, 0.0]])
def test_logsumexp(values, x64):
    x = np.array(values)
    same(lambda x: torch.logsumexp(x, 0), lambda x: ops.logsumexp(x, 0), x)


def test_second_derivative_of_std(x64):
    x = np.array([1.0, 2.0, 4.0])
    theirs = torch.autograd.functional.hessian(lambda x: x.std(), torch.tensor(x))
    assert_in_step(theirs, jax.hessian(ops.std)(jnp.asarray(x)), "Hessian")


def test_addmm_reads_no_input_if_beta_is_zero(x64):
    x = np.eye(2)
    ours = ops.addmm(jnp.full((2, 2), NAN), jnp.asarray(x), jnp.asarray(x), beta=0, alpha=2)
    np.testing.assert_array_equal(ours, 2 * x)
