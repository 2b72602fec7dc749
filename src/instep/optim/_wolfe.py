"""A step length that satisfies the strong Wolfe conditions, found with cubic interpolation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._state import PyTree


DECREASE = 1e-4  # c1
CURVATURE = 0.9  # c2
WIDTH = 1e-9  # PyTorch does not pass tolerance_change on: this is the line search's own


class Point(NamedTuple):
    """Along the line ``x + t d``: the loss there, its gradient, and its slope ``g . d``."""

    t: jax.Array
    f: jax.Array
    g: PyTree
    gtd: jax.Array


class Search(NamedTuple):
    """A search under way.

    ``bracket`` holds two points, stacked along a leading axis. Until one is found it is the
    previous trial (0) and the last one (1); then the ends of the interval, in any order.
    """

    t: jax.Array  # where to evaluate next
    bracket: Point
    low: jax.Array  # int32: which end of the bracket has the lower loss
    bracketed: jax.Array  # bool: the bracket holds a point that satisfies the conditions
    stalled: jax.Array  # bool: the last interpolation fell close to an end
    done: jax.Array  # bool
    evals: jax.Array  # int32


def strong_wolfe(
    evaluate: Callable[[jax.Array], Point],
    start: Point,
    t: jax.Array,
    d_norm: jax.Array,
    max_ls: jax.Array,
) -> tuple[Point, jax.Array]:
    """Find a point with sufficient decrease and a flat slope.

    .. math::
        f(x + t d) \\le f(x) + c_1 t\\, g^T d, \\qquad
        |g(x + t d)^T d| \\le c_2 |g^T d|

    First ``widen``: longer and longer steps until the interval between the last two must
    hold such a point. Then ``narrow`` that interval. One loop, one evaluation in it, so that
    the closure is compiled once.

    Args:
      evaluate: the point at ``t``.
      start: the point at ``t = 0``.
      t: the first trial.
      d_norm: the largest element of ``|d|``.
      max_ls: evaluations after the first trial, at most.

    Returns:
      The point of the lowest loss found, or one that satisfies both conditions, and the
      number of evaluations.

    References:
      Nocedal and Wright, `Numerical Optimization
      <https://doi.org/10.1007/978-0-387-40065-5>`_, 2006, algorithms 3.5 and 3.6.
    """

    def trial(search: Search) -> Search:
        point = evaluate(search.t)
        search = search._replace(evals=search.evals + 1)
        absorb = partial(narrow, start, max_ls), partial(widen, start, max_ls)
        search = lax.cond(search.bracketed, *absorb, search, point)
        zooming = search.bracketed & ~search.done
        return lax.cond(zooming, partial(aim, d_norm), lambda s: s, search)

    no, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    search = Search(t, _pair(start, start), zero, no, no, no, zero)
    search = lax.while_loop(lambda s: ~s.done, trial, search)
    return _at(search.bracket, search.low), search.evals


def widen(start: Point, max_ls: jax.Array, search: Search, point: Point) -> Search:
    """No bracket yet: is there one between the previous trial and this? Else go further."""
    previous = _at(search.bracket, 0)
    retries = search.evals - 1
    spent = retries >= max_ls
    # Nocedal and Wright compare with the previous trial from the second on, PyTorch the third
    uphill = _too_high(start, point) | ((retries > 1) & (point.f >= previous.f))
    found = ~spent & ~uphill & _flat(start, point)
    bracketed = ~spent & ~found & (uphill | (point.gtd >= 0.0))
    further = ~(spent | found | bracketed)
    end = _where(spent, start, _where(further, point, previous))
    bracket = _pair(end, point)
    return search._replace(
        t=jnp.where(further, _extrapolate(previous, point), point.t),
        bracket=bracket,
        low=jnp.where(found, 1, _lowest(bracket)),
        bracketed=bracketed,
        done=spent | found,
    )


def narrow(start: Point, max_ls: jax.Array, search: Search, point: Point) -> Search:
    """A trial inside the bracket replaces one of its ends."""
    bracket, low = search.bracket, search.low
    high = 1 - low
    rejected = _too_high(start, point) | (point.f >= bracket.f[low])
    found = ~rejected & _flat(start, point)
    past = ~found & (point.gtd * (bracket.t[high] - bracket.t[low]) >= 0.0)

    def replace_high() -> tuple[Point, jax.Array]:
        new = _put(bracket, high, point)
        return new, _lowest(new)

    def replace_low() -> tuple[Point, jax.Array]:
        turned = _put(bracket, high, _at(bracket, jnp.where(past, low, high)))
        return _put(turned, low, point), low

    bracket, low = lax.cond(rejected, replace_high, replace_low)
    done = found | (search.evals - 1 >= max_ls)
    return search._replace(bracket=bracket, low=low, done=done)


def aim(d_norm: jax.Array, search: Search) -> Search:
    """The next trial inside the bracket: interpolated, twice in a row not close to an end."""
    ends = search.bracket.t
    left, right = jnp.min(ends), jnp.max(ends)
    t = _cubic(_at(search.bracket, 0), _at(search.bracket, 1), left, right)
    margin = 0.1 * (right - left)
    close = jnp.minimum(right - t, t - left) < margin
    pushed = close & (search.stalled | (t >= right) | (t <= left))
    inside = jnp.where(jnp.abs(t - right) < jnp.abs(t - left), right - margin, left + margin)
    return search._replace(
        t=jnp.where(pushed, inside, t),
        stalled=close & ~pushed,
        done=jnp.abs(ends[1] - ends[0]) * d_norm < WIDTH,
    )


def _too_high(start: Point, point: Point) -> jax.Array:
    return point.f > start.f + DECREASE * point.t * start.gtd


def _flat(start: Point, point: Point) -> jax.Array:
    return jnp.abs(point.gtd) <= -CURVATURE * start.gtd


def _extrapolate(a: Point, b: Point) -> jax.Array:
    return _cubic(a, b, b.t + 0.01 * (b.t - a.t), b.t * 10.0)


def _cubic(a: Point, b: Point, low: jax.Array, high: jax.Array) -> jax.Array:
    """The minimum in [low, high] of the cubic through two points with their slopes."""
    left, right = _where(a.t <= b.t, (a, b), (b, a))
    d1 = left.gtd + right.gtd - 3.0 * (left.f - right.f) / (left.t - right.t)
    d2_square = d1 * d1 - left.gtd * right.gtd
    d2 = jnp.sqrt(jnp.maximum(d2_square, 0.0))
    rise = (right.gtd + d2 - d1) / (right.gtd - left.gtd + 2.0 * d2)
    t = right.t - (right.t - left.t) * rise
    return jnp.where(d2_square >= 0.0, jnp.clip(t, low, high), (low + high) / 2.0)


def _lowest(bracket: Point) -> jax.Array:
    return (~(bracket.f[0] <= bracket.f[1])).astype(jnp.int32)


def _pair(a: Point, b: Point) -> Point:
    return jax.tree.map(lambda x, y: jnp.stack([x, y]), a, b)


def _at(bracket: Point, i: int | jax.Array) -> Point:
    return jax.tree.map(lambda x: x[i], bracket)


def _put(bracket: Point, i: jax.Array, point: Point) -> Point:
    return jax.tree.map(lambda x, new: x.at[i].set(new), bracket, point)


def _where(condition: jax.Array, a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
