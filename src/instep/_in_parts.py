"""A function of many examples, a few at a time: as many as the caches hold what it makes of."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import lax


CACHED = 2**23  # bytes


def mapped(fn: Callable[[jax.Array], jax.Array], x: jax.Array, size: int) -> jax.Array:
    """``fn(x)``, which makes ``size`` bytes; each example of the result of one of ``x``."""
    n = _at_a_time(len(x), size)
    if n == len(x):
        return fn(x)
    y = lax.map(fn, _parts(x, n))
    return y.reshape(-1, *y.shape[2:])


def summed(
    fn: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, y: jax.Array, size: int
) -> jax.Array:
    """``fn(x, y)``, which makes ``size`` bytes; a sum over examples."""
    of_none = jax.eval_shape(fn, x, y)
    n = _at_a_time(len(x), size, of_none.size * of_none.dtype.itemsize)
    if n == len(x):
        return fn(x, y)

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + fn(*part), None

    return lax.scan(add, fn(x[:0], y[:0]), (_parts(x, n), _parts(y, n)))[0]


def _parts(x: jax.Array, n: int) -> jax.Array:
    return x.reshape(-1, n, *x.shape[1:])


def _at_a_time(examples: int, size: int, at_least: int = 0) -> int:
    """How many of the examples: a divisor, for at most what is cached, but ``at_least`` bytes.

    All of them, where no divisor comes near.
    """
    most = min(examples, max(1, max(CACHED, at_least) * examples // size))
    n = max(n for n in range(1, most + 1) if examples % n == 0)
    return n if 4 * n >= most else examples
