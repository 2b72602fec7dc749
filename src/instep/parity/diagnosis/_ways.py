"""The ways in which the mistakes of the catalogue may have been made in a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from . import catalogue as _  # noqa: F401  every row registers itself
from ._evidence import Evidence
from ._mistake import CATALOGUE, Dial, Mistake, Variant
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
        return (one for one in self.tried if _parts_of(one.variant) & parts)

    def dials(self, part: str, evidence: Evidence) -> Iterator[Turned]:
        """As ``of``."""
        parts = _hidden_before(part, evidence) | {part}
        return (one for one in self.turned if _parts_of(one.dial.turn(one.dial.own)) & parts)


def ways(evidence: Evidence) -> Ways:
    """Every way of every mistake."""
    made = [(row, one) for row in CATALOGUE.values() for one in row.variants(evidence)]
    return Ways(
        [Tried(row, one) for row, one in made if isinstance(one, Variant)],
        [Turned(row, one) for row, one in made if isinstance(one, Dial)],
    )


def _hidden_before(part: str, evidence: Evidence) -> set[str]:
    names = list(PARTS)
    hidden = {
        before
        for before in names[: names.index(part)]
        if not any(evidence.shows(kind) for kind in PARTS[before] if kind != "loss")
    }
    shown = part == "backward" or evidence.shows("gradient")
    return hidden if shown else hidden | {"backward"}


def _parts_of(variant: Variant) -> set[str]:
    return {PART_OF[hook] for hook in variant.changes}
