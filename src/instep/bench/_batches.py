"""The batches that all contenders take: the first of TARGET that are shaped alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain, islice, repeat
from typing import Any

import jax
import numpy as np

from .._errors import TargetError
from .._loop import JaxLoop
from ._settings import Settings


LOOKED_AT = 100  # batches for each that is needed, at most


def first_jax_batches(target: str, loop: JaxLoop, settings: Settings) -> tuple[JaxLoop, int]:
    """``loop`` with its first batches as a list, and how many were left out."""
    if loop.batches is None:
        raise TargetError(
            f"{target} returned a JaxLoop without batches; give it batches=, a list of what "
            f"its step takes."
        )
    count = max(settings.batches, settings.check_steps)
    epochs = chain.from_iterable(repeat(loop.batches, LOOKED_AT * count))
    found, left_out = _alike(epochs, count, jax.tree.leaves)
    if not found:
        raise TargetError(
            f"{target} returned a JaxLoop whose batches are empty, or used up: give a list."
        )
    return replace(loop, batches=found), left_out


def first_torch_batches(
    target: str, given: Any, settings: Settings, examples: int | None
) -> tuple[Any, int]:
    """``given`` with its first windows as a list: a shuffle would go on with whoever looks."""
    from ..bridge._tensors import map_tensors, tensors_in
    from ..bridge._torch_loop import windows

    loop = getattr(given, "torch", given)
    count = max(settings.batches, settings.check_steps)
    try:
        some = islice(windows(loop), LOOKED_AT * count)
        full = (window for window in some if len(window) == loop.accumulate)
        taken, left_out = _alike(full, count, tensors_in)
    except ValueError as error:
        raise TargetError(f"{target}: {error}") from error
    if not taken:
        raise TargetError(
            f"an epoch of {target} has fewer than accumulate={loop.accumulate} microbatches; "
            f"give it more batches, or accumulate over fewer."
        )
    batches = [microbatch for window in taken for microbatch in window]
    if not tensors_in(batches):
        raise TargetError(
            f"the first batch of {target} is a {type(batches[0]).__name__} without a tensor; "
            f"give tensors, as a DataLoader does."
        )
    if examples is not None:
        size = tensors_in(batches[0])[0].shape[:1]
        batches = [
            map_tensors(lambda x: x[:examples] if x.ndim and x.shape[:1] == size else x, b)
            for b in batches
        ]
    loop = replace(loop, batches=batches)
    return (replace(given, torch=loop) if hasattr(given, "torch") else loop), left_out


def first_examples(batch: Any, axis: int, count: int | None) -> Any:
    """The first ``count`` along the axis of examples, which is that of the first leaf."""
    size = np.shape(jax.tree.leaves(batch)[0])[axis]

    def taken(x: np.ndarray) -> np.ndarray:
        has_them = x.ndim > axis and x.shape[axis] == size
        return x[(slice(None),) * axis + (slice(count),)] if has_them else x

    return jax.tree.map(taken, batch)


def _alike(
    stream: Iterable[Any], count: int, arrays: Callable[[Any], Iterable[Any]]
) -> tuple[list[Any], int]:
    """``count`` that are shaped as most are, so that one program serves; how many are not."""

    def shapes(x: Any) -> tuple[Any, ...]:
        return tuple(tuple(np.shape(array)) for array in arrays(x))

    stream = iter(stream)
    first = list(islice(stream, count))
    usual = Counter(map(shapes, first)).most_common(1)[0][0] if first else None
    found: list[Any] = []
    left_out = 0
    for x in islice(chain(first, stream), LOOKED_AT * count):
        if shapes(x) == usual:
            found.append(x)
        else:
            left_out += 1
        if len(found) == count:
            break
    return found, left_out
