"""zero_grad and k times (forward, loss, backward) on every replica, and one sum over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from .._loss_fn import LossFn, canonical
from .._select import selected
from .._state import Accumulator, PyTree
from ._layout import Layout, batch_specs, check_batch, named, param_specs
from ._sharding import axes_of


# (loss_fn, state, batch, options, k) -> the sums of a window, the buffers after it, its metrics
Window = Callable[..., tuple[Accumulator, PyTree, PyTree]]


def on_mesh(window: Window, where: Layout) -> Window:
    """``window`` of the global batch on a mesh; see ``data_parallel`` for what it means.

    ``jax.shard_map`` is manual over the axes of the batch: a gradient stays a replica's own
    through the accumulation, where automatic sharding would sum it in every microbatch. Over
    the other axes XLA splits the computation.
    """

    def window_on_mesh(loss_fn, state, batch, options, k):
        check_batch(batch, where.replicas, options.accumulate, "a global batch")
        specs = param_specs(state.params, where)
        split = batch_specs(batch, where, options.accumulate)
        if where.sharding.whole_batch:
            batch = jax.lax.with_sharding_constraint(batch, named(split, where.mesh))
            return window(loss_fn, state, batch, options, k)
        if options.trainable is not None:  # shapes are the whole ones here, not on a replica
            mask = selected(options.trainable, state.params)
            options = replace(options, trainable=mask)
        manual = jax.tree.map(lambda spec: _only(where.data, spec), specs)

        def replica(params, rest, batch):
            own = replace(rest, params=params, rng=_own_rng(rest.rng, where))
            summed = _window_of_parts(window, where, manual)(loss_fn, own, batch, options, k)
            total, buffers, aux = summed
            buffers = jax.tree.map(lambda x: _of_first(x, where.data), buffers)
            return total, buffers, jax.tree.map(lambda x: jnp.expand_dims(x, at), aux)

        at = 0 if options.accumulate == 1 else 1
        by_replica = P(*(None,) * at, where.data)
        number: Any = P()
        sums = Accumulator(manual, loss=number, weight=number, count=number)
        mapped = jax.shard_map(
            replica,
            mesh=where.mesh,
            in_specs=(manual, P(), split),
            out_specs=(sums, P(), by_replica),
            axis_names=set(where.data),
            check_vma=False,  # a loss_fn for one device marks nothing as varying
        )
        return mapped(state.params, replace(state, params=None, opt_state=None), batch)

    return window_on_mesh


def _window_of_parts(window: Window, where: Layout, manual: PyTree) -> Window:
    """``window`` with parameters of which a replica holds its part, and its sums over all.

    Either gathered at the start and the sum scattered at the end; or gathered inside the
    loss, whose derivative scatters: less memory, more communication.
    """

    def window_of_parts(loss_fn, state, batch, options, k):
        if where.sharding.no_sync:
            params = jax.tree.map(_gather, state.params, manual)
            total, *rest = window(loss_fn, replace(state, params=params), batch, options, k)
            grads = _map(_scatter, total.grads, manual)
        else:
            total, *rest = window(_gathering(loss_fn, manual), state, batch, options, k)
            grads = total.grads
        return _summed(replace(total, grads=grads), manual, where.data), *rest

    return window_of_parts


def _gathering(loss_fn: LossFn, manual: PyTree) -> LossFn:
    call = canonical(loss_fn)

    def gathering(params, buffers, batch, rng):
        return call(jax.tree.map(_gather, params, manual), buffers, batch, rng)

    return gathering


def _summed(total: Accumulator, manual: PyTree, data: tuple[str, ...]) -> Accumulator:
    """The sums over replicas; what a scatter has summed is summed over the other axes."""

    def psum(g, spec):
        rest = tuple(axis for axis in data if axis not in _axes_in(spec))
        return jax.lax.psum(g, rest) if rest else g

    return replace(
        total,
        grads=_map(psum, total.grads, manual),
        loss=jax.lax.psum(total.loss, data),
        weight=jax.lax.psum(total.weight, data),
    )


def _gather(x: jax.Array, spec: P) -> jax.Array:
    for i, entry in enumerate(spec):
        if entry is not None:
            x = jax.lax.all_gather(x, axes_of(entry), axis=i, tiled=True)
    return x


def _scatter(x: jax.Array, spec: P) -> jax.Array:
    for i, entry in enumerate(spec):
        if entry is not None:
            x = jax.lax.psum_scatter(x, axes_of(entry), scatter_dimension=i, tiled=True)
    return x


def _of_first(x: jax.Array, data: tuple[str, ...]) -> jax.Array:
    """``x`` of the first replica, on all of them."""
    numbers = x.astype(jnp.int8) if x.dtype == jnp.bool_ else x
    first = jax.lax.axis_index(data) == 0
    return jax.lax.psum(jnp.where(first, numbers, jnp.zeros_like(numbers)), data).astype(
        x.dtype
    )


def _own_rng(rng: jax.Array | None, where: Layout) -> jax.Array | None:
    """A root key for each replica; of a single one, the root key."""
    if rng is None or where.replicas == 1:
        return rng
    return jax.random.fold_in(rng, jax.lax.axis_index(where.data))


def _only(data: tuple[str, ...], spec: P) -> P:
    """``spec`` without the axes that are not in ``data``."""
    kept = [tuple(a for a in axes_of(entry) if a in data) or None for entry in spec]
    return P(*kept)


def _axes_in(spec: P) -> set[str]:
    return {axis for entry in spec for axis in axes_of(entry)}


def _map(fn: Callable[[Any, P], Any], grads: PyTree, manual: PyTree) -> PyTree:
    """``fn`` of every gradient that there is, and its spec."""
    return jax.tree.map(lambda spec, g: None if g is None else fn(g, spec), manual, grads)
