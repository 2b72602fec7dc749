"""States and batches on a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding

from .._init import init_state as init_on_one_device
from .._put import put
from .._state import PyTree, TrainState
from ._layout import Layout, batch_specs, check_batch, layout, named, state_specs
from ._sharding import Sharding


def place(state: TrainState, mesh: Mesh, sharding: Sharding | None = None) -> TrainState:
    """Copy a state onto a mesh, as ``make_train_step(mesh=..., sharding=...)`` wants it.

    PyTorch: ``model.to(device)`` and the wrapping in
    ``torch.nn.parallel.DistributedDataParallel``, which sends the parameters and buffers of
    rank 0 to the others.

    Args:
      state: of ``init_state``, or of any number of steps; it stays as it is. On several
        processes it has the same values on all of them.
      mesh: of ``jax.make_mesh``.
      sharding: None is ``data_parallel()``.

    Returns:
      The state, whose leaves lie as ``state_sharding`` says.

    Raises:
      TypeError, ValueError: as ``state_sharding``.
    """
    # device_put may leave the part of one device where it is, and a step consumes it.
    return _put(jax.tree.map(jnp.copy, state), state_sharding(state, mesh, sharding))


def state_sharding(
    state: TrainState, mesh: Mesh, sharding: Sharding | None = None
) -> TrainState:
    """Say where each leaf of a state lies, for ``jax.jit`` or to restore a checkpoint.

    PyTorch: the ``placements`` of every ``torch.distributed.tensor.DTensor``.

    Args:
      state: a state, or its shapes: ``jax.eval_shape(lambda: init_state(...))``.
      mesh, sharding: as for ``place``.

    Returns:
      A tree like ``state`` of ``jax.sharding.NamedSharding``.

    Raises:
      TypeError: ``mesh`` or ``sharding`` is of another kind.
      ValueError: ``sharding`` does not fit the mesh or the parameters.
    """
    where = layout(mesh, sharding)
    return named(state_specs(state, where), where.mesh)


def init_state(
    make_params: Callable[[], PyTree],
    tx: optax.GradientTransformation,
    mesh: Mesh,
    sharding: Sharding | None = None,
    **kwargs: Any,
) -> TrainState:
    """Make a state on the mesh, for parameters that one device does not hold.

    PyTorch: a model on the ``meta`` device, ``torch.distributed.fsdp.fully_shard`` and
    ``torch.nn.Module.to_empty``.

    Args:
      make_params: makes a pytree of floating arrays, without arguments, and is jitted; each
        device computes its part.
      tx: an ``optax.GradientTransformation``.
      mesh, sharding: as for ``place``.
      **kwargs: ``buffers``, ``rng``, ``scaler``, ``opt_state`` of ``instep.init_state``.

    Raises:
      TypeError, ValueError: as ``instep.init_state`` and ``state_sharding``.
    """

    def make() -> TrainState:
        return init_on_one_device(make_params(), tx, **kwargs)

    wanted = state_sharding(jax.eval_shape(make), mesh, sharding)
    return jax.jit(make, out_shardings=wanted)()


def shard_batch(
    batch: PyTree, mesh: Mesh, sharding: Sharding | None = None, *, accumulate: int = 1
) -> PyTree:
    """Put the batch of this process on the mesh, split over the replicas.

    A train step does this for what is not on the mesh yet. On several processes ``batch`` is
    this process's part of the global batch, as with a
    ``torch.utils.data.distributed.DistributedSampler``; all parts have the same shapes, and
    follow each other in the order of the processes.

    Args:
      batch: pytree of host arrays of any dtype, leaves ``(b, ...)``; with ``accumulate=k``
        above 1 ``(k, b, ...)``, split on their second axis. A leaf without that axis is
        replicated.
      mesh, sharding: as for ``place``.
      accumulate: as for ``make_train_step``.

    Returns:
      The same pytree of global arrays.

    Raises:
      TypeError: ``mesh`` or ``sharding`` is of another kind.
      ValueError: the replicas do not divide the number of examples.
    """
    return placed_batch(batch, layout(mesh, sharding), accumulate)


def placed_batch(batch: PyTree, where: Layout, accumulate: int) -> PyTree:
    """``batch``, of which leaves that are not on the mesh are put there."""
    if all(_is_on(x, where.mesh) for x in jax.tree.leaves(batch)):
        return batch
    devices = where.mesh.devices.flatten()
    processes = len({d.process_index for d in devices})
    part = "a global batch" if processes == 1 else "the part of a process"
    check_batch(batch, where.replicas // processes or 1, accumulate, part)
    wanted = named(batch_specs(batch, where, accumulate), where.mesh)

    def placed(x, sharding):
        if _is_on(x, where.mesh):
            return x
        if processes == 1:
            return jax.device_put(x, sharding)
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))

    return jax.tree.map(placed, batch, wanted)


def placed_state(state: TrainState, where: Layout) -> TrainState:
    """``state``, of which leaves that are not on the mesh are put there."""
    if all(_is_on(x, where.mesh) for x in jax.tree.leaves(state)):
        return state
    wanted = named(state_specs(state, where), where.mesh)
    return jax.tree.map(
        lambda x, to: x if _is_on(x, where.mesh) else _put(x, to), state, wanted
    )


def _is_on(x: Any, mesh: Mesh) -> bool:
    """Whether ``x`` lies on ``mesh``; a tracer lies where its trace puts it."""
    if isinstance(x, Tracer):
        return True
    sharding = getattr(x, "sharding", None)
    return isinstance(sharding, NamedSharding) and sharding.mesh == mesh


def _put(tree: PyTree, shardings: PyTree) -> PyTree:
    """``put`` of the leaves: a scaler is not rebuilt around shardings."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten(put(leaves, treedef.flatten_up_to(shardings)))
