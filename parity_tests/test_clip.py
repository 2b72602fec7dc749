"""Clipping against torch.nn.utils."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from conftest import assert_in_step
from instep import clip_grad_norm, clip_grad_value
from instep.parity._tolerance import ROUNDING_ULPS


def grads(scale=1.0):
    rng = np.random.default_rng(0)
    return {"a": rng.normal(size=(3, 4)) * scale, "b": rng.normal(size=5) * scale}


def torch_clip(g, max_norm, norm_type=2.0):
    p = {n: torch.zeros(v.shape, requires_grad=True) for n, v in g.items()}
    for n in p:
        p[n].grad = torch.tensor(g[n])
    norm = clip_grad_norm_(p.values(), max_norm, norm_type)
    return {n: p[n].grad for n in p}, norm


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 0.0, 3.0, 0.5, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize("max_norm", [0.5, 1e3, 0.0, math.inf])
def test_clip_grad_norm(norm_type, max_norm, x64):
    clipped, norm = clip_grad_norm(jax.tree.map(jnp.asarray, grads()), max_norm, norm_type)
    theirs, their_norm = torch_clip(grads(), max_norm, norm_type)
    assert_in_step(their_norm, norm, "norm")
    for n in theirs:
        assert_in_step(theirs[n], clipped[n], n)


def test_norm_of_order_zero_counts_tensors_that_are_not_zero(x64):
    g = {"a": np.array([0.0, 2.0, 0.0]), "b": np.zeros(2), "c": np.array([3.0])}
    clipped, norm = clip_grad_norm(jax.tree.map(jnp.asarray, g), 1.0, 0.0)
    theirs, their_norm = torch_clip(g, 1.0, 0.0)
    assert float(norm) == their_norm.item() == 2.0
    for n in g:
        np.testing.assert_array_equal(clipped[n], theirs[n].numpy())


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1.0])
def test_the_1e_6_in_the_denominator_counts(scale, x64):
    """optax.clip_by_global_norm has none; by this much it would be out of step."""
    max_norm = 0.5 * np.sqrt(sum((v**2).sum() for v in grads(scale).values()))
    ours, norm = clip_grad_norm(jax.tree.map(jnp.asarray, grads(scale)), max_norm)
    theirs, _ = torch_clip(grads(scale), max_norm)
    assert_in_step(theirs["a"], ours["a"])
    without = grads(scale)["a"] * max_norm / float(norm)
    with pytest.raises(AssertionError):
        assert_in_step(theirs["a"], without)


def test_nan_and_infinity_as_torch(x64):
    for bad in (np.nan, np.inf):
        g = grads()
        g["a"][0, 0] = bad
        ours, norm = clip_grad_norm(jax.tree.map(jnp.asarray, g), 1.0)
        theirs, their_norm = torch_clip(g, 1.0)
        np.testing.assert_array_equal(norm, their_norm.numpy())
        for n in theirs:
            np.testing.assert_array_equal(ours[n], theirs[n].numpy())


def test_half_precision_norm_does_not_overflow():
    g = {"a": jnp.full(1000, 300.0, jnp.float16)}
    clipped, norm = clip_grad_norm(g, 1.0)
    exact = np.float32(300 * np.sqrt(1000))
    assert abs(norm - exact) <= ROUNDING_ULPS * np.spacing(exact)
    assert clipped["a"].dtype == jnp.float16
    expected = np.float16(300 / (float(norm) + 1e-6))
    assert abs(clipped["a"][0] - expected) <= np.spacing(expected)


def test_error_if_nonfinite():
    g = {"a": jnp.array([1.0, jnp.nan])}
    with pytest.raises(RuntimeError, match="norm of order 2.0 is nan"):
        clip_grad_norm(g, 1.0, error_if_nonfinite=True)
    g = {"a": jnp.array([1.0, -jnp.inf])}
    with pytest.raises(RuntimeError, match="norm of order 2.0 is inf"):
        clip_grad_norm(g, 1.0, error_if_nonfinite=True)
    with pytest.raises(ValueError, match="metrics.grad_norm"):
        jax.jit(lambda g: clip_grad_norm(g, 1.0, error_if_nonfinite=True))(g)


def test_none_leaves_and_no_leaves():
    clipped, norm = clip_grad_norm({"a": jnp.array([3.0, 4.0]), "b": None}, 1e9)
    assert float(norm) == 5.0 and clipped["b"] is None
    assert float(clip_grad_norm({}, 1.0)[1]) == 0.0


def test_clip_grad_value(x64):
    g = {"a": np.array([-3.0, -0.1, 0.0, 0.2, 5.0, np.inf, -np.inf, np.nan])}
    p = torch.zeros(8, requires_grad=True)
    p.grad = torch.tensor(g["a"])
    clip_grad_value_([p], 0.15)
    ours = clip_grad_value({"a": jnp.asarray(g["a"])}, 0.15)["a"]
    np.testing.assert_array_equal(ours, p.grad.numpy())
