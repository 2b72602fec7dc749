"""A function of many examples, a few at a time: as many as the caches hold what it makes of."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import lax


CACHED = 2**23  # bytes


def at_a_time(examples: int, size: int, at_least: int = 0) -> int:
    """How many of the examples, each of which makes ``size`` bytes.

    The largest divisor that makes no more than is cached, or than ``at_least`` bytes. 0 where
    not even one is cached, or where examples may lie on several devices: XLA would bring all of
    them to each, for a loop over them.
    """
    if size > CACHED or not _are_on_one_device():
        return 0
    most = min(examples, max(CACHED, at_least) // size)
    return max(n for n in range(1, most + 1) if examples % n == 0)


def mapped(fn: Callable[[jax.Array], jax.Array], x: jax.Array, n: int) -> jax.Array:
    """``fn(x)``, each example of which is one of ``x``; of ``n`` at a time."""
    if n == len(x):
        return fn(x)
    y = lax.map(fn, _parts(x, n))
    return y.reshape(-1, *y.shape[2:])


def summed(
    fn: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, y: jax.Array, n: int
) -> jax.Array:
    """``fn(x, y)``, a sum over examples; of ``n`` at a time."""
    if n == len(x):
        return fn(x, y)

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + fn(*part), None

    of_none = fn(x[:0], y[:0])
    return lax.scan(add, of_none, (_parts(x, n), _parts(y, n)))[0]


def _parts(x: jax.Array, n: int) -> jax.Array:
    return x.reshape(-1, n, *x.shape[1:])


def _are_on_one_device() -> bool:
    """There is no other, or each computes with its own: inside of ``jax.shard_map``."""
    return jax.device_count() == 1 or bool(jax.sharding.get_abstract_mesh().manual_axes)
