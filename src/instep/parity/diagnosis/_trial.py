"""One part of one step that is wrong, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from time import process_time

import numpy as np

from .._leaf import Leaf, Observation
from ._agree import FAR, disagreeing, errors
from ._evidence import Evidence
from ._fit import fitted, off_by
from ._mistake import REFUSALS, Variant
from ._passes import loss
from ._place import reached, suspects
from ._replay import replay
from ._step import PARTS, Step
from ._trace import Trace
from ._ways import Tried, Turned, Ways


NEAREST = 8  # mistakes that are tried together with every other


class OutOfTime(Exception):
    """The search has computed for long enough."""


Found = list[list[Tried]]  # the mistakes that together explain it, each as the ways that do


@dataclass(frozen=True)
class Trial:
    """What the search knows.

    Args:
      part: a key of PARTS.
      evidence: of the step that JAX took.
      step: PyTorch's, with the mistakes found so far.
      wrong: the leaves of one kind in which the two are not the same.
      ways: all that may have been done wrong.
      seen: every array of the JAX step.
      most: mistakes that may be named.
      refused: what PyTorch would not do, and why.
      end: when to stop, of ``time.process_time``.
    """

    part: str
    evidence: Evidence
    step: Step
    wrong: list[Leaf]
    ways: Ways
    seen: Trace
    most: int
    refused: list[tuple[Step, Exception]]
    end: float = np.inf

    @property
    def of_loss(self) -> bool:
        """Whether the forward pass is wrong already."""
        return self.wrong[0].kind == "loss"

    def found(self) -> Found:
        """What explains it; nothing, if nothing does."""
        return self._single() or self._by_place() or self._by_dial() or self._pair()

    def still(self, evidence: Evidence, step: Step, kinds: Iterable[str]) -> set[Leaf]:
        """The leaves of ``kinds`` that disagree; all that are wrong, if PyTorch refuses."""
        try:
            return set(disagreeing(self.part, evidence, step, list(kinds)))
        except REFUSALS as error:
            self.refused.append((step, error))
            return set(self.wrong)

    def _single(self) -> Found:
        """The mistakes that alone mend the most of what is wrong, and break nothing."""
        candidates = list(self.ways.of(self.part, self.evidence))
        if not self.of_loss:
            return self._best(candidates)
        there = self._reached(self.step)
        near = [x for x in candidates if not x.variant.calls or there in x.variant.calls]
        if found := self._best(near):
            return found
        around = suspects(self.seen, self.evidence, self.step)
        others = [x for x in candidates if x not in near]
        close = [x for x in others if x.variant.calls & around]
        return self._best(close) or self._best([x for x in others if x not in close])

    def _best(self, candidates: list[Tried]) -> Found:
        best: list[Tried] = []
        score = (0, 0)
        for one in candidates:
            mends = self._mends(self.step.but(one.variant))
            if not mends or mends < score:
                continue
            best = [*best, one] if mends == score else [one]
            score = mends
        return [best] if best else []

    def _mends(self, step: Step) -> tuple[int, int] | None:
        """How many leaves that are wrong now come right, and how many of later kinds do not.

        None: none does, or others go wrong, or PyTorch refuses to take such a step.

        Raises:
          OutOfTime: it is late.
        """
        self._check_time()
        try:
            return self._tried(step)
        except REFUSALS as error:
            self.refused.append((step, error))
            return None

    def _tried(self, step: Step) -> tuple[int, int] | None:
        kinds = PARTS[self.part]
        upto = kinds[: kinds.index(self.wrong[0].kind) + 1]
        if self.part == "backward":
            off = errors(self.evidence, loss(self.evidence, step), ("loss",))
            if (off and self.of_loss) or any(ratio > FAR for ratio in off.values()):
                return None  # what a backward pass would show is not needed
        still = disagreeing(self.part, self.evidence, step, upto)
        local = bool(step.variants[-1].where)  # others may be at work elsewhere
        if not set(still) < set(self.wrong) or (still and not local):
            return None
        rest = disagreeing(self.part, self.evidence, step, kinds[len(upto) :])
        return len(self.wrong) - len(still), -len(rest)

    def _by_place(self) -> Found:
        """Forward mistakes one after the other: each lets more of the pass be found in JAX."""
        if not self.of_loss:
            return []
        found: Found = []
        step, there = self.step, self._reached(self.step)
        known = list(self.ways.of("backward", self.evidence))
        while True:
            ones = [x for x in known if there in x.variant.calls]  # they change what is lost
            places = [self._reached(step.but(x.variant)) for x in ones]
            farthest = max(places, default=there)
            if farthest <= there:
                rest = replace(self, step=step)._single() if found else []
                return [*found, *rest] if rest else []
            best = [x for x, n in zip(ones, places, strict=True) if n == farthest]
            found.append(best)
            step, there = step.but(best[0].variant), farthest
            if not errors(self.evidence, loss(self.evidence, step), ("loss",)):
                return found
            if len(found) >= self.most:
                return []

    def _reached(self, step: Step) -> int:
        self._check_time()
        try:
            return reached(self.seen, self.evidence, step)
        except REFUSALS as error:
            self.refused.append((step, error))
            return -1

    def _by_dial(self) -> Found:
        """The settings that alone explain all that is wrong, or all of one optimizer slot."""
        dials = list(self.ways.dials(self.part, self.evidence))
        if self.of_loss:
            there = self._reached(self.step)
            dials = [x for x in dials if not x.dial.calls or there in x.dial.calls]
        slots = dict.fromkeys(leaf.name.rpartition(".")[2] for leaf in self.wrong)
        parts = [[x for x in self.wrong if x.name.rpartition(".")[2] == s] for s in slots]
        apart = self.wrong[0].kind == "state" and len(parts) > 1
        for leaves in [self.wrong, *(parts if apart else ())]:
            settings = [one for dial in dials if (one := self._turned(leaves, dial))]
            if settings:
                return [settings]
        return []

    def _turned(self, leaves: list[Leaf], turned: Turned) -> Tried | None:
        """The mistake, with the value that explains ``leaves`` and breaks nothing."""
        evidence, kinds = self.evidence, PARTS[self.part]

        def replayed(variant: Variant) -> Observation:
            return self._replayed(self.step.but(variant))

        try:
            before = set(disagreeing(self.part, evidence, self.step, kinds))
            for variant in fitted(turned.dial, replayed, evidence, leaves):
                after = disagreeing(self.part, evidence, self.step.but(variant), kinds)
                gradients = self.of_loss and any(x.kind == "gradient" for x in after)
                if set(after) <= before - set(leaves) and not gradients:
                    return Tried(turned.mistake, variant)
        except REFUSALS as error:
            self.refused.append((self.step, error))
        return None

    def _check_time(self) -> None:
        if process_time() > self.end:
            raise OutOfTime

    def _replayed(self, step: Step) -> Observation:
        self._check_time()
        if self.of_loss:
            return loss(self.evidence, step)
        return replay(self.part, self.evidence, step)

    def _distance(self, step: Step) -> float:
        """Of what is wrong; infinite where PyTorch refuses the step, or it is not finite."""
        try:
            off = off_by(self._replayed(step), self.evidence.seen, self.wrong)
        except REFUSALS as error:
            self.refused.append((step, error))
            return np.inf
        distance = np.inf if off is None else float(off @ off)
        return distance if np.isfinite(distance) else np.inf

    def _pair(self) -> Found:
        """Two mistakes that only together explain what is wrong: one of them comes near it."""
        known = self.ways.of(self.part, self.evidence)
        ones = [x for x in known if "call" not in x.variant.changes and not x.variant.where]
        nearest = sorted(ones, key=lambda x: self._distance(self.step.but(x.variant)))[:NEAREST]
        for a, b in product(nearest, ones):
            if a.mistake is b.mistake:
                continue
            mends = self._mends(self.step.but(a.variant, b.variant))
            if mends and mends[0] == len(self.wrong):
                return [[a], [b]]
        return []
