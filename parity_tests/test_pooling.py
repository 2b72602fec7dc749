"""The gradient of maximum pooling in the form that XLA's CPU runs fast: the same numbers."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import instep
from conftest import assert_in_step
from instep._on_cpu import as_written, fast_on_cpu
from instep._pooling import has_a_faster_sum


class Case(NamedTuple):
    shape: tuple
    sizes: tuple
    strides: tuple
    padding: tuple = ((0, 0),) * 4
    is_faster: bool = True


SAME = ((0, 0), (1, 1), (1, 1), (0, 0))
CASES = {
    "side by side": Case((3, 8, 6, 5), (1, 2, 2, 1), (1, 2, 2, 1)),
    "channels first": Case((3, 5, 8, 6), (1, 1, 2, 3), (1, 1, 2, 3)),
    "a remainder": Case((3, 9, 7, 5), (1, 2, 2, 1), (1, 2, 2, 1)),
    "overlapping": Case((3, 9, 9, 5), (1, 3, 3, 1), (1, 2, 2, 1)),
    "padded": Case((3, 8, 8, 5), (1, 3, 3, 1), (1, 2, 2, 1), SAME),
    "padded on one side": Case(
        (3, 7, 8, 5), (1, 2, 2, 1), (1, 2, 2, 1), ((0, 0), (0, 1), (0, 0), (0, 0))
    ),
    "padded, with a remainder": Case((3, 10, 9, 5), (1, 3, 3, 1), (1, 3, 3, 1), SAME),
    "apart": Case((3, 9, 9, 5), (1, 2, 2, 1), (1, 3, 3, 1)),
    "examples too": Case((4, 4, 4, 6), (2, 2, 2, 2), (2, 2, 2, 2)),
    "one axis": Case((3, 12, 5), (1, 3, 1), (1, 2, 1), ((0, 0), (1, 1), (0, 0))),
    "three axes": Case((2, 4, 6, 4, 3), (1, 2, 2, 2, 1), (1, 2, 2, 2, 1), ((0, 0),) * 5),
    "many": Case((64, 32, 32, 8), (1, 3, 3, 1), (1, 2, 2, 1), SAME),
    "all of an image": Case((3, 8, 8, 5), (1, 8, 8, 1), (1, 8, 8, 1)),
    "large and overlapping": Case((3, 16, 16, 5), (1, 8, 8, 1), (1, 4, 4, 1), is_faster=False),
    "nothing": Case((0, 8, 8, 5), (1, 2, 2, 1), (1, 2, 2, 1), is_faster=False),
}


def gradient(case, least=False):
    """``(numbers of the windows, x) -> d x`` of pooling by the largest, or by the least."""
    how = (np.inf, lax.min) if least else (-np.inf, lax.max)

    def pool(x):
        return lax.reduce_window(x, *how, case.sizes, case.strides, case.padding)

    return pool, lambda dy, x: jax.vjp(pool, x)[1](dy)[0]


def operands(case, draw, dtype=np.float64):
    rng = np.random.default_rng(0)
    x = draw(rng, case.shape).astype(dtype)
    dy = rng.standard_normal(jax.eval_shape(gradient(case)[0], x).shape).astype(dtype)
    return dy, x


DRAWS = {
    "all different": lambda rng, shape: rng.standard_normal(shape),
    "equal ones": lambda rng, shape: rng.integers(0, 3, shape),
    "NaN": lambda rng, shape: np.where(rng.random(shape) < 0.2, np.nan, rng.random(shape)),
    "infinite": lambda rng, shape: rng.choice([-np.inf, np.inf, 1.0], shape, p=[0.7, 0.1, 0.2]),
    "negative": lambda rng, shape: -1 - rng.random(shape),
}


@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("name", CASES)
def test_values(name, draw, least, x64):
    case = CASES[name]
    _, fn = gradient(case, least)
    given = operands(case, DRAWS[draw])
    right = jax.jit(fn)(*given)
    found = jax.jit(fast_on_cpu(fn))(*given)
    assert found.dtype == right.dtype and found.shape == right.shape
    assert_in_step(right, found)


@pytest.mark.parametrize("name", CASES)
def test_the_form_is_chosen_by_the_windows(name):
    case = CASES[name]
    jaxpr = jax.make_jaxpr(gradient(case)[1])(*operands(case, DRAWS["negative"]))
    (eqn,) = (e for e in jaxpr.eqns if e.primitive.name == "select_and_scatter_add")
    assert has_a_faster_sum(eqn) == case.is_faster


def test_integers_are_left_to_xla():
    case = CASES["padded"]
    jaxpr = jax.make_jaxpr(gradient(case)[1])(*operands(case, DRAWS["negative"]))
    (eqn,) = (e for e in jaxpr.eqns if e.primitive.name == "select_and_scatter_add")

    def fn(dy, x):
        return eqn.primitive.bind(dy, x, **eqn.params)

    dy, x = operands(case, DRAWS["equal ones"], np.int32)
    np.testing.assert_array_equal(jax.jit(fast_on_cpu(fn))(dy, x), jax.jit(fn)(dy, x))


def test_nothing_is_scattered():
    case = CASES["padded"]
    _, fn = gradient(case)
    given = operands(case, DRAWS["negative"], np.float32)

    def scatters(fn):
        text = jax.jit(fn).lower(*given).compile().as_text()
        return len(re.findall(r" scatter\(", text))

    assert scatters(fast_on_cpu(fn)) == 0
    with as_written():  # if this fails, XLA has mended it
        assert scatters(fn) == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtypes(dtype):
    case = CASES["overlapping"]
    dy, x = operands(case, DRAWS["equal ones"], dtype)
    dy = np.round(dy).astype(dtype)  # whose sums are exact
    _, fn = gradient(case)
    found, right = (jax.jit(f)(dy, x) for f in (fast_on_cpu(fn), fn))
    assert found.dtype == right.dtype
    np.testing.assert_array_equal(found, right)


def test_in_a_step_that_accumulates(x64):
    """In a loop, under vmap and with second derivatives, as a loss function may have it."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 8, 8, 2)))
    pool, _ = gradient(CASES["padded"])

    def loss_fn(params, x):
        def penalty(x):
            return jnp.sum(jnp.sin(pool(x * params["w"][None])) ** 2)

        slopes = jax.vmap(jax.grad(penalty))(x[:, None])
        return jnp.mean(slopes**2)

    def fn(params, batch):
        def one(acc, x):
            return instep.backward(loss_fn, acc, params, None, x)[0], None

        return lax.scan(one, instep.zero_grad(params), batch)[0].grads

    params = {"w": jnp.ones((8, 8, 2)) * 0.7}
    with as_written():
        right = jax.jit(fn)(params, x)
    found = jax.jit(lambda *given: fn(*given))(params, x)
    assert_in_step(right["w"], found["w"])
