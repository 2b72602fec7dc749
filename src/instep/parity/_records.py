"""What a walk finds: measurements, rows, verdicts. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ._leaf import STAGE, Leaf


class Status(StrEnum):
    """What can be said of a leaf."""

    IN_STEP = "in step"
    DIVERGED = "diverged"
    PARTLY = "partly judged"  # in step where it was judged, and noise at other steps
    NOISE = "noise"  # not judged: rounding decides it, in PyTorch alone
    NOT_FINITE = "not finite"  # not judged: NaN or infinity at the same places on both sides
    IDLE = "idle"  # not judged: never changed, or zero throughout, or a clip that never fired


# A leaf of which something is claimed, at least at some steps.
JUDGED = (Status.IN_STEP, Status.PARTLY, Status.DIVERGED)


class Verdict(StrEnum):
    """What can be said of a walk, and of all of them."""

    IN_STEP = "in step"
    NOT_IN_STEP = "not in step"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Plan:
    """A kind of walk."""

    dtype: str = "float64"  # precision of both halves
    synced: bool = False  # JAX starts every step from where PyTorch stands
    judged: bool = True  # or drawn only

    @property
    def rounding(self) -> bool:
        """Whether it is judged by PyTorch's own rounding, not by semantics."""
        return self.dtype != "float64"

    @property
    def name(self) -> str:
        return f"{self.dtype} re-synchronised" if self.synced else self.dtype


FREE = Plan()


@dataclass(frozen=True)
class Measurement:
    """One leaf at one step; absolute numbers, in the units of the leaf.

    In float64, errors are max|jax - torch|; in lower precision they are the root mean square
    of the difference from PyTorch's step in float64.
    """

    step: int  # 0: before the first
    status: Status  # IN_STEP, DIVERGED, NOISE or NOT_FINITE
    error: float  # of the JAX leaf; infinite if shapes or non-finite places differ
    floor: float  # of PyTorch's own leaf under rounding
    scale: float  # max|torch|; of a loss or a learning rate, the largest so far
    bound: float  # the largest error that is in step

    @property
    def judged(self) -> bool:
        """Whether something is claimed of the leaf at this step."""
        return self.status in (Status.IN_STEP, Status.DIVERGED)

    @property
    def ratio(self) -> float:
        """Error over bound: above 1 is a divergence."""
        if self.error == 0.0:
            return 0.0
        if self.error == np.inf or self.bound == 0.0:
            return np.inf
        return self.error / self.bound


@dataclass(frozen=True)
class Row:
    """One leaf over the whole walk."""

    leaf: Leaf  # under its PyTorch name
    jax: str | None  # name of its parameter or buffer on the JAX side
    status: Status  # over all steps
    judged: int  # measurements that were judged
    measured: int  # measurements: one a step, and one before the first of what stands there
    last_judged: int  # step of the last judged measurement; 0 if there is none
    worst: Measurement  # where error over bound was largest, among the judged if there are any
    first_diverged: Measurement | None  # None: nowhere
    measurements: tuple[Measurement, ...]  # in the order of the steps

    @property
    def stage(self) -> str:
        """Of the step: loss, gradient, clip, optimizer, buffers or schedule."""
        return STAGE[self.leaf.kind]


@dataclass(frozen=True)
class Divergence:
    """The first place where the halves part: everything before it agreed."""

    walk: str  # name of the walk
    step: int  # 0: before the first step
    stage: str  # of the training step, which made the leaf
    leaf: Leaf  # under its PyTorch name
    jax: str | None  # its name on the JAX side
    measurement: Measurement  # how far
    others: int  # further leaves that diverged at this step


@dataclass(frozen=True)
class Walk:
    """What one walk through the steps found."""

    plan: Plan  # its precision, and whether it was re-synchronised
    verdict: Verdict  # of its rows
    reason: str  # one sentence
    rows: tuple[Row, ...]  # in the order in which a step makes its leaves
    first_divergence: Divergence | None  # None: nowhere

    @property
    def in_step(self) -> bool:
        """Whether no leaf diverged, and enough was judged."""
        return self.verdict is Verdict.IN_STEP

    def not_judged(self) -> list[Row]:
        """Leaves about which, at some step or at all, nothing is claimed."""
        return [r for r in self.rows if r.status not in (Status.IN_STEP, Status.DIVERGED)]


@dataclass(frozen=True)
class Coverage:
    """What was not compared. Nothing in here is claimed to be in step."""

    complete: bool  # whether all of it is judged through something else, or said to be alone
    unseen: tuple[str, ...] = ()  # what one side does not show, one sentence for each kind
    not_walked: tuple[str, ...] = ()  # walks that could not be made, and why


@dataclass(frozen=True)
class Curve:
    """The losses of both loops when each runs freely in one precision."""

    dtype: str
    torch: tuple[float, ...]  # one a step
    jax: tuple[float, ...]


@dataclass(frozen=True)
class Matched:
    """Tensors of the PyTorch model and the leaves of the JAX side that hold the same."""

    rule: str
    torch: tuple[str, ...]
    jax: tuple[str, ...]
    layout: str


@dataclass(frozen=True)
class Explanation:
    """A mistake of the catalogue, as it may have been made here."""

    mistake: str  # its name
    says: str  # what happened, one sentence
    fix: str  # one sentence
    where: str  # PyTorch's module path or leaf; "": everywhere
    value: str  # what was used instead, "eps=1e-06"


@dataclass(frozen=True)
class Place:
    """Where numbers of PyTorch's pass are no longer found in JAX's."""

    module: str  # path of the PyTorch module; "": the model itself, or the loss
    call: str  # the function of PyTorch whose result, or whose gradient, is missing first
    line: str  # of the JAX source that takes the last numbers found: "model.py:31 (forward)"
    after: str = ""  # what made the numbers that the call takes, "linear in head"
    backward: bool = False  # whether it is a gradient

    def __str__(self) -> str:
        what = f"the gradient of {self.call}" if self.backward else f"the result of {self.call}"
        what += f" in {self.module}" if self.module else ""
        what += f", which takes that of {self.after}" if self.after else ""
        return what + (f"; JAX: {self.line}" if self.line else "")


@dataclass(frozen=True)
class Cause:
    """A mistake that turns PyTorch's step into the one that JAX took: it was replayed.

    If several explain it, they give the same numbers in all steps that were looked at.
    """

    part: str  # of the step
    explanations: tuple[Explanation, ...]  # the likeliest first
    leaves: tuple[Leaf, ...]  # that it explains
    steps: tuple[int, ...]  # in which it was replayed, and gave the numbers of JAX
    before: float  # largest error of these leaves, over their maximum, against PyTorch's step
    after: float  # the same against PyTorch's step with the mistake
    place: Place | None  # in both sources, if it is in the forward pass

    @property
    def name(self) -> str:
        """Of the likeliest mistake."""
        return self.explanations[0].mistake


@dataclass(frozen=True)
class Check:
    """One question about a pair, and its answer."""

    name: str  # a key of CHECKS
    passed: bool  # False too where the check could not be made
    sentence: str = ""  # what was found, with numbers and the remedy; "" if it passed

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence or 'passed'}"


@dataclass(frozen=True)
class Unexplained:
    """A part of the step that diverges, and no mistake of the catalogue gives its numbers."""

    part: str  # of the step
    step: int  # the first at which it was looked at
    leaves: tuple[Leaf, ...]  # that diverge there
    place: Place | None  # in both sources, where it could be found
