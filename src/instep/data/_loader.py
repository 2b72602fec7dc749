"""Batches from a PyTorch DataLoader, in an order that a seed decides."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from .._compat import require
from .._state import PyTree
from ._stream import Epochs


if TYPE_CHECKING:
    from torch.utils.data import DataLoader


def from_loader(loader: DataLoader, seed: int = 0) -> Epochs:
    """A stream of the batches of a ``torch.utils.data.DataLoader``, as NumPy arrays.

    The order of an epoch is a function of the seed and the epoch: it is that of the loader's
    sampler, whose randomness is seeded by them, and a sampler with ``set_epoch``, such as
    ``DistributedSampler(dataset, jax.process_count(), jax.process_index())``, is told the
    epoch. What the dataset draws from the global generators of ``torch``, ``numpy`` and
    ``random`` (augmentation) is a function of the seed, the epoch and the place of the batch,
    whatever the number of workers. So a training that stops in mid-epoch goes on with the same
    batches; those before are not loaded. An iterable dataset can only be read again from its
    start, and what it draws is its own.

    Args:
      loader: read for its dataset, samplers, ``collate_fn`` and workers; it is not iterated,
        and its generator is left as it is. Workers are started by spawn where
        ``multiprocessing_context`` does not say otherwise, since a fork copies JAX's threads
        half; they stay alive from epoch to epoch.
      seed: of order and augmentation. Without workers the global generators are seeded while a
        batch is made, and then as they were; inside ``prefetch`` that is in another thread.

    Raises:
      MissingExtraError: PyTorch is not installed.
    """
    require("torch", "instep.data.from_loader")
    from torch.utils.data import IterableDataset

    if isinstance(loader.dataset, IterableDataset):
        return Epochs(lambda number, skip: _read_through(loader, seed, number, skip))
    return Epochs(_MapLoader(loader, seed).epoch)


class _MapLoader:
    """Epochs over a dataset with indices: what is skipped is not loaded."""

    def __init__(self, loader: DataLoader, seed: int):
        import torch

        self._loader, self._seed = loader, seed
        self._order: list[tuple[int, int, Any]] = []  # of the epoch, changed in place
        self._batches = _like(
            loader,
            dataset=_Drawn(loader.dataset, seed),
            sampler=self._order,
            batch_size=None,
            generator=torch.Generator(),  # else each epoch would draw from the global one
        )

    def epoch(self, number: int, skip: int) -> Iterator[PyTree]:
        order = _order(self._loader, self._seed, number)
        keys = [(number, place, index) for place, index in enumerate(order)]
        self._order[:] = keys[skip:]
        yield from _arrays(self._batches)


@dataclass(frozen=True)
class _Drawn:
    """A dataset whose random numbers are a function of the seed, the epoch and the place."""

    dataset: Any
    seed: int

    def __getitem__(self, key: tuple[int, int, Any]) -> Any:
        epoch, place, index = key
        with _seeded(self.seed, epoch, place):
            if not isinstance(index, list):
                return self.dataset[index]
            if hasattr(self.dataset, "__getitems__"):
                return self.dataset.__getitems__(index)
            return [self.dataset[i] for i in index]


def _order(loader: DataLoader, seed: int, epoch: int) -> list[Any]:
    """The indices of every batch of an epoch, as the samplers of ``loader`` give them."""
    batches = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
    inner = getattr(batches, "sampler", None)
    owners = [loader, batches, inner]
    for owner in owners:
        if hasattr(owner, "set_epoch"):
            owner.set_epoch(epoch)
    own = {id(g): g for x in owners if (g := getattr(x, "generator", None)) is not None}
    with _seeded(seed, epoch, generators=tuple(own.values())):
        return list(batches)  # pyright: ignore[reportArgumentType]


def _read_through(loader: DataLoader, seed: int, epoch: int, skip: int) -> Iterator[PyTree]:
    import torch

    if hasattr(loader.dataset, "set_epoch"):
        loader.dataset.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
    batches = _like(
        loader,
        dataset=loader.dataset,
        batch_size=loader.batch_size,
        drop_last=loader.drop_last,
        generator=torch.Generator().manual_seed(_mixed(seed, epoch)[0]),  # of the workers
    )
    yield from islice(_arrays(batches), skip, None)


def _like(loader: DataLoader, **changes: Any) -> DataLoader:
    from torch.utils.data import DataLoader

    if loader.num_workers:
        changes |= {
            "multiprocessing_context": loader.multiprocessing_context or "spawn",
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": True,
        }
    return DataLoader(
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        **changes,
    )


def _arrays(batches: DataLoader) -> Iterator[PyTree]:
    from ..bridge._tensors import to_numpy

    for batch in batches:
        yield to_numpy(batch)


@contextlib.contextmanager
def _seeded(*numbers: int, generators: tuple[Any, ...] = ()) -> Iterator[None]:
    """The global generators, and ``generators``, seeded by ``numbers``; then as they were."""
    import torch

    torch_seed, seed = _mixed(*numbers)
    generators = (*generators, torch.default_generator)
    before = [g.get_state() for g in generators], random.getstate(), np.random.get_state()
    for generator in generators:
        generator.manual_seed(torch_seed)
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, before[0], strict=True):
            generator.set_state(state)
        random.setstate(before[1])
        np.random.set_state(before[2])


def _mixed(*numbers: int) -> list[int]:
    """Two seeds of 32 bits that are a function of ``numbers``."""
    return np.random.SeedSequence(numbers).generate_state(2).tolist()
