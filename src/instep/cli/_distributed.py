"""One training over all devices of all processes."""

from __future__ import annotations

import os
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from .. import data, sharding
from .._errors import RequestError
from .._loop import JaxLoop
from .._state import PyTree
from .._trees import named_leaves


def join(stack: ExitStack) -> None:
    """Find the other processes, before JAX looks for devices; ``stack`` leaves them.

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
        stack.enter_context(sharding.processes(**told))
    except (ValueError, RuntimeError) as error:
        raise RequestError(
            f"--distributed: {error} Start it by Slurm, MPI or on a TPU, or set "
            f"JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID."
        ) from error


def shared_out(loop: JaxLoop) -> tuple[JaxLoop, data.BatchStream]:
    """``loop`` over all devices, and the part of this process of every batch, on them.

    The batches of a loop with a mesh are the parts already. Of one without, every process
    makes the same batches and keeps its rows, so the training is that of one device.

    Raises:
      RequestError: when the batches come: their examples cannot be shared out evenly, or the
        processes do not make the same.
    """
    if loop.mesh is not None:
        return loop, on_mesh(loop)
    assert loop.batches is not None
    rows = _Rows(0 if loop.accumulate == 1 else 1)
    loop = replace(
        loop,
        mesh=jax.make_mesh((jax.device_count(),), ("data",)),
        sharding=sharding.data_parallel(whole_batch=True),
        batches=data.mapped(rows.own, loop.batches),
    )
    return loop, data.mapped(rows.checked, on_mesh(loop))


def on_mesh(loop: JaxLoop) -> data.BatchStream:
    """The batches of a loop with a mesh, put on it ahead of their use."""
    mesh, how = loop.mesh, loop.sharding
    assert mesh is not None and loop.batches is not None

    def put(batch: PyTree) -> PyTree:
        return sharding.shard_batch(batch, mesh, how, accumulate=loop.accumulate)

    return data.prefetch(data.mapped(put, loop.batches))


@dataclass
class _Rows:
    """The rows of this process; ``axis`` is that of the examples."""

    axis: int
    digest: int | None = None  # of the first batch
    same: bool = False  # it is that of all processes

    def own(self, batch: PyTree) -> PyTree:
        """Called in the thread that makes the batches."""
        if self.digest is None:
            self.digest = _digest(batch)
        return jax.tree.map(self._rows, batch)

    def checked(self, batch: PyTree) -> PyTree:
        """Called where the batch is used, since all processes take part."""
        if not self.same:
            found = multihost_utils.process_allgather(np.uint32(self.digest or 0))
            if len({int(x) for x in found}) > 1:
                raise RequestError(
                    "--distributed: the processes do not make the same batches, of which each "
                    "would keep its rows. Seed them; or, where each makes its own part, say so "
                    "by JaxLoop(mesh=jax.make_mesh((jax.device_count(),), ('data',)))."
                )
            self.same = True
        return batch

    def _rows(self, x: Any) -> Any:
        if np.ndim(x) <= self.axis:
            return x
        n, devices = np.shape(x)[self.axis], jax.device_count()
        if n % devices:
            raise RequestError(
                f"{n} examples cannot be shared out among {devices} devices. Give batches of a "
                f"multiple of {devices}, and drop_last=True to the loader."
            )
        count, index = jax.process_count(), jax.process_index()
        rows = slice(index * n // count, (index + 1) * n // count)
        return x[rows] if self.axis == 0 else x[:, rows]


def _digest(batch: PyTree) -> int:
    digest = 0
    for x in named_leaves(batch).values():
        digest = zlib.crc32(np.ascontiguousarray(x).tobytes(), digest)
    return digest
