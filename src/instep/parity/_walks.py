"""All walks in one pass over the steps, whatever the PyTorch half of them is: run, or read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from .._errors import ParityError
from ._jax_side import CannotSync, JaxWalk
from ._judge import Ledger
from ._records import Curve, Matched, Plan
from ._report import Report
from ._summary import make_report


CHAOS = (
    "the free walk in float64 is drawn, not judged: inside a step of LBFGS rounding grows by "
    "orders of magnitude; every step from where PyTorch stands is judged"
)
PRECISIONS = ("float32", "bfloat16", "float16")


class Walking(Protocol):
    """One walk under way: both halves, in the precision of the plan."""

    plan: Plan
    jax: JaxWalk
    ledger: Ledger
    losses: list[tuple[float, float]]  # (PyTorch, JAX)

    def advance(self, n: int, given: Any, noise: Any, doubt: bool, /) -> None:
        """Take step ``n`` and judge it."""


W = TypeVar("W", bound=Walking)


class End(NamedTuple):
    """Why a walk goes no further."""

    why: str
    raised: bool  # a half raised; else JAX cannot be set to where PyTorch stands


def plans_of(low: Sequence[str], chaotic: bool = False) -> list[Plan]:
    """What is walked: freely and step by step in float64, and in the dtypes of ``low``.

    Args:
      low: in which rounding is judged.
      chaotic: the optimizer is an LBFGS, whose free walk is drawn only.
    """
    return [
        Plan("float64", judged=not chaotic),
        Plan("float64", synced=True),
        *(Plan(dtype, synced=True) for dtype in low),
        *(Plan(dtype, judged=False) for dtype in low if dtype == "float32"),
    ]


def walk_all(
    plans: Sequence[Plan],
    begin: Callable[[Plan, Any], W],
    stream: Iterator[Any],
    steps: int,
    surroundings: Callable[[str], AbstractContextManager[None]],
    mark: Callable[[], Callable[[], None]],
    on_step: Callable[[int], None],
) -> tuple[list[W], dict[Plan, End]]:
    """All walks, in one pass over the steps, and why some of them ended early.

    Args:
      plans: from ``plans_of``.
      begin: makes the walk of a plan; it sees what the first step is given.
      stream: what each step is given.
      steps: how many.
      surroundings: of a step in a dtype.
      mark: notes the random state and returns what goes back to it: each walk draws the same.
      on_step: called with the number of each step when it is done.
    """
    given = next(stream)
    walks: list[W] = []
    ends: dict[Plan, End] = {}
    for plan in plans:
        with surroundings(plan.dtype), ending(plan, ends):
            walks.append(begin(plan, given))
    for n in range(1, steps + 1):
        given = given if n == 1 else next(stream)
        rewind, noise = mark(), set()
        for walk in walks:
            plan = walk.plan
            if plan in ends or walk.ledger.over or (plan.rounding and walks[1].ledger.over):
                continue  # without float64, what is noise below it is not known
            rewind()
            with surroundings(plan.dtype), ending(plan, ends):
                doubt = not any(w.ledger.diverged for w in (*walks[:2], walk))
                walk.advance(n, given, noise if plan.rounding else (), doubt)
            if plan == plans[1]:
                noise = walk.ledger.noise(n)
        on_step(n)
        if all(walk.ledger.over for walk in walks[:2]):
            break
    return walks, {plan: end for plan, end in ends.items() if plan.judged}


@contextmanager
def ending(plan: Plan, ends: dict[Plan, End]) -> Iterator[None]:
    """Note why a walk ends early; what raises in float64 is the caller's to know at once."""
    try:
        yield
    except CannotSync as obstacle:
        ends[plan] = End(str(obstacle), raised=False)
    except ParityError as error:
        if not plan.rounding:
            raise
        ends[plan] = End(str(error), raised=True)


def report_of(
    walks: Sequence[Walking], ends: dict[Plan, End], steps: int, drawn: Sequence[str] = ()
) -> Report:
    """Sum up all walks.

    Args:
      walks, ends: from ``walk_all``.
      steps: that were asked for.
      drawn: sentences on what is judged otherwise than usual.
    """
    return make_report(
        [w.ledger for w in walks if w.plan.judged and _counts(w, ends.get(w.plan))],
        steps,
        weights=[
            Matched(link.rule, link.torch, link.jax, link.layout.name)
            for link in walks[0].jax.weights.links
        ],
        curves=[
            Curve(walk.plan.dtype, *zip(*walk.losses, strict=True))
            for walk in walks
            if not walk.plan.synced and walk.losses
        ],
        not_walked=[f"{plan.name}: {end.why}" for plan, end in ends.items()],
        raised=[f"{plan.name}: {end.why}" for plan, end in ends.items() if end.raised],
        hidden=walks[0].jax.hidden,
        drawn=[*drawn, *([] if walks[0].plan.judged else [CHAOS])],
    )


def _counts(walk: Walking, end: End | None) -> bool:
    """Whether its measurements count; of one that cannot be synced only what they disprove."""
    proves = end is None or end.raised or walk.ledger.diverged
    return bool(walk.losses) and proves
