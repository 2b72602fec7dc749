"""Which mistakes make of PyTorch's step the one that JAX took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import process_time

import numpy as np

from .._judge import distance
from .._leaf import Leaf, Observation
from .._records import Cause, Explanation, Place, Status, Unexplained
from ._agree import disagreeing
from ._evidence import Evidence
from ._mistake import REFUSALS
from ._place import backward_place, forward_place
from ._replay import replay
from ._step import PARTS, Step
from ._trace import Trace, trace
from ._trial import Found, OutOfTime, Trial
from ._ways import Tried, Ways, ways


MOST = 6  # causes of one diagnosis
SECONDS = 120  # of computing, of all threads together, after which a search ends


@dataclass
class Diagnosis:
    """Looks for causes, and keeps those that it has confirmed.

    Args:
      evidence: of steps that diverge, the first ones.
      quiet: of steps that do not: there a cause must change nothing.
    """

    evidence: Sequence[Evidence]
    quiet: Sequence[Evidence] = ()
    causes: list[Cause] = field(default_factory=list)
    unexplained: list[Unexplained] = field(default_factory=list)
    step: Step = field(default_factory=Step)  # PyTorch's, with the mistakes found so far
    refused: list[tuple[Step, Exception]] = field(default_factory=list)  # by PyTorch itself
    failed: str | None = None  # why it ended early
    _ways: dict[int, Ways] = field(default_factory=dict)
    _traces: dict[int, Trace] = field(default_factory=dict)
    _start: float = field(default_factory=process_time)

    def look(self) -> Diagnosis:
        """Explain every part of every step, the first one first."""
        try:
            for evidence in self.evidence:
                for part in PARTS:
                    self._explain(part, evidence)
        except OutOfTime:
            self.failed = f"the search for the cause ended after {SECONDS} s of computing"
        finally:
            # What holds at some steps only, while others stay unexplained, is no cause.
            open_parts = {one.part for one in self.unexplained}
            every = tuple(e.n for e in self.evidence)
            doubtful = [x for x in self.causes if x.part in open_parts and x.steps != every]
            self.causes = [x for x in self.causes if x not in doubtful]
        return self

    def _explain(self, part: str, evidence: Evidence) -> None:
        while wrong := self._wrong(part, evidence):
            given_up = any(x.part == part for x in self.unexplained)
            if given_up or len(self.causes) >= MOST:
                return
            trial = self._trial(part, evidence, _first_kind(part, wrong))
            together = trial.found()
            found = [self._believed(trial, one, together) for one in together]
            if not found or not all(found):
                place = self._place(evidence) if part == "backward" else None
                self.unexplained.append(
                    Unexplained(part, evidence.n, tuple(trial.wrong), place)
                )
                return
            for explanations in found:
                self._adopt(trial, explanations)

    def _wrong(self, part: str, evidence: Evidence) -> list[Leaf]:
        """What the step as it is explained so far does not explain."""
        try:
            return disagreeing(part, evidence, self.step, PARTS[part])
        except REFUSALS as error:  # a mistake that was found earlier cannot be made here
            self.refused.append((self.step, error))
            measured = evidence.measured.items()
            wrong = [x for x, m in measured if m.status is Status.DIVERGED]
            wrong = [x for x in wrong if x.kind in PARTS[part]]
            if wrong and not any(x.part == part for x in self.unexplained):
                self.unexplained.append(Unexplained(part, evidence.n, tuple(wrong), None))
            return []

    def _trial(self, part: str, evidence: Evidence, wrong: list[Leaf]) -> Trial:
        if evidence.n not in self._ways:
            self._ways[evidence.n] = ways(evidence)
        if process_time() > self._start + SECONDS:
            raise OutOfTime
        seen = self._trace(evidence) if wrong[0].kind == "loss" else Trace()
        most, known = MOST - len(self.causes), self._ways[evidence.n]
        end = self._start + SECONDS
        return Trial(part, evidence, self.step, wrong, known, seen, most, self.refused, end)

    def _adopt(self, trial: Trial, found: list[Tried]) -> None:
        part, evidence, wrong = trial.part, trial.evidence, trial.wrong
        found, steps = self._most_often(trial, found)
        there = None
        if "call" in found[0].variant.changes and trial.of_loss:
            there = self._place(evidence)
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

    def _believed(self, trial: Trial, found: list[Tried], all_found: Found) -> list[Tried]:
        """Without those that a step in step denies, or whose value another step denies.

        Args:
          trial: what is wrong.
          found: the ways in which one mistake may have been made.
          all_found: those of all mistakes that explain it together.
        """
        every, part = len(self.evidence), PARTS[trial.part]
        rest = [ways[0].variant for ways in all_found if ways is not found]
        numbers = sum(trial.evidence.seen[leaf].size for leaf in trial.wrong)
        enough = every > 1 or (numbers > 1 and not trial.of_loss)
        enough = enough or (trial.of_loss and trial.evidence.shows("gradient"))

        def holds(one: Tried) -> bool:
            step = self.step.but(one.variant, *rest)
            told = enough and len(self._steps(trial, step)) == every
            return (told or not one.variant.told) and not any(
                trial.still(e, step, part) for e in self.quiet
            )

        return [one for one in found if holds(one)]

    def _steps(self, trial: Trial, step: Step) -> tuple[int, ...]:
        """The steps in which it explains what it explains in the one that is looked at."""
        kinds = {leaf.kind for leaf in trial.wrong}
        mended = set(trial.wrong) - trial.still(trial.evidence, step, kinds)
        others = (e for e in self.evidence if e is not trial.evidence)
        right = [e.n for e in others if not mended & trial.still(e, step, kinds)]
        return tuple(sorted([trial.evidence.n, *right]))

    def _most_often(
        self, trial: Trial, found: list[Tried]
    ) -> tuple[list[Tried], tuple[int, ...]]:
        """Those that explain the most steps, special ones if there are no others; and these."""
        steps = [self._steps(trial, self.step.but(one.variant)) for one in found]
        most = max(steps, key=len)
        kept = [x for x, n in zip(found, steps, strict=True) if len(n) == len(most)]
        return [x for x in kept if not x.mistake.special] or kept, most

    def _trace(self, evidence: Evidence) -> Trace:
        if evidence.n not in self._traces:
            try:
                assert evidence.program is not None
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
