"""Functions of one element, with PyTorch's derivatives at kinks.

Integers become the default floating dtype where PyTorch makes them so. The derivative of
``floor``, ``ceil``, ``round``, ``trunc`` and ``sign`` is 0; of ``frac`` it is 1.

Shapes and dtypes: any shape and dtype; the result has the shape of ``input``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._elementwise import computed, unary


@jax.custom_jvp
def abs(input: jax.Array) -> jax.Array:
    """``torch.abs``: at zero, and at NaN, the slope is 0.

    ``jnp.abs`` has a slope of 1 at zero.

    Args:
      input: any shape and dtype.
    """
    return input if input.dtype == bool else jnp.abs(input)


@abs.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    if jnp.iscomplexobj(x):
        return abs(x), jnp.real(jnp.conj(sgn(x)) * dx)
    sign = jnp.where(x > 0, 1, jnp.where(x < 0, -1, 0)).astype(x.dtype)  # 0 for NaN
    return abs(x), dx * sign


def sgn(input: jax.Array) -> jax.Array:
    """``torch.sgn``: ``torch.sign``, or for complex numbers ``input / abs(input)``; 0 at 0."""
    if not jnp.iscomplexobj(input):
        return sign(input)
    size = jnp.abs(input)
    zero = size == 0
    return jnp.where(zero, 0, input / jnp.where(zero, 1, size).astype(input.dtype))


def sign(input: jax.Array) -> jax.Array:
    """``torch.sign``: 0 at 0, and at NaN where ``jnp.sign`` has NaN."""
    if input.dtype == bool:
        return input
    return (input > 0).astype(input.dtype) - (input < 0).astype(input.dtype)


def frexp(input: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``torch.frexp``: a mantissa in [0.5, 1), and the power of two as int32."""
    return _mantissa(input), jnp.frexp(lax.stop_gradient(input))[1]


@jax.custom_jvp
def _mantissa(x):
    return jnp.frexp(x)[0]


@_mantissa.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    exponent = jnp.frexp(x)[1].astype(x.dtype)
    return _mantissa(x), dx * jnp.exp2(-exponent)


def round(input: jax.Array, decimals: int = 0) -> jax.Array:
    """``torch.round``: halves go to the even neighbour.

    Args:
      input: any shape and dtype.
      decimals: places after the point; negative ones are before it.
    """
    if jnp.issubdtype(input.dtype, jnp.integer):
        return input

    def rounded(x):
        if decimals == 0:
            return jnp.round(x)
        ten = 10.0 ** (decimals if decimals > 0 else -decimals)
        return jnp.round(x * ten) / ten if decimals > 0 else jnp.round(x / ten) * ten

    return computed(rounded, input)


def nan_to_num(
    input: jax.Array,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> jax.Array:
    """``torch.nan_to_num``: the slope is 0 where a number is replaced.

    Args:
      input: any shape and dtype.
      nan, posinf, neginf: what to put there; 0, the largest and the lowest number by default.
    """
    if not jnp.issubdtype(input.dtype, jnp.inexact):
        return input
    return jnp.nan_to_num(input, nan=0.0 if nan is None else nan, posinf=posinf, neginf=neginf)


@jax.custom_jvp
def _rsqrt(x):
    return lax.rsqrt(x)


@_rsqrt.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    y = _rsqrt(x)
    return y, -0.5 * dx * y * y * y


@jax.custom_jvp
def _reciprocal(x):
    return 1 / x


@_reciprocal.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    y = _reciprocal(x)
    return y, -dx * (y * y)


def _kept(function):
    """Integers and booleans are what they are: there is nothing to round."""

    def of(x):
        return function(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x

    return of


def square(input: jax.Array) -> jax.Array:
    """``torch.square``; of booleans, integers."""
    if input.dtype == bool:
        input = input.astype(jax.dtypes.canonicalize_dtype("int64"))
    return computed(lambda x: x * x, input)


exp = unary("exp", jnp.exp)
exp2 = unary("exp2", jnp.exp2)
expm1 = unary("expm1", jnp.expm1)
log = unary("log", jnp.log)
log2 = unary("log2", jnp.log2)
log10 = unary("log10", jnp.log10)
log1p = unary("log1p", jnp.log1p)
sqrt = unary("sqrt", jnp.sqrt)
rsqrt = unary("rsqrt", _rsqrt)
reciprocal = unary("reciprocal", _reciprocal)
sin = unary("sin", jnp.sin)
cos = unary("cos", jnp.cos)
tan = unary("tan", jnp.tan)
asin = unary("asin", jnp.arcsin)
acos = unary("acos", jnp.arccos)
atan = unary("atan", jnp.arctan)
sinh = unary("sinh", jnp.sinh)
cosh = unary("cosh", jnp.cosh)
asinh = unary("asinh", jnp.arcsinh)
acosh = unary("acosh", jnp.arccosh)
atanh = unary("atanh", jnp.arctanh)
deg2rad = unary("deg2rad", lambda x: x * (jnp.pi / 180))
rad2deg = unary("rad2deg", lambda x: x * (180 / jnp.pi))
neg = unary("neg", jnp.negative, floating=False)
positive = unary("positive", jnp.positive, floating=False)
floor = unary("floor", _kept(jnp.floor), floating=False)
ceil = unary("ceil", _kept(jnp.ceil), floating=False)
trunc = unary("trunc", _kept(jnp.trunc), floating=False)
frac = unary("frac", lambda x: x - jnp.trunc(x), floating=False)
