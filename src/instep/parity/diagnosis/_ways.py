"""The ways in which the mistakes of the catalogue may have been made in a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from . import catalogue as _  # noqa: F401  every row registers itself
from ._evidence import Evidence
from ._mistake import CATALOGUE, REFUSALS, Dial, Mistake, Variant
from ._step import PART_OF, PARTS


class Tried(NamedTuple):
    """A mistake, made in one way."""

    mistake: Mistake
    variant: Variant


class Turned(NamedTuple):
    """A mistake that is made by turning a dial."""

    mistake: Mistake
    dial: Dial


@dataclass(frozen=True)
class Ways:
    """All of them, made once for a step: replays are kept under the identity of a variant."""

    tried: list[Tried]
    turned: list[Turned]

    def of(self, part: str, evidence: Evidence) -> Iterator[Tried]:
        """Those in this part, and in the ones before it of which JAX shows nothing."""
        parts = _hidden_before(part, evidence) | {part}
        return (one for one in self.tried if _part_of(one.variant) in parts)

    def dials(self, part: str, evidence: Evidence) -> Iterator[Turned]:
        """As ``of``."""
        parts = _hidden_before(part, evidence) | {part}
        return (one for one in self.turned if _part_of(one.dial.turn(one.dial.own)) in parts)


def ways(evidence: Evidence) -> Ways:
    """Every way of every mistake."""
    tried, turned = [], []
    for row in CATALOGUE.values():
        try:
            for one in row.variants(evidence):
                if isinstance(one, Dial):
                    turned.append(Turned(row, one))
                else:
                    tried.append(Tried(row, one))
        except REFUSALS:
            continue  # a call that the row does not know: what it made so far counts
    return Ways(tried, turned)


def _hidden_before(part: str, evidence: Evidence) -> set[str]:
    names = list(PARTS)
    hidden = {
        before
        for before in names[: names.index(part)]
        if not any(evidence.shows(kind) for kind in PARTS[before] if kind != "loss")
    }
    shown = part == "backward" or evidence.shows("gradient")
    return hidden if shown else hidden | {"backward"}


def _part_of(variant: Variant) -> str:
    """The first part of the step that it changes: there it must be seen."""
    return min((PART_OF[hook] for hook in variant.changes), key=list(PARTS).index)
