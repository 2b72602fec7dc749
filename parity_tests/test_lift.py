"""Casts to fewer bits are left out of float64 walks, on both sides; nothing else changes."""

import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch

from instep.parity._lift import constant, lift_jax
from instep.parity._lift_torch import LiftTorch


def tanh32(x):
    return jnp.tanh(x.astype(jnp.float32))


def in_bfloat16(x):
    x, algorithm = x.astype(jnp.bfloat16), jax.lax.DotAlgorithmPreset.BF16_BF16_F32
    return jnp.matmul(x, x, precision=algorithm, preferred_element_type=jnp.float32)


# A program that rounds to float32 on the way, and the same without.
PROGRAMS = {
    "cast": (lambda x: tanh32(x).sum(), lambda x: jnp.tanh(x).sum()),
    "mean": (
        lambda x: jnp.mean(jnp.cumsum(x) ** 2, dtype=jnp.float32),
        lambda x: jnp.mean(jnp.cumsum(x) ** 2),
    ),
    "loop": (
        lambda x: jax.lax.fori_loop(0, 3, lambda i, y: tanh32(y).astype(y.dtype), x).sum(),
        lambda x: jnp.tanh(jnp.tanh(jnp.tanh(x))).sum(),
    ),
    "scan": (
        lambda x: jax.lax.scan(lambda c, y: (c + tanh32(y), c), jnp.float32(0.0), x)[0],
        lambda x: jnp.tanh(x).sum(),
    ),
    "while": (
        lambda x: jax.lax.while_loop(
            lambda y: y.max() < 3.0, lambda y: y * jnp.float32(1.1), x.astype(jnp.float32)
        ).sum(),
        lambda x: jax.lax.while_loop(lambda y: y.max() < 3.0, lambda y: y * 1.1, x).sum(),
    ),
    "branch": (
        lambda x: jax.lax.cond(x.sum() > 0, tanh32, lambda y: y.astype(jnp.float32), x).sum(),
        lambda x: jnp.tanh(x).sum(),
    ),
    "checkpoint": (lambda x: jax.checkpoint(tanh32)(x).sum(), lambda x: jnp.tanh(x).sum()),
    "jit": (lambda x: jax.jit(tanh32)(x).sum(), lambda x: jnp.tanh(x).sum()),
    "product": (
        lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32),
        lambda x: jnp.dot(x, x),
    ),
    "product in bfloat16": (
        lambda x: in_bfloat16(jnp.outer(x, x)).sum(),
        lambda x: (jnp.outer(x, x) @ jnp.outer(x, x)).sum(),
    ),
    "softmax": (
        lambda x: (jax.nn.softmax(x.astype(jnp.float32)) ** 2).sum(),
        lambda x: (jax.nn.softmax(x) ** 2).sum(),
    ),
    "gather": (
        lambda x: (x.astype(jnp.float32)[jnp.array([0, 0, 2])] ** 2).sum(),
        lambda x: (x[jnp.array([0, 0, 2])] ** 2).sum(),
    ),
    "set": (
        lambda x: (x.astype(jnp.float32).at[1].set(0.1) ** 2).sum(),
        lambda x: (x.at[1].set(0.1) ** 2).sum(),
    ),
    "bfloat16": (lambda x: (x.astype(jnp.bfloat16) * 0.3).sum(), lambda x: (x * 0.3).sum()),
    "gelu": (
        lambda x: jax.nn.gelu(x.astype(jnp.float32), approximate=False).sum(),
        lambda x: jax.nn.gelu(x, approximate=False).sum(),
    ),
    "tanh gelu": (
        lambda x: jax.nn.gelu(x.astype(jnp.float32)).sum(),
        lambda x: jax.nn.gelu(x).sum(),
    ),
}
# while has no reverse-mode derivative.
GRADIENTS = [name for name in PROGRAMS if name != "while"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_are_those_of_float64(name):
    low, right = PROGRAMS[name]
    with jax.enable_x64(True):
        x = jnp.array([0.3, 0.7, 1.1])
        assert abs(low(x) - right(x)) > 1e-10, "the program does not round"
        np.testing.assert_allclose(jax.jit(lift_jax(low))(x), right(x), rtol=1e-15)


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_float64(name):
    low, right = PROGRAMS[name]
    with jax.enable_x64(True):
        x = jnp.array([0.3, 0.7, 1.1])
        lifted = jax.jit(lift_jax(jax.grad(low)))(x)
        np.testing.assert_allclose(lifted, jax.grad(right)(x), rtol=1e-14, atol=1e-16)


# What has nothing to lift is computed as it is.
FLOAT32 = jax.ShapeDtypeStruct((3,), np.float32)


def twice(x):
    assert x.dtype == np.float32
    return 2 * np.asarray(x)


AS_THEY_ARE = {
    "apply": lambda x: x.at[1].apply(lambda y: y * 20.0),
    "add": lambda x: x.at[jnp.array([0, 0])].add(x[:2]),
    "integers": lambda x: jnp.argsort(x) + jnp.arange(3) * 2,
    "random": lambda x: jax.random.uniform(jax.random.key(0), (3,), jnp.float32),
    "bits": lambda x: jax.lax.bitcast_convert_type(x, jnp.uint64),
    "solve": lambda x: jnp.linalg.solve(jnp.eye(3) + x[:, None] * x, x),
    "callback": lambda x: jax.pure_callback(twice, FLOAT32, x.astype(jnp.float32)),
}


@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_the_rest_is_computed_as_it_is(name):
    program = AS_THEY_ARE[name]
    with jax.enable_x64(True):
        x = jnp.array([0.3, 0.7, 1.1])
        lifted = jax.jit(lift_jax(program))(x)
        np.testing.assert_allclose(lifted, program(x), rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    "meant",
    [0.1, -0.3, 1e-3, 0.5, 1.0, 3.0, 2.0**-14, 0.0, 1 / 3, math.sqrt(0.5), math.inf],
)
def test_a_constant_is_what_was_meant(meant, dtype):
    found = constant(np.asarray(meant, dtype))
    if dtype is np.float32 or meant in (0.5, 1.0, 3.0, 2.0**-14, 0.0, math.inf, 0.1, -0.3):
        assert found == pytest.approx(meant, rel=1e-15)
    assert np.asarray(found, dtype) == np.asarray(meant, dtype)


@pytest.mark.parametrize("meant", [math.sqrt(2 / math.pi), 0.044715, 2.0**32, 1797.0, 1e-5])
def test_a_float32_constant_is_what_was_meant(meant):
    assert constant(np.asarray(meant, np.float32)) == pytest.approx(meant, rel=1e-15)


def test_torch_gives_float64_for_whatever_is_asked():
    x = torch.rand(5, dtype=torch.float64, requires_grad=True)
    with LiftTorch():
        y = x.float()
        z = torch.softmax(y, 0, dtype=torch.float32).sum(dtype=torch.bfloat16)
        whole = torch.arange(3).float() / 7
        (z + y.half().sum()).backward()
    assert {t.dtype for t in (y, z, whole, x.grad)} == {torch.float64}
    assert torch.equal(y, x) and x.float().dtype is torch.float32
