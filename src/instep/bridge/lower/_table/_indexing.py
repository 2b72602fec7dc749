"""Indexing, gathering and scattering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from .... import ops


def _clamped(input: Any, indices: Sequence[Any]) -> list[Any]:
    return [
        None if i is None else jnp.clip(i, -n, n - 1)
        for i, n in zip(indices, input.shape, strict=False)
    ]


def _unsafe_masked_index(input: Any, mask: Any, indices: Sequence[Any], fill: Any) -> Any:
    values = ops.index(input, _clamped(input, indices))
    on = jnp.broadcast_to(mask, values.shape)
    return jnp.where(on, values, ops.cast(fill, values.dtype))


def _unsafe_masked_index_put_accumulate(
    input: Any, mask: Any, indices: Sequence[Any], values: Any
) -> Any:
    on = jnp.broadcast_to(mask, values.shape)
    masked = jnp.where(on, values, jnp.zeros((), values.dtype))
    return ops.index_put(input, _clamped(input, indices), masked, accumulate=True)


def _scatter_reduce(input: Any, dim: int, index: Any, src: Any, *, reduce: str) -> Any:
    """The older ``scatter(..., reduce=)`` has other names."""
    named = {"add": "sum", "multiply": "prod"}
    return ops.scatter_reduce(input, dim, index, src, named[reduce])


ATEN: dict[str, Callable[..., Any]] = {
    "_unsafe_index": ops.index,
    "_unsafe_index_put": ops.index_put,
    "_unsafe_masked_index": _unsafe_masked_index,
    "_unsafe_masked_index_put_accumulate": _unsafe_masked_index_put_accumulate,
    "diagonal_scatter": ops.diagonal_scatter,
    "gather": lambda input, dim, index, **sparse: ops.gather(input, dim, index),
    "index": ops.index,
    "index_add": ops.index_add,
    "index_copy": ops.index_copy,
    "index_fill": ops.index_fill,
    "index_put": ops.index_put,
    "index_reduce": ops.index_reduce,
    "index_select": ops.index_select,
    "isin": lambda elements, tests, *, assume_unique, invert: ops.isin(
        elements, tests, invert=invert
    ),
    "masked_scatter": ops.masked_scatter,
    "nonzero_static": ops.nonzero_static,
    "put": ops.put,
    "scatter": ops.scatter,
    "scatter.reduce": _scatter_reduce,
    "scatter.value_reduce": _scatter_reduce,
    "scatter_add": ops.scatter_add,
    "scatter_reduce": ops.scatter_reduce,
    "select_scatter": ops.select_scatter,
    "slice_scatter": ops.slice_scatter,
    "take": ops.take,
    "take_along_dim": ops.take_along_dim,
}
