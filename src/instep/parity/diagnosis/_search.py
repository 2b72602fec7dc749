"""Which mistakes make of PyTorch's step the one that JAX took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np

from .._judge import distance
from .._leaf import Leaf, Observation
from .._records import Cause, Explanation, Unexplained
from . import catalogue as _  # noqa: F401  every row registers itself
from ._agree import disagreeing, errors
from ._evidence import Evidence
from ._mistake import CATALOGUE, Mistake, Variant
from ._place import Place, backward_place, forward_place, reached
from ._step import PART_OF, PARTS, Step, loss, replay
from ._trace import Trace, trace


MOST = 6  # causes of one diagnosis


class Tried(NamedTuple):
    """A mistake, made in one way."""

    mistake: Mistake
    variant: Variant


@dataclass
class Diagnosis:
    """Looks for causes, and keeps those that it has confirmed."""

    evidence: Sequence[Evidence]
    causes: list[Cause] = field(default_factory=list)
    unexplained: list[Unexplained] = field(default_factory=list)
    step: Step = field(default_factory=Step)  # PyTorch's, with the mistakes found so far
    refused: list[tuple[Step, Exception]] = field(default_factory=list)  # by PyTorch itself
    failed: str | None = None  # why it ended early
    _known: list[Tried] = field(default_factory=list)
    _traces: dict[int, Trace] = field(default_factory=dict)

    def look(self) -> Diagnosis:
        """Explain every part of every step, the first one first."""
        for evidence in self.evidence:
            for part in PARTS:
                if not (part == "optimizer" and evidence.takes_closure):
                    self._explain(part, evidence)
        return self

    def _explain(self, part: str, evidence: Evidence) -> None:
        while wrong := disagreeing(part, evidence, self.step, PARTS[part]):
            given_up = any(x.part == part for x in self.unexplained)
            if given_up or len(self.causes) >= MOST:
                return
            wrong = _first_kind(part, wrong)
            found = (
                self._single(part, evidence, wrong)
                or self._by_place(evidence, wrong)
                or self._pair(part, evidence, wrong)
            )
            if not found:
                place = str(self._place(evidence) or "") if part == "backward" else ""
                self.unexplained.append(Unexplained(part, evidence.n, tuple(wrong), place))
                return
            for explanations in found:
                self._adopt(part, evidence, wrong, explanations)

    def _adopt(
        self, part: str, evidence: Evidence, wrong: list[Leaf], found: list[Tried]
    ) -> None:
        found, steps = self._most_often(part, evidence, wrong, found)
        there = ""
        if "call" in found[0].variant.changes and wrong[0].kind == "loss":
            there = str(self._place(evidence) or "")
        before = replay(part, evidence, self.step)
        self.step = self.step.but(found[0].variant)
        after = replay(part, evidence, self.step)
        still = set(disagreeing(part, evidence, self.step, PARTS[part]))
        leaves = tuple(leaf for leaf in wrong if leaf not in still) or tuple(wrong)
        self.causes.append(
            Cause(
                part,
                tuple(dict.fromkeys(map(_said, found))),
                leaves,
                steps,
                max(_error(evidence, before, leaf) for leaf in leaves),
                max(_error(evidence, after, leaf) for leaf in leaves),
                there,
            )
        )

    def _single(self, part: str, evidence: Evidence, wrong: list[Leaf]) -> list[list[Tried]]:
        """The mistakes that alone mend the most of what is wrong, and break nothing."""
        best: list[Tried] = []
        score = (0, 0)
        for one in self._candidates(part, evidence):
            mends = self._mends(part, evidence, wrong, self.step.but(one.variant))
            if not mends or mends < score:
                continue
            best = [*best, one] if mends == score else [one]
            score = mends
        return [best] if best else []

    def _mends(
        self, part: str, evidence: Evidence, wrong: list[Leaf], step: Step
    ) -> tuple[int, int] | None:
        """How many leaves that are wrong now come right, and how many of later kinds do not.

        None: none does, or others go wrong, or PyTorch refuses to take such a step.
        """
        try:
            return self._tried(part, evidence, wrong, step)
        except (ValueError, RuntimeError, IndexError, KeyError, TypeError) as error:
            self.refused.append((step, error))
            return None

    def _tried(
        self, part: str, evidence: Evidence, wrong: list[Leaf], step: Step
    ) -> tuple[int, int] | None:
        kinds = PARTS[part]
        upto = kinds[: kinds.index(wrong[0].kind) + 1]
        forward = part == "backward" and step.changes("window", "call", "report")
        if forward and errors(evidence, loss(evidence, step), ("loss",)):
            return None  # what a backward pass would show is not needed
        still = disagreeing(part, evidence, step, upto)
        local = bool(step.variants[-1].where)  # others may be at work elsewhere
        if not set(still) < set(wrong) or (still and not local):
            return None
        rest = disagreeing(part, evidence, step, kinds[len(upto) :])
        return len(wrong) - len(still), -len(rest)

    def _most_often(
        self, part: str, evidence: Evidence, wrong: list[Leaf], found: list[Tried]
    ) -> tuple[list[Tried], tuple[int, ...]]:
        """Those that explain the most steps, the special ones last; and these steps."""
        kinds = {leaf.kind for leaf in wrong}

        def explained(one: Tried) -> tuple[int, ...]:
            step = self.step.but(one.variant)
            others = (e for e in self.evidence if e is not evidence)
            right = [e.n for e in others if not disagreeing(part, e, step, kinds)]
            return tuple(sorted([evidence.n, *right]))

        steps = [explained(one) for one in found]
        most = max(steps, key=len)
        kept = [x for x, n in zip(found, steps, strict=True) if len(n) == len(most)]
        return sorted(kept, key=lambda x: x.mistake.special), most

    def _pair(self, part: str, evidence: Evidence, wrong: list[Leaf]) -> list[list[Tried]]:
        """Two mistakes that only together explain what is wrong."""
        ones = [x for x in self._candidates(part, evidence) if "call" not in x.variant.changes]
        for a, b in combinations(ones, 2):
            if a.mistake is b.mistake:
                continue
            step = self.step.but(a.variant, b.variant)
            mends = self._mends(part, evidence, wrong, step)
            if mends and mends[0] == len(wrong):
                return [[a], [b]]
        return []

    def _by_place(self, evidence: Evidence, wrong: list[Leaf]) -> list[list[Tried]]:
        """Forward mistakes one after the other: each lets more of the pass be found in JAX."""
        if wrong[0].kind != "loss":
            return []
        found: list[list[Tried]] = []
        seen, step = self._trace(evidence), self.step
        there = reached(seen, evidence, step)
        known = list(self._candidates("backward", evidence))
        while True:
            ones = [x for x in known if there in x.variant.calls]  # they change what is lost
            places = [self._reached(seen, evidence, step.but(x.variant)) for x in ones]
            farthest = max(places, default=there)
            if farthest <= there:
                return self._also(found, step, evidence, wrong)
            best = [x for x, n in zip(ones, places, strict=True) if n == farthest]
            found.append(best)
            step, there = step.but(best[0].variant), farthest
            if not errors(evidence, loss(evidence, step), ("loss",)):
                return found
            if len(found) + len(self.causes) >= MOST:
                return []

    def _also(
        self, found: list[list[Tried]], step: Step, evidence: Evidence, wrong: list[Leaf]
    ) -> list[list[Tried]]:
        """``found`` and the mistake outside the forward pass that explains the rest of it."""
        if not found:
            return []
        kept, self.step = self.step, step
        rest = self._single("backward", evidence, wrong)
        self.step = kept
        return [*found, *rest] if rest else []

    def _reached(self, seen: Trace, evidence: Evidence, step: Step) -> int:
        try:
            return reached(seen, evidence, step)
        except (ValueError, RuntimeError, IndexError, KeyError, TypeError) as error:
            self.refused.append((step, error))
            return -1

    def _trace(self, evidence: Evidence) -> Trace:
        if evidence.n not in self._traces:
            assert evidence.program is not None
            try:
                self._traces[evidence.n] = trace(
                    evidence.program, evidence.state, evidence.batch
                )
            except Exception as error:  # the user's program, run as it is not meant to be
                self.refused.append((self.step, error))
                self._traces[evidence.n] = Trace()
        return self._traces[evidence.n]

    def _place(self, evidence: Evidence) -> Place | None:
        seen = self._trace(evidence)
        if not seen.values:
            return None
        there = forward_place(seen, evidence, self.step)
        return there or backward_place(seen, evidence, self.step)

    def _candidates(self, part: str, evidence: Evidence) -> Iterator[Tried]:
        """Mistakes in this part, and in those before it of which JAX shows nothing."""
        parts = {part}
        for before in list(PARTS)[: list(PARTS).index(part)]:
            if not any(evidence.shows(kind) for kind in PARTS[before] if kind != "loss"):
                parts.add(before)
        if part != "backward" and not evidence.shows("gradient"):
            parts.add("backward")
        if not self._known:  # once: a replay is kept under the identity of its variants
            self._known = [
                Tried(mistake, variant)
                for mistake in CATALOGUE.values()
                for variant in mistake.variants(evidence)
            ]
        for one in self._known:
            if any(PART_OF[hook] in parts for hook in one.variant.changes):
                yield one


def _first_kind(part: str, wrong: list[Leaf]) -> list[Leaf]:
    kind = next(kind for kind in PARTS[part] if any(leaf.kind == kind for leaf in wrong))
    return [leaf for leaf in wrong if leaf.kind == kind]


def _said(one: Tried) -> Explanation:
    mistake, variant = one
    return Explanation(mistake.name, mistake.says, mistake.fix, variant.where, variant.value)


def _error(evidence: Evidence, made: Observation, leaf: Leaf) -> float:
    """Of JAX's leaf against ``made``, over its maximum; infinite if it is not there."""
    if leaf not in made:
        return np.inf
    error, largest = distance(evidence.seen[leaf], made[leaf]), np.max(np.abs(made[leaf]))
    return float(error / largest) if largest else float(error)
