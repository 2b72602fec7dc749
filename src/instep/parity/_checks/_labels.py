"""Integers of a batch that point outside of what they index: JAX clamps, wraps or gives NaN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

from ..._state import PyTree
from ..._trees import named_leaves
from .._interpret import Values
from ._jaxpr import Run, equations, recording
from ._probe import Probe


LOOKUPS = ("gather", "dynamic_slice")


def labels(probe: Probe) -> Iterator[str]:
    """Integers of the batch are used as indices and as classes in range only.

    But for those that PyTorch's loss ignores: whether JAX ignores them too, a walk shows.
    """
    if not any(_looks_up(eqn) for eqn in equations(probe.jaxpr)):
        return
    told: set[tuple] = set()

    def walked(state: PyTree, batch: PyTree) -> None:
        probe.step(state, batch)

    step = recording(walked, _integers)
    for n, batch in enumerate(probe.batches, 1):
        integers = {
            name: np.asarray(x)
            for name, x in named_leaves(batch).items()
            if np.issubdtype(np.asarray(x).dtype, np.integer)
        }
        if not integers:
            continue
        for run in step(probe.state(), batch)[1]:
            for found, size in _indices(run):
                for name, wrong in _outside(found, size, integers, probe.torch.ignored):
                    if (name, size) not in told:
                        told.add((name, size))
                        yield (
                            f"batch leaf {name or 0} has {wrong} at step {n}, and indexes "
                            f"{size} entries, 0 to {size - 1}: {_effect(run.eqn)}. Correct the "
                            f"labels, or give what is to be ignored a weight of 0 "
                            f"(ignore_index)"
                        )


def _looks_up(eqn: JaxprEqn) -> bool:
    return eqn.primitive.name in LOOKUPS or _is_one_hot(eqn)


def _integers(eqn: JaxprEqn, values: Values, made: Values) -> Values | None:
    """Of a lookup the indices, of an equality both sides."""
    if not _looks_up(eqn):
        return None
    return values if eqn.primitive.name == "eq" else values[1:]


def _is_one_hot(eqn: JaxprEqn) -> bool:
    """``labels[..., None] == arange(n)``"""
    if eqn.primitive.name != "eq" or len(eqn.invars) != 2:
        return False
    a, b = (getattr(x.aval, "shape", ()) for x in eqn.invars)
    integers = all(
        np.issubdtype(getattr(x.aval, "dtype", bool), np.integer) for x in eqn.invars
    )
    return bool(integers and a and b and a[-1] == 1 and b[-1] > 1)


def _indices(run: Run) -> Iterator[tuple[np.ndarray, int]]:
    """What indexes an axis, and how many places there are on it."""
    if run.eqn.primitive.name == "eq":
        asked, classes = run.kept
        if np.array_equal(classes.ravel(), np.arange(classes.size)):
            yield asked, classes.size
        return
    shape, sizes = run.eqn.invars[0].aval.shape, run.eqn.params["slice_sizes"]  # pyright: ignore
    axes, starts = range(len(shape)), run.kept
    if run.eqn.primitive.name == "gather":
        axes = run.eqn.params["dimension_numbers"].start_index_map
        starts = [run.kept[0][..., i] for i in range(len(axes))]
    for axis, start in zip(axes, starts, strict=True):
        yield start, shape[axis] - sizes[axis] + 1


def _outside(
    found: np.ndarray, size: int, integers: dict[str, Any], ignored: set[int]
) -> Iterator[tuple[str, str]]:
    """The batch leaves that these indices come from, if a value of them is out of range.

    Before it looks up, JAX adds ``size`` to negative numbers, as Python does.
    """
    asked = set(found.ravel().tolist())
    outside = {i for i in asked if not 0 <= i < size}
    for name, x in integers.items():
        values = set(x.ravel().tolist())
        wrong = {v for v in values if v in outside or (v < 0 and v + size in outside)}
        if not wrong and min(values, default=0) < 0 and _wrapped(found, size, x):
            wrong = {v for v in values if v < 0}
        wrong -= ignored
        if wrong:
            n = int(np.isin(x, list(wrong)).sum())
            yield name, f"{n} of {x.size} values out of range (such as {min(wrong)})"


def _wrapped(found: np.ndarray, size: int, leaf: np.ndarray) -> bool:
    """Whether these are the leaf, or a microbatch of it, with negatives counted back."""
    wrapped = np.where(leaf < 0, leaf + size, leaf)
    microbatches = zip(leaf, wrapped, strict=True) if leaf.ndim > 1 else ()
    return any(
        np.any(own < 0) and np.array_equal(found.ravel(), part.ravel())
        for own, part in ((leaf, wrapped), *microbatches)
    )


def _effect(eqn: JaxprEqn) -> str:
    if eqn.primitive.name == "eq":
        return "jax.nn.one_hot makes a row of zeros of it, where PyTorch raises"
    if eqn.primitive.name == "dynamic_slice":
        return "JAX moves it into range, where PyTorch raises"
    mode = str(eqn.params.get("mode")).rpartition(".")[2]
    if "FILL" in mode:
        return "JAX gives NaN, or counts a negative one from the end, where PyTorch raises"
    return "JAX takes the nearest entry, where PyTorch raises"
