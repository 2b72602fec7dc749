"""Special functions, and functions made of logarithms, with PyTorch's derivatives.

Shapes and dtypes: real arrays of any shape, or two that broadcast; integers become floating.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import jax.scipy.special as special
from jax import lax

from ._elementwise import binary, computed, sloped, unary


@jax.custom_jvp
def _xlogy(x, y):
    return jnp.where((x == 0) & ~jnp.isnan(y), 0, x * jnp.log(y))


@_xlogy.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    by_x = sloped(dx, jnp.log(y), (x == 0) & (y <= 0))
    return _xlogy(x, y), by_x + dy * (x / y)


@jax.custom_jvp
def _xlog1py(x, y):
    return jnp.where((x == 0) & ~jnp.isnan(y), 0, x * jnp.log1p(y))


@_xlog1py.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    by_x = sloped(dx, jnp.log1p(y), (x == 0) & (y <= -1))
    return _xlog1py(x, y), by_x + dy * (x / (y + 1))


@jax.custom_jvp
def _logaddexp(x, y):
    return jnp.logaddexp(x, y)


@_logaddexp.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return _logaddexp(x, y), dx / (1 + jnp.exp(y - x)) + dy / (1 + jnp.exp(x - y))


@jax.custom_jvp
def _logaddexp2(x, y):
    return jnp.logaddexp2(x, y)


@_logaddexp2.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return _logaddexp2(x, y), dx / (1 + jnp.exp2(y - x)) + dy / (1 + jnp.exp2(x - y))


@jax.custom_jvp
def _lgamma(x):
    return lax.lgamma(x)


@_lgamma.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    return _lgamma(x), dx * _digamma(x)


@jax.custom_jvp
def _digamma(x):
    pole = (x == 0) & ~jnp.isnan(x)
    y = special.digamma(jnp.where(pole, 1, x))
    return jnp.where(pole, jnp.copysign(jnp.inf, -x), y)


@_digamma.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    return _digamma(x), dx * _trigamma(x)


@jax.custom_jvp
def _trigamma(x):
    """By PyTorch's series, which is exact to 1e-9 only, after Abramowitz and Stegun 6.4."""
    left = x < 0.5
    reflected = (jnp.pi / jnp.sin(jnp.pi * x)) ** 2
    x = jnp.where(left, 1 - x, x)
    total = jnp.zeros_like(x)
    for i in range(6):
        total += 1 / (x + i) ** 2
    x = x + 6
    ixx = 1 / (x * x)
    total += (1 + 1 / (2 * x) + ixx * (1 / 6 - ixx * (1 / 30 - ixx / 42))) / x
    return jnp.where(left, reflected - total, total)


@_trigamma.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    return _trigamma(x), dx * -2 * _zeta(jnp.full_like(x, 3), x)


@jax.custom_jvp
def _sinc(x):
    a = jnp.pi * x
    return jnp.where(x == 0, 1, jnp.sin(a) / jnp.where(x == 0, 1, a))


@_sinc.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    a = jnp.pi * x
    square = jnp.where(x == 0, 1, a * x)
    return _sinc(x), sloped(dx, (a * jnp.cos(a) - jnp.sin(a)) / square, x == 0)


@jax.custom_jvp
def _i0(x):
    return special.i0(x)


@_i0.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    return _i0(x), dx * special.i1(x)


@jax.custom_jvp
def _entr(x):
    inside = x > 0
    safe = jnp.where(inside, x, 1)
    value = jnp.where(inside, -safe * jnp.log(safe), jnp.where(x == 0, 0, -jnp.inf))
    return jnp.where(jnp.isnan(x), x, value)


@_entr.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    return _entr(x), -dx * (1 + jnp.log(x))


def mvlgamma(input: jax.Array, p: int) -> jax.Array:
    """``torch.mvlgamma``: the multivariate :math:`\\log \\Gamma_p`."""

    def of(x):
        terms = jnp.stack([_lgamma(x - j / 2) for j in range(p)])
        return jnp.sum(terms, 0) + p * (p - 1) / 4 * math.log(math.pi)

    return computed(of, input, floating=True)


def polygamma(n: int, input: jax.Array) -> jax.Array:
    """``torch.polygamma``: derivative ``n`` of ``digamma``."""
    if n < 2:
        return (digamma, trigamma)[n](input)

    def of(x):
        return (-1) ** (n + 1) * math.gamma(n + 1) * _zeta(jnp.full_like(x, n + 1), x)

    return computed(of, input, floating=True)


@jax.custom_jvp
def _zeta(x, q):
    """JAX's needs a positive q: the first terms of others are added up."""

    def is_left(q):
        return (q <= 0) & (q != jnp.floor(q))

    def add(carry):
        total, q = carry
        left = is_left(q)
        return total + jnp.where(left, jnp.where(left, q, 1) ** -x, 0), q + left.astype(q.dtype)

    x, q = jnp.broadcast_arrays(x, q)
    pole = (q <= 0) & (q == jnp.floor(q))
    start = jnp.zeros_like(q), q
    total, q = lax.while_loop(lambda carry: jnp.any(is_left(carry[1])), add, start)
    return jnp.where(pole, jnp.inf, total + special.zeta(x, jnp.where(pole, 1, q)))


@_zeta.defjvp
def _(primals, tangents):
    (x, q), (_, dq) = primals, tangents
    return _zeta(x, q), -x * dq * _zeta(x + 1, q)


xlogy = binary("xlogy", _xlogy, floating=True)
xlog1py = binary("special.xlog1py", _xlog1py, floating=True)
logaddexp = binary("logaddexp", _logaddexp, floating=True)
logaddexp2 = binary("logaddexp2", _logaddexp2, floating=True)
erf = unary("erf", special.erf)
erfc = unary("erfc", special.erfc)
erfinv = unary("erfinv", special.erfinv)
lgamma = unary("lgamma", _lgamma)
digamma = unary("digamma", _digamma)
trigamma = unary("polygamma", _trigamma)
sinc = unary("sinc", _sinc)
i0 = unary("i0", _i0)
i0e = unary("special.i0e", special.i0e)
i1 = unary("special.i1", special.i1)
i1e = unary("special.i1e", special.i1e)
entr = unary("special.entr", _entr)
ndtri = unary("special.ndtri", special.ndtri)
log_ndtr = unary("special.log_ndtr", special.log_ndtr)
zeta = binary("special.zeta", _zeta, floating=True)
igamma = binary("igamma", special.gammainc, floating=True)
igammac = binary("igammac", special.gammaincc, floating=True)
