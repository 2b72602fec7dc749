"""How a training is laid over a mesh: which axes split the batch, and which the parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jax.sharding import Mesh, PartitionSpec


Shapes = Mapping[str, tuple[int, ...]]
Specs = Callable[[Shapes, Mesh], dict[str, PartitionSpec]]


@dataclass(frozen=True)
class Sharding:
    """What ``make_train_step(mesh=...)`` does with the mesh; made by the functions below.

    PyTorch: the ``placements`` of a ``torch.distributed.tensor.DTensor``.
    """

    data: tuple[str, ...] | None  # axes that the batch is split over; None: all of the mesh
    specs: Specs  # shapes of the parameters, by name, -> their PartitionSpecs
    whole_batch: bool = False  # loss_fn sees the global batch, and XLA splits the computation
    no_sync: bool = False  # gather and scatter once a step, not once a microbatch


def data_parallel(
    axis: str | Sequence[str] | None = None, *, whole_batch: bool = False
) -> Sharding:
    """Replicate the state and split the batch.

    Each replica runs ``loss_fn`` on its part of every microbatch; totals, weights and
    gradients are summed over the replicas once per optimizer step, after the accumulation,
    and divided by the sum of the weights. What ``loss_fn`` sees is its own part:

    * ``Loss(total, weight)`` with sums is the mean over the global batch, exactly, also when
      the parts have different weights;
    * a plain scalar is averaged over the replicas. Of a mean over equal parts that is the
      mean over the global batch. Of a mean with a mask or class weights inside it is a mean
      of means, as in PyTorch's DistributedDataParallel; the exact way is ``Loss(sum, weight)``
      (``losses.total_and_weight``), or ``whole_batch``;
    * BatchNorm normalises each part by its own statistics, and the buffers that survive a
      step are those of the first replica, as DistributedDataParallel broadcasts them;
      ``ops.batch_norm(..., axis_name=...)`` is SyncBatchNorm;
    * each replica draws its own numbers: its root key is ``fold_in(state.rng, replica)``.

    PyTorch: ``torch.nn.parallel.DistributedDataParallel``, with ``no_sync()`` around all
    microbatches but the last. XLA joins the sum over all leaves into one all-reduce, up to a
    size that is a setting of its own on GPUs and TPUs.

    Args:
      axis: the mesh axis or axes that the batch is split over; None: all of the mesh.
      whole_batch: hand ``loss_fn`` the global batch, and let XLA split the computation. Masks,
        BatchNorm and random numbers are then what they are on one device, and gradients are
        summed once per *microbatch*.

    Returns:
      A ``Sharding``.
    """
    return Sharding(_axes(axis), _replicated, whole_batch)


def fsdp(
    axis: str = "data",
    *,
    min_size: int = 4096,
    no_sync: bool = False,
    whole_batch: bool = False,
) -> Sharding:
    """Split the batch, and parameters, gradients and optimizer state over the same axis.

    Every leaf of ``min_size`` elements or more is split on the largest of its axes that the
    number of devices divides; the others are replicated. Each device holds 1/n of what is
    split, of its gradients and of its optimizer state. Collectives: for each leaf that is
    split one all-gather, which XLA takes out of the accumulation, and one reduce-scatter for
    each microbatch; for all other leaves together one all-reduce per optimizer step; and what
    clipping and ``tx`` add, such as one number for a norm. What the loss sees is as for
    ``data_parallel``.

    PyTorch: ``torch.distributed.fsdp.fully_shard``. Gathered parameters are kept from
    the forward pass to the backward pass unless ``loss_fn`` uses ``jax.checkpoint``.

    Args:
      axis: a mesh axis.
      min_size: elements of the smallest leaf that is split.
      no_sync: scatter once, after the last microbatch. The whole gradients are then in memory
        during the accumulation, as under PyTorch's ``no_sync()``.
      whole_batch: as for ``data_parallel``; the collectives are then of XLA's choice.

    Returns:
      A ``Sharding``.

    Raises:
      ValueError: when it meets the parameters: none of them can be split.

    References:
      Rajbhandari et al., `ZeRO: Memory Optimizations Toward Training Trillion Parameter Models
      <https://arxiv.org/abs/1910.02054>`_, 2020.
    """

    def specs(shapes: Shapes, mesh: Mesh) -> dict[str, PartitionSpec]:
        size = mesh.shape[axis]
        found = {
            name: _split_largest(shape, axis, size, min_size) for name, shape in shapes.items()
        }
        if all(spec == PartitionSpec() for spec in found.values()):
            raise ValueError(
                f"fsdp splits no leaf: none of {dict(shapes)} has {min_size=} elements or more "
                f"and an axis that the {size} devices of {axis!r} divide. Lower min_size, or "
                f"use data_parallel({axis!r})."
            )
        return found

    return Sharding((axis,), specs, whole_batch, no_sync)


def by_name(
    rules: Sequence[tuple[str, PartitionSpec]],
    data: str | Sequence[str] = "data",
    *,
    no_sync: bool = False,
    whole_batch: bool = False,
) -> Sharding:
    """Split parameters as rules on their names say: tensor parallelism.

    PyTorch: ``torch.distributed.tensor.parallel.parallelize_module``.
    ``by_name([(r"up\\.weight", P("model", None)), (r"down\\.weight", P(None, "model"))])``. The
    batch is split over ``data``; ``loss_fn`` is written for one device, and XLA splits what it
    computes over the other axes and adds the collectives, inside the accumulation too. An axis
    of ``data`` in a rule splits that leaf as ``fsdp`` does.

    Args:
      rules: pairs of a regular expression, searched in the dotted name of each leaf, and a
        ``PartitionSpec``. The first that is found holds; a leaf without one is replicated.
      data: the mesh axis or axes that the batch is split over.
      no_sync, whole_batch: as for ``fsdp``.

    Returns:
      A ``Sharding``.

    Raises:
      ValueError: when it meets the parameters: a rule is found in no name, has more entries
        than a leaf has axes, names an axis that the mesh does not have, or splits an axis
        into unequal parts.
    """
    compiled = [(re.compile(pattern), spec) for pattern, spec in rules]

    def specs(shapes: Shapes, mesh: Mesh) -> dict[str, PartitionSpec]:
        for pattern, _ in compiled:
            if not any(pattern.search(name) for name in shapes):
                raise ValueError(
                    f"the rule {pattern.pattern!r} is found in none of the leaves "
                    f"{list(shapes)}. Correct the pattern, or drop the rule."
                )
        found = {}
        for name, shape in shapes.items():
            matches = [spec for pattern, spec in compiled if pattern.search(name)]
            found[name] = matches[0] if matches else PartitionSpec()
            check_spec(name, shape, found[name], mesh)
        return found

    return Sharding(_axes(data), specs, whole_batch, no_sync)


def check_spec(name: str, shape: tuple[int, ...], spec: PartitionSpec, mesh: Mesh) -> None:
    """Raise unless ``spec`` splits an array of ``shape`` evenly over axes of ``mesh``."""
    if len(spec) > len(shape):
        raise ValueError(
            f"{name} has shape {shape}, {len(shape)} axes, and its rule {spec} has {len(spec)} "
            f"entries. Give at most one for each axis."
        )
    for i, entry in enumerate(spec):
        axes = axes_of(entry)
        check_axes(axes, mesh, f"the rule {spec} of {name}")
        parts = size_of(axes, mesh)
        if shape[i] % parts:
            raise ValueError(
                f"axis {i} of {name}, shape {shape}, cannot be split into {parts} equal parts "
                f"({shape[i]} % {parts} = {shape[i] % parts}) as {spec} on {dict(mesh.shape)} "
                f"says. Split another axis, or use a mesh that fits."
            )


def check_axes(axes: Sequence[str], mesh: Mesh, what: str) -> None:
    """Raise unless every one of ``axes`` is an axis of ``mesh``."""
    unknown = [axis for axis in axes if axis not in mesh.shape]
    if unknown:
        raise ValueError(
            f"{what} names the mesh axes {unknown}; the mesh has {dict(mesh.shape)}. Use its "
            f"names, or give them to jax.make_mesh."
        )


def axes_of(entry: str | Sequence[str] | None) -> tuple[str, ...]:
    """The mesh axes of one entry of a ``PartitionSpec``."""
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def size_of(axes: Sequence[str], mesh: Mesh) -> int:
    """The number of parts that ``axes`` split into."""
    size = 1
    for axis in axes:
        size *= mesh.shape[axis]
    return size


def _axes(axis: str | Sequence[str] | None) -> tuple[str, ...] | None:
    return None if axis is None else axes_of(axis)


def _replicated(shapes: Shapes, mesh: Mesh) -> dict[str, PartitionSpec]:
    return dict.fromkeys(shapes, PartitionSpec())


def _split_largest(shape: tuple[int, ...], axis: str, size: int, least: int) -> PartitionSpec:
    """Split on the largest axis that ``size`` divides, if there are ``least`` elements."""
    elements = 1
    for n in shape:
        elements *= n
    even = [(n, -i) for i, n in enumerate(shape) if n and n % size == 0]
    if elements < least or not even:
        return PartitionSpec()
    largest = -max(even)[1]
    return PartitionSpec(*(axis if i == largest else None for i in range(largest + 1)))
