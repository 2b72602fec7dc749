"""The curves that schedules are made of, accurate in float32 up to their ends.

A rate near zero keeps its digits only if no two nearly equal numbers are subtracted. So a
curve is told how far it is from *both* of its ends, ``done`` and ``left``, which the schedules
compute in integers, and adds two terms of which each vanishes at one end:

    line    (start * left + end * done) / total
    cosine  start * sin(pi/2 * left/total)^2  +  end * sin(pi/2 * done/total)^2

The second is ``end + (start - end) * (1 + cos(pi * done/total)) / 2``, by the half angle.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


RADIX = 256


def floating(x: jax.Array) -> jax.Array:
    """Integers as float64 under x64, else float32."""
    return x.astype(jnp.result_type(float))


def line(start: float, end: float, done: jax.Array, left: jax.Array, total) -> jax.Array:
    """From ``start`` at ``done = 0`` to ``end`` at ``left = 0``, where done + left = total."""
    return (start * left + end * done) / total


def cosine(start: float, end: float, done: jax.Array, left: jax.Array, total) -> jax.Array:
    """As ``line``, along half a period of a cosine. ``total`` is a number."""
    quarter = math.pi / 2 / total  # divided on the host: one rounding less
    return quarter_waves(start, end, done * quarter, left * quarter)


def quarter_waves(start: float, end: float, done: jax.Array, left: jax.Array) -> jax.Array:
    """``cosine`` in angles: done + left = pi / 2."""
    return start * jnp.sin(left) ** 2 + end * jnp.sin(done) ** 2


CURVES = {"cos": cosine, "linear": line}


def integer_power(base: float, n: jax.Array) -> jax.Array:
    """``base ** n`` for an integer ``0 <= n < 2**32``, within 4 ulp.

    A float32 ``base`` raised to ``n`` is off by ``n / 2`` ulp, because ``base`` itself was
    rounded. Here the powers of each of the four digits of ``n`` to the radix 256 are tabulated
    on the host in float64, and their product is taken.
    """
    power = 1.0
    for k in range(4):
        exponents = np.arange(RADIX, dtype=np.float64) * float(RADIX) ** k
        with np.errstate(over="ignore", under="ignore"):
            table = np.power(np.float64(base), exponents)
        digit = jnp.right_shift(n, 8 * k) & (RADIX - 1)
        power = power * jnp.asarray(_cast(table))[digit]
    return jnp.asarray(power)


def ratio_power(n: jax.Array, total: int, p: float) -> jax.Array:
    """``(n / total) ** p`` for an integer ``0 <= n <= total < 2**24``.

    A quotient close to zero has a large logarithm, whose rounding the power would multiply by
    ``p``. Here ``n`` is split, exactly, into ``m * 2**e`` with ``1/2 <= m < 1``, and only ``m``
    is raised to ``p`` in float32; ``(2**e / total) ** p`` is tabulated on the host in float64.
    """
    table = (2.0 ** np.arange(total.bit_length() + 1) / total) ** p
    m, e = jnp.frexp(floating(n))
    return m**p * jnp.asarray(_cast(table))[e]


def _cast(table: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        return table.astype(jnp.result_type(float))
