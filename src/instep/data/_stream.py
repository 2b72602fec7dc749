"""A stream of batches: an iterable whose iterator can say and take a position."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from .._batch import stack
from .._state import PyTree


class BatchIterator(Protocol):
    """What ``iter`` of a stream returns; it may have ``close()``, which ends its threads."""

    def __iter__(self) -> BatchIterator: ...

    def __next__(self) -> PyTree: ...

    def state(self) -> Any:
        """The position after the batches taken so far, as JSON."""
        ...

    def restore(self, state: Any) -> None:
        """Go on from a position of an iterator over the same stream."""
        ...


class BatchStream(Protocol):
    """An iterable of batches with positions."""

    def __iter__(self) -> BatchIterator: ...


@dataclass(frozen=True)
class Epochs:
    """An endless stream, epoch after epoch; its position is the epoch and the batches taken.

    Args:
      epoch: ``(number, skip) -> iterator``: the batches of an epoch, from 0 on, without the
        first ``skip``. The same arguments give the same batches.
    """

    epoch: Callable[[int, int], Iterator[PyTree]]

    def __iter__(self) -> EpochIterator:
        return EpochIterator(self)


class EpochIterator:
    """Where ``Epochs`` stand."""

    def __init__(self, epochs: Epochs):
        self._epochs = epochs
        self._epoch = self._taken = 0
        self._batches: Iterator[PyTree] | None = None

    def __iter__(self) -> EpochIterator:
        return self

    def __next__(self) -> PyTree:
        while True:
            if self._batches is None:
                self._batches = self._epochs.epoch(self._epoch, self._taken)
            try:
                batch = next(self._batches)
            except StopIteration:
                if self._taken == 0:
                    raise ValueError(
                        f"epoch {self._epoch} has no batches. batches must be an iterable that "
                        f"starts again each time, a list or a DataLoader, with at least one "
                        f"batch in it; a generator is used up after one epoch."
                    ) from None
                self._start(self._epoch + 1, 0)
            else:
                self._taken += 1
                return batch

    def state(self) -> dict[str, int]:
        return {"epoch": self._epoch, "taken": self._taken}

    def restore(self, state: Any) -> None:
        if not isinstance(state, dict) or state.keys() != self.state().keys():
            raise ValueError(
                f"the position {state!r} is of another kind of batches; here it is like "
                f"{self.state()}. Give the batches as they were when it was saved."
            )
        self._start(state["epoch"], state["taken"])

    def close(self) -> None:
        self._start(self._epoch, self._taken)

    def _start(self, epoch: int, taken: int) -> None:
        close_all(self._batches)
        self._epoch, self._taken, self._batches = epoch, taken, None


def stream(batches: Any) -> BatchStream:
    """``batches`` as a stream.

    Args:
      batches: a stream already; a ``torch.utils.data.DataLoader`` (``from_loader``); a grain
        ``MapDataset``, ``IterDataset`` or ``DataLoader`` (``from_grain``); or any iterable that
        starts again each time, such as a list. The last is passed through again up to the
        position it goes on from; if it has ``set_epoch``, that is called before each epoch.
    """
    from ._grain import from_grain, is_grain  # these make streams themselves
    from ._loader import from_loader

    torch = sys.modules.get("torch.utils.data")  # where there is a loader, it is imported
    if torch is not None and isinstance(batches, torch.DataLoader):
        return from_loader(batches)
    if is_grain(batches):
        return from_grain(batches)
    if all(hasattr(iter(batches), name) for name in ("state", "restore")):
        return batches

    def epoch(number: int, skip: int) -> Iterator[PyTree]:
        if hasattr(batches, "set_epoch"):
            batches.set_epoch(number)
        return islice(iter(batches), skip, None)

    return Epochs(epoch)


def mapped(fn: Callable[[PyTree], PyTree], batches: Iterable[PyTree]) -> BatchStream:
    """``map(fn, batches)``, with the positions of ``batches``.

    Args:
      fn: from one batch to another.
      batches: pytrees, what ``stream`` takes.
    """
    inner = stream(batches)
    if isinstance(inner, Epochs):
        return Epochs(lambda number, skip: _each(fn, inner.epoch(number, skip)))
    return _Through(inner, lambda iterator: fn(next(iterator)))


def windows(batches: Iterable[PyTree], k: int, drop_last: bool = True) -> BatchStream:
    """``k`` microbatches at a time, stacked: the batches of ``accumulate=k``.

    PyTorch: ``torch.stack`` of what a ``torch.utils.data.DataLoader`` yields.

    Args:
      batches: microbatches of equal shapes ``(b, ...)``, of any dtype. What has epochs gives
        windows within an epoch; a stream without them gives the next ``k``.
      k: microbatches in a window, at least 1.
      drop_last: without the short window at the end of an epoch. With False it comes too, for
        ``JaxLoop(drop_last=False)``.

    Returns:
      A stream of ``instep.stack(window)``, with leaves ``(k, b, ...)``.

    Raises:
      ValueError: ``k`` is below 1; and from the stream, a window of unequal shapes.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k=}.")
    inner = stream(batches)
    if isinstance(inner, Epochs):
        return Epochs(lambda n, skip: _grouped(inner.epoch(n, skip * k), k, drop_last))
    return _Through(inner, lambda iterator: stack(list(_exactly(iterator, k, drop_last))))


def close_all(*iterators: Any) -> None:
    """``close()`` what has it, as generators and prefetching iterators do."""
    for iterator in iterators:
        if hasattr(iterator, "close"):
            iterator.close()


def _each(fn: Callable[[PyTree], PyTree], batches: Iterator[PyTree]) -> Iterator[PyTree]:
    try:
        for batch in batches:
            yield fn(batch)
    finally:
        close_all(batches)


def _grouped(batches: Iterator[PyTree], k: int, drop_last: bool) -> Iterator[PyTree]:
    try:
        while window := list(islice(batches, k)):
            if len(window) == k or not drop_last:
                yield stack(window)
    finally:
        close_all(batches)


def _exactly(iterator: BatchIterator, k: int, drop_last: bool) -> list[PyTree]:
    window = list(islice(iterator, k))
    if not window or (drop_last and len(window) < k):
        raise StopIteration
    return window


@dataclass(frozen=True)
class _Through:
    """What is made of the batches of another stream, whose positions are passed through."""

    inner: BatchStream
    take: Callable[[BatchIterator], PyTree]

    def __iter__(self) -> _ThroughIterator:
        return _ThroughIterator(iter(self.inner), self.take)


class _ThroughIterator:
    def __init__(self, inner: BatchIterator, take: Callable[[BatchIterator], PyTree]):
        self._inner, self._take = inner, take
        self.state, self.restore = inner.state, inner.restore

    def __iter__(self) -> _ThroughIterator:
        return self

    def __next__(self) -> PyTree:
        return self._take(self._inner)

    def close(self) -> None:
        close_all(self._inner)
