"""Several processes, and what is said when one of them is gone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import multihost_utils


class ProcessLostError(RuntimeError):
    """Another process of the training ended, or cannot be reached."""


@contextmanager
def processes(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = 60,
    **kwargs: Any,
) -> Iterator[None]:
    """Join the processes of a training, and leave them at the end of the block.

    Every process runs the same program; its ``jax.devices()`` are the devices of all of them,
    and its batches are its own part of the global ones. On CPUs their collectives go over
    Gloo::

        with instep.sharding.processes():
            mesh = jax.make_mesh((jax.device_count(),), ("data",))
            train_step = instep.make_train_step(loss_fn, tx, mesh=mesh)
            ...

    PyTorch: ``torch.distributed.init_process_group`` and ``destroy_process_group``; ``timeout``
    does what ``TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC`` and its watchdog do.

    When a process dies, the collectives of the others fail at once where their network says
    so, which is raised as ``ProcessLostError``. When it hangs, when it raised an error of its
    own, or when it was process 0, which coordinates, JAX ends the others itself, within
    ``timeout``, with a message on standard error: that cannot be caught. Start all of them
    again from the last checkpoint. Without an error each waits here for the slowest.

    Args:
      coordinator_address: ``host:port`` of process 0; None, here and for the next two: JAX
        finds them out under SLURM, Open MPI, Kubernetes and on Cloud TPUs.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      timeout: seconds without a heartbeat, or after an error, after which a process counts
        as dead. JAX's own are 100 and 300.
      **kwargs: others of ``jax.distributed.initialize``.

    Raises:
      ProcessLostError: a collective failed inside the block because another process is gone.
    """
    jax.distributed.initialize(
        coordinator_address,
        num_processes,
        process_id,
        heartbeat_timeout_seconds=timeout,
        shutdown_timeout_seconds=timeout,
        **kwargs,
    )
    try:
        yield
        multihost_utils.sync_global_devices("instep.sharding.processes")
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not _LOST.search(str(error)):
            raise
        raise ProcessLostError(
            f"process {jax.process_index()} of {jax.process_count()} cannot reach another one, "
            f"which has ended or lost its network: {error} Its own log says why. The step that "
            f"was under way is lost; start all processes again from the last checkpoint. This "
            f"one ends within {timeout} seconds."
        ) from error
    jax.distributed.shutdown()


# How the transports of JAX's collectives begin to say so.
_LOST = re.compile(r"Gloo [\w-]+ failed|NCCL|UNAVAILABLE|heartbeat")
