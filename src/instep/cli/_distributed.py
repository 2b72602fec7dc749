"""One training over all devices of all processes: the examples of a batch are shared out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .. import data
from .._errors import RequestError
from .._state import PyTree, TrainState


def join() -> None:
    """Find the other processes, before JAX looks for devices.

    Raises:
      RequestError: it is not known where they are.
    """
    told: dict[str, Any] = {
        name: int(os.environ[variable])
        for name, variable in (
            ("num_processes", "JAX_NUM_PROCESSES"),
            ("process_id", "JAX_PROCESS_ID"),
        )
        if variable in os.environ
    }
    try:
        jax.distributed.initialize(**told)
    except (ValueError, RuntimeError) as error:
        raise RequestError(
            f"--distributed: {error}. Start it by Slurm, MPI or on a TPU, or set "
            f"JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID."
        ) from error


def shared_out(
    state: TrainState, batches: Iterable[PyTree], accumulate: int
) -> tuple[TrainState, data.BatchStream]:
    """The state on every device, and the examples of each batch shared out among them.

    Every process makes the whole batch and takes its part, so the training is that of one
    device, whatever the number of them.

    Raises:
      ValueError: when a batch comes whose examples cannot be shared out evenly.
    """
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    axis = 0 if accumulate == 1 else 1
    spec = PartitionSpec(*[None] * axis, "data")
    parts, part = jax.process_count(), jax.process_index()

    def own(batch: PyTree) -> PyTree:
        return jax.tree.map(take, batch)

    def take(x: PyTree) -> PyTree:
        n = np.shape(x)[axis]
        if n % mesh.size:
            raise ValueError(
                f"{n} examples cannot be shared out among {mesh.size} devices. Give batches of "
                f"a multiple of {mesh.size}, and drop_last=True to the loader."
            )
        rows = slice(part * n // parts, (part + 1) * n // parts)
        return x[rows] if axis == 0 else x[:, rows]

    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    return state, data.prefetch(data.mapped(own, batches), sharding=NamedSharding(mesh, spec))
