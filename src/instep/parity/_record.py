"""Write down what the PyTorch half of a comparison does, for a machine without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..bridge._copy import copy_loop
from ..bridge._layers import side_of
from ..bridge._tensors import to_dtype, to_numpy
from ..bridge._torch_loop import TorchLoop
from ._blame import blame
from ._environment import environment
from ._lbfgs_torch import history_size
from ._recording import Manifest, writing
from ._records import Plan
from ._run import low_of, windows_of
from ._settings import precision, random_mark, random_state_kept
from ._step_file import Recorded, Walks
from ._torch_side import cycles_momentum, dropouts
from ._torch_walk import TorchWalk, begin_torch
from ._walks import End, ending, plans_of


NEXT = ("parameter", "buffer", "state", "plateau")  # what the JAX side is set to


def record(
    loop: TorchLoop,
    folder: str | Path,
    steps: int = 20,
    precisions: Sequence[str] | None = None,
    batch: Callable[[Any], Any] = lambda microbatch: microbatch,
    on_step: Callable[[int], None] = lambda n: None,
) -> None:
    """Take the PyTorch half of ``parity.run`` alone, and write what judges the JAX half.

    ``parity.compare`` reads it, on a machine that needs no PyTorch. Every step is a file of
    its own: the microbatches, PyTorch's step in float64 and what stands after it; of the
    copies that measure rounding only how far each leaf moved.

    Args:
      loop: its model, optimizer and scheduler are left as they are.
      folder: a new one; it is there when all of it is, or not at all.
      steps, precisions, on_step: as for ``parity.run``.
      batch: makes the JAX microbatch from a PyTorch one: tensors, in tuples, lists and dicts.

    Raises:
      TypeError, ValueError, ParityError: as ``parity.run``; or ``folder`` is there already,
        or a microbatch cannot be kept.
    """
    if not isinstance(loop, TorchLoop):
        raise TypeError(
            f"parity.record takes an instep.TorchLoop; got {type(loop).__name__}. Of a Pair: "
            f"record(pair.torch, folder, batch=pair.batch)."
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps=}.")
    low = list(low_of(loop, precisions))
    manifest = Manifest(
        steps=steps,
        precisions=low,
        accumulate=loop.accumulate,
        drop_last=loop.drop_last,
        scheduled=loop.scheduler is not None,
        cycles_momentum=cycles_momentum(loop.scheduler),
        history_size=history_size(loop.optimizer),
        dropouts=dropouts(loop),
        parameters=[name for name, _ in loop.model.named_parameters()],
        model=side_of(loop.model),
        environment=environment(_device(loop)),
    )
    with writing(folder) as (add, finish), random_state_kept(loop):
        _walk(loop, plans_of(low), steps, batch, add, on_step)
        finish(manifest)


def _walk(
    loop: TorchLoop,
    plans: Sequence[Plan],
    steps: int,
    batch: Callable[[Any], Any],
    add: Callable[[Walks], None],
    on_step: Callable[[int], None],
) -> None:
    """All walks of the PyTorch half, in the order of ``walk_all``."""
    stream = windows_of(loop)
    window = next(stream)
    walks: dict[Plan, TorchWalk] = {}
    ends: dict[Plan, End] = {}
    taken: Walks = {}
    for plan in plans:
        with precision(plan.dtype), ending(plan, ends):
            with blame("copying the PyTorch half"):
                reference = copy_loop(loop, getattr(torch, plan.dtype))
            walks[plan] = begin_torch(plan, reference, loop)
            taken[plan.name] = Recorded(walks[plan].standing)
    add(taken | _raised(ends))
    for n in range(1, steps + 1):
        window = window if n == 1 else next(stream)
        rewind = random_mark()
        taken = {}
        for plan, walk in walks.items():
            if plan in ends:
                continue
            rewind()
            with precision(plan.dtype), ending(plan, ends):
                taken[plan.name] = _step(walk, n, window, batch)
        add(taken | _raised(ends))
        on_step(n)


def _step(walk: TorchWalk, n: int, window: list[Any], batch: Callable[[Any], Any]) -> Recorded:
    """Take step ``n``, and keep what a comparison asks of it."""
    window = to_dtype(window, walk.dtype)
    with blame("batch", n):
        batches = [to_numpy(batch(microbatch)) for microbatch in window]
    with blame("the PyTorch half", n):
        right, floors, _ = walk.step(n, window)
    kinds = ("loss", *NEXT) if walk.plan.synced else ("loss",)
    standing = {leaf: value for leaf, value in walk.standing.items() if leaf.kind in kinds}
    if not walk.plan.judged:
        return Recorded(standing=standing, batches=batches)
    return Recorded(right, floors, standing, batches)


def _raised(ends: dict[Plan, End]) -> Walks:
    return {plan.name: Recorded(raised=end.why) for plan, end in ends.items()}


def _device(loop: TorchLoop) -> str:
    """``"cpu"``, or the name of the GPU on which the loop runs."""
    device = next((p.device for p in loop.model.parameters()), torch.device("cpu"))
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
