"""Batches on the device ahead of their use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax

from .._state import PyTree
from ._stream import BatchIterator, BatchStream, close_all, stream


def prefetch(batches: Iterable[PyTree], size: int = 2, sharding: Any = None) -> BatchStream:
    """A stream whose batches a thread makes, and puts on the device, before they are asked for.

    PyTorch: ``pin_memory=True`` and ``Tensor.to(device, non_blocking=True)``. The position is
    that after the batches taken, not after those ahead. An error of the thread is raised where
    its batch would have been taken. ``close()`` of the iterator ends the thread.

    Args:
      batches: pytrees, what ``stream`` takes.
      size: batches ahead, at least 1.
      sharding: a ``jax.sharding.Sharding``, or a tree of them that is a prefix of a batch;
        None: the default device, for what is on none. With several processes every one gives
        its own part of the batch.

    Raises:
      ValueError: ``size`` is below 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1; got {size=}.")
    return _Prefetch(stream(batches), size, sharding)


@dataclass(frozen=True)
class _Prefetch:
    inner: BatchStream
    size: int
    sharding: Any

    def __iter__(self) -> _PrefetchIterator:
        return _PrefetchIterator(iter(self.inner), self.size, self.sharding)


class _PrefetchIterator:
    def __init__(self, inner: BatchIterator, size: int, sharding: Any):
        self._inner, self._size, self._sharding = inner, size, sharding
        self._state = inner.state()
        self._thread: threading.Thread | None = None

    def __iter__(self) -> _PrefetchIterator:
        return self

    def __next__(self) -> PyTree:
        if self._thread is None:
            self._start()
        batch, state, error = self._ready.get()
        if error is not None:
            self._ready.put((None, None, error))  # and again, if it is asked for again
            raise error
        self._state = state
        return batch

    def state(self) -> Any:
        return self._state

    def restore(self, state: Any) -> None:
        self._stop()
        self._inner.restore(state)
        self._state = state

    def close(self) -> None:
        if self._thread is not None:
            self.restore(self._state)  # what is ahead is forgotten
        close_all(self._inner)

    def __del__(self):
        if getattr(self, "_thread", None) is not None:
            self._stopping.set()

    def _start(self) -> None:
        self._ready: queue.Queue = queue.Queue(self._size)
        self._stopping = threading.Event()
        # What a thread of its own would not know of the settings around the consumer.
        config: Any = jax.config
        settings = config.jax_enable_x64, config.jax_default_device
        self._thread = threading.Thread(
            target=_fill,
            args=(self._inner, self._sharding, self._ready, self._stopping, settings),
            name="instep-prefetch",
            daemon=True,
        )
        self._thread.start()

    def _stop(self) -> None:
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join()
        self._thread = None


def _fill(inner, sharding, ready, stopping, settings) -> None:
    x64, device = settings
    item: tuple[Any, Any, BaseException | None]
    with jax.enable_x64(x64), jax.default_device(device):
        while not stopping.is_set():
            try:
                batch = _placed(next(inner), sharding)
                item = batch, inner.state(), None
            except BaseException as error:
                item = None, None, error
            while not stopping.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if item[2] is not None:
                return


def _placed(batch: PyTree, sharding: Any) -> PyTree:
    if sharding is None:
        return jax.tree.map(
            lambda x: x if isinstance(x, jax.Array) else jax.device_put(x), batch
        )
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(
        lambda where, part: jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(where, x), part
        ),
        sharding,
        batch,
    )
