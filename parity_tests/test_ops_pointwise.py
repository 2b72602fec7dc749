"""Functions of single elements against PyTorch: kinks, ties, infinities, NaN and dtypes."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import assert_in_step
from instep import ops


NAN, INF = float("nan"), float("inf")
ONE = [-INF, -2.5, -1.5, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 1.5, 2.5, INF, NAN]
SOME = [-INF, -2.0, -0.0, 0.0, 1.0, 2.0, NAN]
TWO = [[a for a in SOME for _ in SOME], SOME * len(SOME)]


def same(function, *numbers, counterpart=None, order=1, dtype=np.float64):
    """Values, and derivatives up to an order, of a function and its counterpart."""
    counterpart = counterpart or getattr(torch, function)
    function = getattr(ops, function) if isinstance(function, str) else function
    given = [np.asarray(x, dtype) for x in numbers]
    theirs, ours = counterpart, lambda *xs: function(*xs)
    xs = [torch.tensor(x, requires_grad=True) for x in given]
    y = theirs(*xs)
    arrays = tuple(map(jnp.asarray, given))
    z = jax.jit(ours)(*arrays)
    what = f"{function.__name__} of {given}"
    assert str(y.dtype) == f"torch.{z.dtype}", what
    _equal(y, z, what)
    if not y.requires_grad:
        return
    grads = torch.autograd.grad(y.sum(), xs, create_graph=order > 1)

    def total(*xs):
        return jnp.sum(ours(*xs))

    mine = jax.jit(jax.grad(total, tuple(range(len(xs)))))(*arrays)
    for a, b in zip(grads, mine, strict=True):
        _equal(a, b, f"{what}, gradient")
    if order == 1 or not any(g.requires_grad for g in grads):
        return
    twice = torch.autograd.grad(
        sum(g.sum() for g in grads if g.requires_grad), xs, allow_unused=True
    )

    def slopes(*xs):
        return sum(jnp.sum(g) for g in jax.grad(total, tuple(range(len(xs))))(*xs))

    again = jax.jit(jax.grad(slopes, tuple(range(len(xs)))))(*arrays)
    for a, b in zip(twice, again, strict=True):
        # It is a sum over arguments, of terms of the size of 1 that may cancel.
        a = np.zeros_like(b) if a is None else a
        _equal(a, b, f"{what}, second derivative", at_least=1.0)


def _equal(theirs, ours, what, at_least=0.0):
    theirs = theirs.numpy(force=True) if torch.is_tensor(theirs) else theirs
    if theirs.dtype.kind != "f":
        np.testing.assert_array_equal(theirs, ours, err_msg=what)
        return
    for a, b in zip(np.ravel(theirs), np.ravel(ours), strict=True):  # one leaf each
        if np.isfinite(a) and a != 0:
            assert_in_step(a, b, what, at_least=at_least)
        else:
            np.testing.assert_array_equal(a, b, err_msg=what)


UNARY = """
abs neg positive reciprocal sqrt rsqrt square exp expm1 log log2 log10 log1p floor ceil
round trunc frac sign nan_to_num asin acos atan sinh asinh atanh erf erfc digamma lgamma
sinc i0 signbit isnan isinf isfinite isposinf isneginf isreal logit logical_not deg2rad
"""
BINARY = """
add sub rsub mul div remainder fmod pow atan2 hypot copysign maximum
minimum fmax fmin xlogy eq ne lt le gt ge logical_and logical_or logical_xor isclose
clamp_min clamp_max
"""
TWICE_TWO = """
mul div pow atan2 hypot maximum minimum clamp_min clamp_max remainder
"""
TWICE_ONE = """
abs reciprocal rsqrt digamma sinc i0 square
"""
PROMOTED = """
add div eq maximum where floor_divide pow lerp
"""
ROUNDING = """
exp sqrt sin log1p abs floor sign round square neg
"""


# At -0.0 the slope of PyTorch's kernels is inf or -inf, as the host has vectors or not.
ONE_ZERO = ("logit",)


@pytest.mark.parametrize("name", UNARY.split())
def test_unary(name, x64):
    same(name, [x + 0.0 for x in ONE] if name in ONE_ZERO else ONE)


@pytest.mark.parametrize("name", BINARY.split())
def test_binary(name, x64):
    same(name, *TWO)


EDGES = np.array([0.0, -0.0, 1.0, 0.5, -2.5, -3.0, 3.0, np.inf, -np.inf, np.nan])
COTANGENTS = np.array([1.0, 0.0, np.inf, np.nan])
AT_EDGES = {
    **{name: (getattr(torch, name), getattr(ops, name)) for name in (
        "pow", "atan2", "hypot", "copysign", "maximum", "minimum", "logaddexp", "logaddexp2",
        "fmax", "fmin", "sinc", "abs", "rsqrt",
    )},
    "entr": (torch.special.entr, ops.entr),
    "hardswish": (F.hardswish, ops.hardswish),
}  # fmt: skip
ONE_EDGE = ("sinc", "abs", "rsqrt", "entr", "hardswish")


@pytest.mark.parametrize("name", AT_EDGES)
def test_what_is_not_finite_is_so_in_the_same_gradients(name, x64):
    """Zeros, infinities and NaN, before and behind the function."""
    torch_fn, jax_fn = AT_EDGES[name]
    grid = np.meshgrid(*[EDGES] * (1 if name in ONE_EDGE else 2), COTANGENTS)
    *given, cotangent = (x.ravel() for x in grid)
    tensors = [torch.tensor(x, requires_grad=True) for x in given]
    expected = torch.autograd.grad(torch_fn(*tensors), tensors, torch.tensor(cotangent))
    _, backward = jax.vjp(jax_fn, *map(jnp.asarray, given))
    for theirs, ours in zip(expected, backward(jnp.asarray(cotangent)), strict=True):
        assert_in_step(theirs, ours, name, finite=False)


@pytest.mark.parametrize("name", TWICE_TWO.split())
def test_second_derivatives_of_two(name, x64):
    same(name, [1.5, 2.5, 2.0], [2.5, 1.5, 2.0], order=2)


@pytest.mark.parametrize("name", TWICE_ONE.split())
def test_second_derivatives_of_one(name, x64):
    same(name, [1.25, 0.75, 2.0], order=2)


def test_clamp(x64):
    x = [-1.0, 0.0, 0.5, 1.0, 2.0, NAN]
    same("clamp", x, [0.0] * 6, [1.0] * 6)
    same("clamp", x, [1.0] * 6, [0.0] * 6)
    same(lambda x: ops.clamp(x, 0, 1), x, counterpart=lambda x: torch.clamp(x, 0, 1))
    same(lambda x: ops.clamp(x, max=0.5), x, counterpart=lambda x: x.clamp(max=0.5))
    with pytest.raises(ValueError, match="needs min, max or both"):
        ops.clamp(jnp.ones(2))


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, -2, 0.5, 1.5, -0.5, 9, 0.0, INF])
def test_power_of_a_number(exponent, x64):
    x = [-2.0, 0.0, 0.5, 3.0, INF]
    same(lambda x: ops.pow(x, exponent), x, counterpart=lambda x: torch.pow(x, exponent))
    same(lambda x: ops.pow(exponent, x), x, counterpart=lambda x: torch.pow(exponent, x))


def test_where_and_masked_fill(x64):
    mask = np.array([True, False])
    tm, jm = torch.tensor(mask), jnp.asarray(mask)
    x, y = [1.0, 2.0], [NAN, 3.0]
    same(lambda x, y: ops.where(jm, x, y), x, y, counterpart=lambda x, y: torch.where(tm, x, y))
    same(lambda x: ops.where(jm, x, 2), x, counterpart=lambda x: torch.where(tm, x, 2))
    same(
        lambda x: ops.masked_fill(x, jm[:, None], 7),
        [x, y],
        counterpart=lambda x: x.masked_fill(tm[:, None], 7),
    )
    same(
        lambda x: ops.where(jm, 0.0, ops.sqrt(x)),
        [0.0, 4.0],
        counterpart=lambda x: torch.where(tm, 0.0, torch.sqrt(x)),
    )


@pytest.mark.parametrize("mode", [None, "trunc", "floor"])
def test_rounding_of_quotients(mode, x64):
    same(
        lambda x, y: ops.div(x, y, rounding_mode=mode),
        [*TWO[0], 7.0, -7.0, 7.0, 0.6],
        [*TWO[1], 2.0, 2.0, -2.0, 0.2],
        counterpart=lambda x, y: torch.div(x, y, rounding_mode=mode),
    )


DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
]


@pytest.mark.parametrize("name", PROMOTED.split())
def test_promotion(name, x64):
    torch.set_default_dtype(torch.float32)
    for a in DTYPES:
        for b in [*DTYPES, 2, 2.5, True]:
            if name in ("lerp", "pow", "remainder", "floor_divide") and "bool" in (a, b):
                continue
            if name == "lerp" and (a != b or "int" in a):
                continue
            pairs = [(torch.ones(3).to(getattr(torch, a)), jnp.ones(3, a))]
            if isinstance(b, str):
                pairs += [(torch.ones(2, 3).to(getattr(torch, b)), jnp.ones((2, 3), b))]
            else:
                if name in ("maximum", "atan2"):
                    continue
                pairs += [(b, b)]
            if name == "where":
                pairs.insert(0, (torch.tensor([True]), jnp.array([True])))
            if name == "lerp":
                pairs.append((0.25, 0.25))
            theirs, ours = zip(*pairs, strict=True)
            y, z = getattr(torch, name)(*theirs), getattr(ops, name)(*ours)
            assert (str(y.dtype), tuple(y.shape)) == (f"torch.{z.dtype}", z.shape), (name, a, b)
            np.testing.assert_array_equal(y.double().numpy(), np.asarray(z, float))


@pytest.mark.parametrize("name", ROUNDING.split())
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_of_one(name, dtype, x64):
    torch.set_default_dtype(torch.float32)
    if dtype == "bool" and name in ("floor", "round", "neg", "abs"):
        return
    y = getattr(torch, name)(torch.ones(2).to(getattr(torch, dtype)))
    assert str(y.dtype) == f"torch.{getattr(ops, name)(jnp.ones(2, dtype)).dtype}"


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow"])
def test_numbers_in_half_precision(name):
    """PyTorch rounds those to add, and not those to multiply."""
    x = np.linspace(0, 3, 101)
    theirs = getattr(torch, name)(torch.tensor(x).bfloat16(), 0.1)
    ours = getattr(ops, name)(jnp.asarray(x, jnp.bfloat16), 0.1)
    np.testing.assert_array_equal(theirs.float().numpy(), np.asarray(ours, np.float32))


def test_integers(x64):
    a, b = np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])
    for name in (
        "floor_divide",
        "remainder",
        "fmod",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
    ):
        theirs = getattr(torch, name)(torch.tensor(a), torch.tensor(b))
        np.testing.assert_array_equal(
            theirs, getattr(ops, name)(jnp.asarray(a), jnp.asarray(b))
        )
    theirs = torch.div(torch.tensor(a), torch.tensor(b), rounding_mode="trunc")
    ours = ops.div(jnp.asarray(a), jnp.asarray(b), rounding_mode="trunc")
    np.testing.assert_array_equal(theirs, ours)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with jax.enable_x64(False):
            assert ops.add(jnp.arange(3), 2).dtype == jnp.int32
            assert ops.float_power(jnp.arange(3), 2).dtype == jnp.float32


def test_bad_rounding_mode():
    with pytest.raises(ValueError, match="rounding_mode='up' must be None"):
        ops.div(jnp.ones(1), 2, rounding_mode="up")
