"""Batches from grain, whose iterators know their position."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import jax

from .._compat import require
from .._state import PyTree
from ._stream import BatchStream, close_all


def from_grain(
    dataset: Any,
    batch_size: int | None = None,
    *,
    seed: int | None = None,
    accumulate: int = 1,
    shard: tuple[int, int] | None = None,
    read_options: Any = None,
) -> BatchStream:
    """A stream of the batches of a grain dataset or loader.

    Args:
      dataset: a ``grain.MapDataset``, which is repeated without end; or a
        ``grain.IterDataset`` or ``grain.DataLoader``, which are taken as they are: shuffling,
        sharding and repetition are theirs.
      batch_size: examples that each process takes at a time; None: the elements of ``dataset``
        are batches. The rest of an epoch is dropped.
      seed: examples (or, without ``batch_size``, batches) are shuffled anew in each epoch; the
        order is a function of the seed and the epoch. None: not shuffled.
      accumulate: batches in a window, stacked, for ``accumulate=k`` of the step.
      shard: ``(index, count)``: every count-th example from the index-th on, of as many as
        ``count`` divides; None: the index and number of the JAX process.
      read_options: ``grain.ReadOptions``; None: 8 threads, 8 batches ahead.

    Raises:
      TypeError: ``dataset`` is none of these.
      ValueError: ``seed`` or ``shard`` is given for what is no ``MapDataset``; or the shard
        has less than one batch.
      MissingExtraError: grain is not installed.
    """
    grain = require("grain", "instep.data.from_grain")
    if isinstance(dataset, grain.MapDataset):
        dataset = _of_map(dataset, batch_size, seed, accumulate, shard)
        ahead = read_options or grain.ReadOptions(num_threads=8, prefetch_buffer_size=8)
        return _Grain(dataset.repeat().to_iter_dataset(ahead))
    if seed is not None or shard is not None:
        raise ValueError(
            f"only a grain.MapDataset is shuffled and sharded here; got {seed=}, {shard=} for "
            f"a {type(dataset).__name__}. Shuffle and shard where it is made."
        )
    sizes = ([] if batch_size is None else [batch_size]) + [accumulate] * (accumulate > 1)
    if isinstance(dataset, grain.IterDataset):
        for size in sizes:
            dataset = dataset.batch(size, drop_remainder=True)
    elif not isinstance(dataset, grain.DataLoader):
        raise TypeError(
            f"from_grain takes a grain MapDataset, IterDataset or DataLoader; got a "
            f"{type(dataset).__name__}."
        )
    elif sizes:
        raise ValueError(
            f"a grain.DataLoader batches by itself; got {batch_size=}, {accumulate=}. Put "
            f"grain.transforms.Batch among its operations, and data.windows around it."
        )
    return _Grain(dataset)


def is_grain(batches: Any) -> bool:
    """Whether ``from_grain`` takes it; grain need not be installed."""
    grain = sys.modules.get("grain")  # where there is a dataset, it is imported
    if grain is None:
        return False
    return isinstance(batches, grain.MapDataset | grain.IterDataset | grain.DataLoader)


def _of_map(
    dataset: Any,
    batch_size: int | None,
    seed: int | None,
    accumulate: int,
    shard: tuple[int, int] | None,
) -> Any:
    index, count = (jax.process_index(), jax.process_count()) if shard is None else shard
    if not 0 <= index < count:
        raise ValueError(f"shard is (index, count), 0 <= index < count; got {shard}.")
    if seed is not None:
        dataset = dataset.shuffle(seed=seed)
    examples = len(dataset)
    if count > 1:  # equal shards: else one process waits for a batch that no other has
        dataset = dataset[: examples - examples % count][index::count]
    if batch_size is not None:
        dataset = dataset.batch(batch_size, drop_remainder=True)
    if accumulate > 1:
        dataset = dataset.batch(accumulate, drop_remainder=True)
    if len(dataset) == 0:
        raise ValueError(
            f"{examples} examples in {count} shards make no window of {accumulate} batches of "
            f"{batch_size or 1}. Make one of them smaller."
        )
    return dataset


@dataclass(frozen=True)
class _Grain:
    """A stream; the positions are grain's."""

    dataset: Any

    def __iter__(self) -> _GrainIterator:
        return _GrainIterator(iter(self.dataset))


class _GrainIterator:
    def __init__(self, batches: Any):
        self._batches = batches

    def __iter__(self) -> _GrainIterator:
        return self

    def __next__(self) -> PyTree:
        return next(self._batches)

    def state(self) -> Any:
        state = self._batches.get_state()  # JSON in bytes, of a DataLoader
        return json.loads(state) if isinstance(state, bytes) else state

    def restore(self, state: Any) -> None:
        if isinstance(state, dict) and state.keys() == {"epoch", "taken"}:  # of Epochs
            raise ValueError(
                f"the position {state!r} is of another kind of batches; here it is like "
                f"{self.state()}. Give the batches as they were when it was saved."
            )
        text = isinstance(self._batches.get_state(), bytes)
        self._batches.set_state(json.dumps(state, indent=4).encode() if text else state)

    def close(self) -> None:
        close_all(self._batches)
