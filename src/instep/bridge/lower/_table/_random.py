"""Random tensors. Each draws its noise first, in the shape in which PyTorch draws it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .... import ops
from ....ops._promotion import as_floating
from .._draws import Draw


def _floating(dtype: Any) -> np.dtype:
    return as_floating(np.bool_ if dtype is None else dtype)


def _rand(draw: Draw, size: Sequence[int], *, dtype: Any) -> Any:
    return draw.uniform(size, _floating(dtype))


def _randn(draw: Draw, size: Sequence[int], *, dtype: Any) -> Any:
    return draw.normal(size, _floating(dtype))


def _rand_like(draw: Draw, input: Any, *, dtype: Any) -> Any:
    return draw.uniform(input.shape, input.dtype if dtype is None else jnp.dtype(dtype))


def _randn_like(draw: Draw, input: Any, *, dtype: Any) -> Any:
    return draw.normal(input.shape, input.dtype if dtype is None else jnp.dtype(dtype))


def _randint(draw: Draw, *bounds_size: Any, dtype: Any) -> Any:
    *bounds, size = bounds_size
    low, high = bounds if len(bounds) == 2 else (0, *bounds)
    return draw.integers(low, high, size, _integer(dtype))


def _randint_like(draw: Draw, input: Any, *bounds: int, dtype: Any) -> Any:
    low, high = bounds if len(bounds) == 2 else (0, *bounds)
    return draw.integers(low, high, input.shape, input.dtype if dtype is None else dtype)


def _randperm(draw: Draw, n: int, *, dtype: Any) -> Any:
    return draw.permutation(n, _integer(dtype))


def _random(draw: Draw, input: Any, *bounds: int | None) -> Any:
    """Integers, up to the largest after which the dtype has gaps."""
    low, high = bounds if len(bounds) == 2 else (0, *bounds) if bounds else (0, None)
    if high is None:
        floating = jnp.issubdtype(input.dtype, jnp.floating)
        digits = jnp.finfo(input.dtype).nmant + 1 if floating else None
        high = jnp.iinfo(input.dtype).max if digits is None else min(2**digits, 2**31 - 1)
    return draw.integers(low or 0, high, input.shape, input.dtype)


def _integer(dtype: Any) -> np.dtype:
    """The schema has the default, int64, as a number."""
    named = np.int64 if dtype is None or isinstance(dtype, int) else dtype
    return ops.zeros((), dtype=named).dtype


def _bernoulli(draw: Draw, input: Any, p: Any = None) -> Any:
    return ops.bernoulli(draw.bernoulli(input if p is None else p, input.shape), input.dtype)


def _normal(draw: Draw, mean: Any, std: Any) -> Any:
    """The mean, the deviation or both are tensors."""
    shape = np.broadcast_shapes(np.shape(mean), np.shape(std))
    dtype = mean.dtype if hasattr(mean, "dtype") else std.dtype
    return ops.normal(draw.normal(shape, dtype), mean, std)


def _normal_of_size(
    draw: Draw, mean: float, std: float, size: Sequence[int], *, dtype: Any
) -> Any:
    return ops.normal(draw.normal(size, _floating(dtype)), mean, std)


def _in_place_of(function: Callable[..., Any], *, normal: bool = False) -> Callable[..., Any]:
    """``function`` of noise in the shape and dtype of the tensor, and of its parameters."""

    def drawn(draw: Draw, input: Any, *parameters: float) -> Any:
        draw_noise = draw.normal if normal else draw.uniform
        return function(draw_noise(input.shape, input.dtype), *parameters)

    return drawn


def _multinomial(draw: Draw, weights: Any, num_samples: int, replacement: bool) -> Any:
    replacement = replacement and num_samples > 1
    *batch, classes = weights.shape
    noise = draw.uniform((*batch, num_samples if replacement else classes), weights.dtype)
    return ops.multinomial(noise, weights, replacement)[..., :num_samples]


RANDOM: dict[str, Callable[..., Any]] = {  # these take a Draw first
    "bernoulli": _bernoulli,
    "cauchy": _in_place_of(ops.cauchy),
    "exponential": _in_place_of(ops.exponential),
    "geometric": _in_place_of(ops.geometric),
    "log_normal": _in_place_of(ops.log_normal, normal=True),
    "multinomial": _multinomial,
    "normal": _normal,
    "normal.float_float": _normal_of_size,
    "normal_functional": _in_place_of(ops.normal, normal=True),
    "rand": _rand,
    "rand_like": _rand_like,
    "randint": _randint,
    "randint_like": _randint_like,
    "randn": _randn,
    "randn_like": _randn_like,
    "random": _random,
    "randperm": _randperm,
    "uniform": _in_place_of(ops.uniform),
}
