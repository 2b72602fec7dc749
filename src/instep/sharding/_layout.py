"""Where each leaf of a state, and each leaf of a batch, lies on a mesh."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from jax.tree_util import tree_flatten_with_path, tree_map_with_path

from .._state import PyTree, TrainState
from .._trees import named_leaves
from ._sharding import Sharding, check_axes, data_parallel, size_of


class Layout(NamedTuple):
    """A mesh, what to do with it, and the axes that the batch is split over."""

    mesh: Mesh
    sharding: Sharding
    data: tuple[str, ...]

    @property
    def replicas(self) -> int:
        return size_of(self.data, self.mesh)


def layout(mesh: Mesh, sharding: Sharding | None = None) -> Layout:
    """Check that ``sharding`` fits ``mesh``; None is ``data_parallel()``.

    The axes become automatic ones: ``jax.make_mesh`` makes explicit axes, under which a
    ``loss_fn`` written for one device may not trace.
    """
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"mesh is a {type(mesh).__name__}, not a jax.sharding.Mesh. Make it with "
            f"jax.make_mesh(({jax.device_count()},), ('data',))."
        )
    sharding = data_parallel() if sharding is None else sharding
    if not isinstance(sharding, Sharding):
        raise TypeError(
            f"sharding is a {type(sharding).__name__}; make it with sharding.data_parallel, "
            f"sharding.fsdp or sharding.by_name."
        )
    data = mesh.axis_names if sharding.data is None else sharding.data
    check_axes(data, mesh, "the sharding of the batch")
    automatic = (AxisType.Auto,) * len(mesh.axis_names)
    return Layout(Mesh(mesh.devices, mesh.axis_names, axis_types=automatic), sharding, data)


def param_specs(params: PyTree, where: Layout) -> PyTree:
    """A tree like ``params`` of ``PartitionSpec``."""
    shapes = {name: np.shape(leaf) for name, leaf in named_leaves(params).items()}
    specs = where.sharding.specs(shapes, where.mesh)
    leaves = [_trimmed(specs[name]) for name in shapes]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def state_specs(state: TrainState, where: Layout) -> TrainState:
    """A tree like ``state`` of ``PartitionSpec``.

    A leaf of the optimizer state lies like the parameter whose path ends its own path, on
    every axis that has the length of the parameter's. Everything else is replicated.
    """
    specs = param_specs(state.params, where)
    paths = {
        path: (np.shape(leaf), spec)
        for (path, leaf), spec in zip(
            tree_flatten_with_path(state.params)[0], jax.tree.leaves(specs), strict=True
        )
    }

    def like_its_parameter(path, leaf):
        for i in range(len(path) + 1):
            if path[i:] in paths:
                shape, spec = paths[path[i:]]
                return _on_equal_axes(spec, shape, np.shape(leaf))
        return P()

    replicated = jax.tree.map(lambda _: P(), replace(state, params=None, opt_state=None))
    opt_state = tree_map_with_path(like_its_parameter, state.opt_state)
    return replace(replicated, params=specs, opt_state=opt_state)


def batch_specs(batch: PyTree, where: Layout, accumulate: int) -> PyTree:
    """A tree like ``batch`` of ``PartitionSpec``: split on the axis of examples.

    A leaf without that axis, a number for the whole batch, is replicated.
    """
    axis = 0 if accumulate == 1 else 1
    split = P(*(None,) * axis, where.data)
    return jax.tree.map(lambda x: split if np.ndim(x) > axis else P(), batch)


def check_batch(batch: PyTree, replicas: int, accumulate: int, what: str) -> None:
    """Raise unless every leaf has the same number of examples, and ``replicas`` divides it.

    Args:
      batch: leaves of shape ``(b, ...)``, or with ``accumulate`` above 1 ``(k, b, ...)``.
      replicas: parts to split it into.
      accumulate: microbatches of a step.
      what: what the batch is called in the error.
    """
    axis = 0 if accumulate == 1 else 1
    sizes = {
        name: np.shape(leaf)[axis]
        for name, leaf in named_leaves(batch).items()
        if np.ndim(leaf) > axis
    }
    if not sizes:
        raise ValueError(
            f"the batch has no leaf with an axis of examples, axis {axis} with {accumulate=}, "
            f"so it cannot be split over {replicas} replicas."
        )
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"the leaves of the batch have different sizes on axis {axis}: {sizes}. Every leaf "
            f"needs the examples there; a number for the whole batch has no such axis."
        )
    size = next(iter(sizes.values()))
    if size % replicas:
        down, up = size - size % replicas, size + replicas - size % replicas
        raise ValueError(
            f"{what} of {size} examples cannot be split over {replicas} replicas "
            f"({size} % {replicas} = {size % replicas}). Take {down} examples, or pad to {up} "
            f"and give the padding weight 0 by instep.Loss(total, weight)."
        )


def named(specs: PyTree, mesh: Mesh) -> PyTree:
    """``PartitionSpec`` leaves as ``NamedSharding``."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def _on_equal_axes(spec: P, shape: tuple[int, ...], own: tuple[int, ...]) -> P:
    if len(own) != len(shape):
        return P()
    return _trimmed(P(*(e if own[i] == shape[i] else None for i, e in enumerate(spec))))


def _trimmed(spec: P) -> P:
    """Without None at the end, as a jitted function returns it: else it is traced twice."""
    entries = list(spec)
    while entries and entries[-1] is None:
        entries.pop()
    return P(*entries)
