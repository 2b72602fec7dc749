"""The batches: whether they come again, and whether both sides get the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import jax
import numpy as np

from ..._loop import JaxLoop
from ..._trees import named_leaves
from ...bridge._tensors import batch_of, to_numpy
from .._settings import random_state_kept
from ._probe import Probe


MOST = 64  # batches of an epoch that are compared


def unsteady_batches(probe: Probe) -> Iterator[str]:
    """From one random state the batches of the PyTorch half come again."""
    first, second = (list(_microbatches(probe)) for _ in range(2))
    if len(first) != len(second):
        yield (
            f"the batches of the PyTorch half are {len(first)} the first time and "
            f"{len(second)} the second: a generator is used up after one pass. Give a list, a "
            f"DataLoader or a callable that returns a fresh iterator"
        )
        return
    for i, (once, again) in enumerate(zip(first, second, strict=True)):
        if not _same(once, again):
            yield (
                f"microbatch {i} of the PyTorch half is another one when it is iterated again "
                f"from the same random state ({_difference(once, again)}): something draws "
                f"outside of PyTorch's generators, or the batches go on where they stopped. "
                f"Draw with a torch.Generator, or give a list of the batches"
            )
            return


def other_order(probe: Probe) -> Iterator[str]:
    """``JaxLoop.batches``, where there are any, are those of the PyTorch half in its order."""
    half = probe.pair.jax
    if not isinstance(half, JaxLoop) or half.batches is None:
        return
    ours = [jax.tree.map(np.asarray, batch) for batch in islice(iter(half.batches), MOST)]
    theirs = _epoch(probe)
    wrong = next(
        (i for i, b in enumerate(ours) if i >= len(theirs) or not _same(b, theirs[i])), None
    )
    if wrong is None and len(ours) == len(theirs):
        return
    if wrong is None:
        yield (
            f"an epoch of the JAX half has {len(ours)} batches and one of the PyTorch half "
            f"{len(theirs)}; the first {min(len(ours), len(theirs))} agree. Set drop_last alike"
        )
        return
    difference = _difference(theirs[wrong], ours[wrong])
    where = next((j for j, batch in enumerate(theirs) if _same(ours[wrong], batch)), None)
    if Counter(map(_key, ours)) == Counter(map(_key, theirs)):
        found = f"the same {len(ours)} batches in another order"
    elif _examples(ours) == _examples(theirs):
        found = "the same examples in another order"
    else:
        found = "other values"
    there = "" if where is None else f", which is batch {where} of the PyTorch half"
    yield (
        f"the JAX half has {found}: the first that differs is batch {wrong}{there} "
        f"({difference}). Shuffle once, with one seed, and give both halves the result"
    )


def _microbatches(probe: Probe) -> Iterator[Any]:
    loop = probe.pair.torch
    with random_state_kept(loop):
        batches = loop.batches() if callable(loop.batches) else loop.batches
        for microbatch in islice(iter(batches), probe.steps * loop.accumulate):
            yield to_numpy(microbatch)


def _epoch(probe: Probe) -> list[Any]:
    """The batches of one epoch of the PyTorch half, as the JAX half would get them."""
    loop, found = probe.pair.torch, []
    with random_state_kept(loop):
        batches = iter(loop.batches() if callable(loop.batches) else loop.batches)
        while len(found) < MOST and (window := list(islice(batches, loop.accumulate))):
            if len(window) == loop.accumulate or not loop.drop_last:
                found.append(batch_of(window, probe.pair.batch, loop.accumulate))
    return found


def _arrays(batch: Any) -> list[np.ndarray]:
    """Floats in float32, integers in 64 bits: a cast is no other batch."""
    leaves = map(np.asarray, jax.tree.leaves(batch))
    return [
        x.astype(np.float32 if np.issubdtype(x.dtype, np.floating) else np.int64)
        if x.dtype.kind in "fiub"
        else x
        for x in leaves
    ]


def _same(a: Any, b: Any) -> bool:
    a, b = _arrays(a), _arrays(b)
    return len(a) == len(b) and all(map(np.array_equal, a, b))


def _key(batch: Any) -> tuple:
    return tuple((x.shape, x.tobytes()) for x in _arrays(batch))


def _examples(batches: list[Any]) -> Counter:
    """How often each row of all batches is there."""
    return Counter(
        tuple(x[i].tobytes() for x in leaves)
        for batch in batches
        for leaves in [_arrays(batch)]
        for i in range(min((len(x) for x in leaves if x.ndim), default=0))
        if all(x.ndim for x in leaves)
    )


def _difference(a: Any, b: Any) -> str:
    """``leaf 0: max|d| 2.1``"""
    names = list(named_leaves(a)) if a is not None else []
    for name, x, y in zip(names, _arrays(a), _arrays(b), strict=False):
        if x.shape != y.shape:
            return f"leaf {name or 0}: shape {x.shape} and {y.shape}"
        if not np.array_equal(x, y):
            return f"leaf {name or 0}: max|d| {np.abs(x - y).max():.2g}"
    return "other leaves"
