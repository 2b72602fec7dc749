"""A mistake that can be replayed: one row of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ._evidence import Evidence


@dataclass(frozen=True)
class Variant:
    """One way of making a mistake.

    Args:
      changes: by hook, what it makes of that part of the step; ``_step`` has the list.
      where: module path or name of a leaf; "" where it is everywhere.
      value: what the step was given instead, ``"eps=1e-6"``.
      calls: numbers of the calls of the forward pass that it changes.
      told: its value was told by the numbers of this step: other steps must say the same.
    """

    changes: Mapping[str, Callable[..., Any]]
    where: str = ""
    value: str = ""
    calls: frozenset[int] = frozenset()
    told: bool = False


@dataclass(frozen=True)
class Dial:
    """A setting that may have had any other value: it is told by what JAX made with it.

    Args:
      turn: value -> the step with that value.
      own: PyTorch's.
      calls: as of a ``Variant``.
    """

    turn: Callable[[float], Variant]
    own: float
    calls: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Mistake:
    """A row: what people do, and what to do about it.

    Args:
      name: of the function that makes its variants, and of its page.
      says: what happened, one sentence.
      fix: one sentence.
      variants: the ways in which it may have been made in this step, and dials.
      special: it can imitate others, and is believed only if none of them explains the step.
    """

    name: str
    says: str
    fix: str
    variants: Callable[[Evidence], Iterable[Variant | Dial]]
    special: bool = False


# What PyTorch raises of a step that cannot be taken with a mistake.
REFUSALS = (
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    AssertionError,
)

CATALOGUE: dict[str, Mistake] = {}

Rows = Callable[[Evidence], Iterator[Variant | Dial]]


def mistake(fix: str, special: bool = False) -> Callable[[Rows], Rows]:
    """Enter a function into the catalogue; its docstring says what happened."""

    def enter(variants: Rows) -> Rows:
        says = " ".join((variants.__doc__ or "").split())
        CATALOGUE[variants.__name__] = Mistake(variants.__name__, says, fix, variants, special)
        return variants

    return enter
