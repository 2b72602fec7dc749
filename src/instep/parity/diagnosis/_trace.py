"""Every array that the JAX step makes on its way, by a fingerprint that no layout changes."""

from __future__ import annotations

import sysconfig
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend.core import JaxprEqn

from .._interpret import Values, interpret, now
from .._lift import lift
from ._plain import plain


RELATIVE = 1e-9  # two fingerprints of the same numbers, summed in another order
MOST_AXES = 6  # of an array whose axes are searched for their order
FEW = 64  # numbers that are compared first
SMALL = 0.1  # of its numbers are smaller than what an array is measured by

# Code that no user wrote. The workloads are written as users write.
OWN = Path(__file__).parents[2]
LIBRARIES = (*map(Path, {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")}), OWN)


@dataclass(frozen=True)
class Fingerprint:
    """What is left of an array when its axes are moved: its size and its first moments."""

    size: int
    powers: tuple[float, ...]  # sums of |x|, x, x**3, over the size, in units of the largest
    largest: float
    smallest: float

    @staticmethod
    def of(x: np.ndarray) -> Fingerprint:
        x = x.astype(np.float64, copy=False).ravel()
        top = float(np.max(np.abs(x)))
        y = x / top if top else x
        square = y * y
        powers = (square.mean(), y.mean(), (square * y).mean(), (square * square).mean())
        return Fingerprint(x.size, tuple(map(float, powers)), top, float(y.min()))

    def near(self, other: Fingerprint, scaled: bool = False) -> bool:
        """Whether both may be the same numbers; ``scaled``: up to a positive factor."""
        if self.size != other.size:
            return False
        close = abs(self.largest - other.largest) <= RELATIVE * max(self.largest, other.largest)
        return (scaled or close) and all(
            abs(a - b) <= RELATIVE
            for a, b in zip(
                (*self.powers, self.smallest), (*other.powers, other.smallest), strict=True
            )
        )


def same_numbers(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether ``y`` is ``x`` with its axes in another order, merged or split.

    Each number is compared on its own scale and on that of the small ones: the largest may be
    what stands for minus infinity in a mask.
    """
    wanted, x = y.ravel(), x.squeeze()
    if x.ndim > MOST_AXES:
        return True
    sizes = np.abs(wanted)
    tolerance = RELATIVE * (sizes + np.quantile(sizes[sizes > 0], SMALL))
    for axes in permutations(range(x.ndim)):
        moved = x.transpose(axes)
        some = moved.flat[:FEW]  # most orders are wrong from the first numbers on
        if np.all(np.abs(some - wanted[:FEW]) <= tolerance[:FEW]) and (
            np.all(np.abs(moved.reshape(-1) - wanted) <= tolerance)
        ):
            return True
    return False


@dataclass(frozen=True)
class Value:
    """An array of the JAX step."""

    print: Fingerprint
    array: np.ndarray
    line: str  # of the source that made it
    made_of: tuple[int, ...]  # identities of its operands
    identity: int
    place: int  # among all values of the step


@dataclass
class Trace:
    """All values of a step, in the order in which they are made, and by their size."""

    values: list[Value] = field(default_factory=list)
    _alive: list[Any] = field(default_factory=list)  # no identity is given twice
    _sorted: dict[int, list[tuple[float, int]]] = field(default_factory=dict)

    def find(self, wanted: Fingerprint, scaled: bool = False) -> list[Value]:
        """The values that may be the same numbers in another layout."""
        if not self._sorted:
            for i, value in enumerate(self.values):
                key = value.print.powers[0]
                self._sorted.setdefault(value.print.size, []).append((key, i))
            for rows in self._sorted.values():
                rows.sort()
        rows, key = self._sorted.get(wanted.size, []), wanted.powers[0]
        found = []
        for there, i in rows[bisect_left(rows, (key - RELATIVE, -1)) :]:
            if there > key + RELATIVE:
                break
            if self.values[i].print.near(wanted, scaled):
                found.append(self.values[i])
        return found

    def uses(self, value: Value) -> list[Value]:
        """What is made of a value, in order."""
        after = self.values[value.place + 1 :]
        return [v for v in after if value.identity in v.made_of]


def trace(program: Callable, *args: Any) -> Trace:
    """Run ``program`` one operation at a time in float64, and keep what each of them made."""
    jaxpr = jax.make_jaxpr(program)(*args)
    seen = Trace()
    for x in jax.tree.leaves(args):
        _note(seen, x, "", ())

    def rule(eqn: JaxprEqn, operands: Values) -> Values:
        results = plain(eqn, operands) or lift(eqn, operands)
        for x in results:
            _note(seen, x, eqn, operands)
        return results

    watched = now(lambda made, of: _note(seen, made, "", of))
    interpret(jaxpr, jax.tree.leaves(args), rule, watched)
    return seen


def _note(seen: Trace, x: Any, eqn: JaxprEqn | str, operands: Any) -> None:
    seen._alive += [x, *operands]
    if not np.issubdtype(getattr(x, "dtype", np.int32), np.floating) or np.size(x) < 1:
        return
    array = np.asarray(x)
    if not np.isfinite(array).all():
        return
    line = eqn if isinstance(eqn, str) else source_line(eqn)
    made_of = tuple(map(id, operands))
    place = len(seen.values)
    seen.values.append(Value(Fingerprint.of(array), array, line, made_of, id(x), place))


def source_line(eqn: JaxprEqn) -> str:
    """``"model.py:31 (forward)"``: the innermost line that no library wrote."""
    traceback = eqn.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        path = Path(frame.file_name)
        foreign = any(path.is_relative_to(library) for library in LIBRARIES)
        if not foreign or path.is_relative_to(OWN / "workloads"):
            return f"{path.name}:{frame.line_num} ({frame.function_name})"
    return ""
