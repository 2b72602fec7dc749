"""Walk both loops side by side: freely and step by step, in float64 and in lower precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from .._errors import ParityError, where
from ..bridge._torch_loop import TorchLoop, windows
from ._blame import blame
from ._hint import hint
from ._jax_side import CannotSync, steps_of
from ._lbfgs import can_be_synced
from ._pair import Pair, lowered_pair
from ._records import Curve, Matched, Plan
from ._report import Report
from ._settings import precision, random_state, random_state_kept, set_random_state
from ._summary import make_report
from ._walker import Walker, begin
from .diagnosis._search import Diagnosis


CHAOS = (
    "the free walk in float64 is drawn, not judged: inside a step of LBFGS rounding grows by "
    "orders of magnitude; every step from where PyTorch stands is judged"
)
PRECISIONS = ("float32", "bfloat16", "float16")


def run(
    pair: Pair | TorchLoop,
    steps: int = 20,
    precisions: Sequence[str] | None = None,
    on_step: Callable[[int], None] = lambda n: None,
) -> Report:
    """Walk both halves of ``pair`` from the same weights and batches, and judge every leaf.

    Of a ``TorchLoop`` the other half is what ``instep.from_torch`` makes of it; where it draws
    at random, both halves get the same draws.

    Three questions, one verdict. In float64, running freely: are they the same? In float64,
    each step from where PyTorch stands: is each step by itself the same? In lower precision,
    each step from where PyTorch stands: does JAX round no worse than PyTorch does?
    Compared at every step: the loss, every gradient before and after clipping, its norm,
    every optimizer state, update, parameter and buffer, the learning rate and the scaler. The
    losses of both loops running freely in float32 are recorded, not judged.

    Args:
      pair: or a loop; its model, optimizer, scheduler and arrays are left as they are, and so
        are PyTorch's random state and the generator of a ``DataLoader``.
      steps: optimizer steps, at least 1.
      precisions: in which to judge rounding: of ``"float32"``, ``"bfloat16"``,
        ``"float16"``; None: that of the PyTorch model, float32 if that is float64 or mixed.
      on_step: called with the number of each step when it is done.

    Raises:
      TypeError: ``pair`` is neither a ``Pair`` nor a ``TorchLoop``.
      LoweringError: the loop cannot be made a JAX step.
      ValueError: ``steps`` is below 1, or a precision is another one.
      ParityError: a half raised, or weights, batches and halves do not fit together.
    """
    if not isinstance(pair, Pair | TorchLoop):
        raise TypeError(
            f"parity.run takes an instep.TorchLoop, or an instep.Pair(torch=TorchLoop(...), "
            f"jax=JaxLoop(...), weights=[...]); got {type(pair).__name__}."
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps=}.")
    with random_state_kept(pair if isinstance(pair, TorchLoop) else pair.torch):
        if isinstance(pair, TorchLoop):
            pair = lowered_pair(pair, steps)
        walkers, ends = _walk(pair, steps, _low(pair.torch, precisions), on_step)
        found = _diagnose(walkers)
    report = make_report(
        [w.ledger for w in walkers if w.plan.judged and _counts(w, ends.get(w.plan))],
        steps,
        weights=[
            Matched(link.rule, link.torch, link.jax, link.layout.name)
            for link in walkers[0].jax.weights.links
        ],
        curves=[
            Curve(walker.plan.dtype, *zip(*walker.losses, strict=True))
            for walker in walkers
            if not walker.plan.synced and walker.losses
        ],
        not_walked=[f"{plan.name}: {end.why}" for plan, end in ends.items()],
        raised=[f"{plan.name}: {end.why}" for plan, end in ends.items() if end.raised],
        hidden=walkers[0].jax.hidden,
        drawn=[] if walkers[0].plan.judged else [CHAOS],
    )
    report = replace(report, causes=tuple(found.causes), unexplained=tuple(found.unexplained))
    return report.with_hint(
        found.failed or (None if found.causes else hint(report, pair.torch))
    )


def _diagnose(walkers: Sequence[Walker]) -> Diagnosis:
    """Of the walk in which each step stands alone, if it diverges, else of the free one.

    It calls the user's code in ways that nobody meant; the verdict does not depend on it.
    """
    left = [walker for walker in reversed(walkers[:2]) if walker.evidence]
    found = Diagnosis(left[0].evidence if left else ())
    try:
        with precision("float64"):
            return found.look()
    except Exception as error:
        found.failed = f"the search for the cause ended early: {where(error)}"
        return found


class End(NamedTuple):
    """Why a walk goes no further."""

    why: str
    raised: bool  # a half raised; else JAX cannot be set to where PyTorch stands


def _counts(walker: Walker, end: End | None) -> bool:
    """Whether its measurements count; of one that cannot be synced only what they disprove."""
    proves = end is None or end.raised or walker.ledger.diverged
    return bool(walker.losses) and proves


def _low(loop: TorchLoop, precisions: Sequence[str] | None) -> Sequence[str]:
    """The dtypes in which rounding is judged."""
    if precisions is None:
        dtypes = {str(p.dtype).removeprefix("torch.") for p in loop.model.parameters()}
        own = dtypes.pop() if len(dtypes) == 1 else "float32"
        return [own if own in PRECISIONS else "float32"]
    if isinstance(precisions, str) or not set(precisions) <= set(PRECISIONS):
        raise ValueError(
            f"precisions is a list of {', '.join(map(repr, PRECISIONS))}; float64 is always "
            f"walked. Got {precisions!r}."
        )
    return list(dict.fromkeys(precisions))


def _walk(
    pair: Pair, steps: int, low: Sequence[str], on_step: Callable[[int], None]
) -> tuple[list[Walker], dict[Plan, End]]:
    """All walks, in one pass over the batches, and why some of them ended early."""
    stream = _windows(pair)
    window = next(stream)
    shared = steps_of(pair.jax)
    chaotic = can_be_synced(pair.torch, pair.jax)  # an LBFGS
    free, synced = Plan("float64", judged=not chaotic), Plan("float64", synced=True)
    plans = [
        free,
        synced,
        *(Plan(dtype, synced=True) for dtype in low),
        *(Plan(dtype, judged=False) for dtype in low if dtype == "float32"),
    ]
    walkers: list[Walker] = []
    ends: dict[Plan, End] = {}
    for plan in plans:
        with precision(plan.dtype), _ending(plan, ends):
            walkers.append(begin(plan, pair, window, shared, steps + 1))
    for n in range(1, steps + 1):
        window = window if n == 1 else next(stream)
        rng, noise = random_state(), set()
        for walker in walkers:
            plan = walker.plan
            if plan in ends or walker.over or (plan.rounding and walkers[1].over):
                continue  # without float64, what is noise below it is not known
            set_random_state(rng)
            with precision(plan.dtype), _ending(plan, ends):
                doubt = not any(w.ledger.diverged for w in (*walkers[:2], walker))
                walker.advance(n, window, noise if plan.rounding else (), doubt)
            if plan == synced:
                noise = walker.ledger.noise(n)
        on_step(n)
        if all(walker.over for walker in walkers[:2]):
            break
    return walkers, {plan: end for plan, end in ends.items() if plan.judged}


@contextmanager
def _ending(plan: Plan, ends: dict[Plan, End]) -> Iterator[None]:
    """Note why a walk ends early; what raises in float64 is the caller's to know at once."""
    try:
        yield
    except CannotSync as obstacle:
        ends[plan] = End(str(obstacle), raised=False)
    except ParityError as error:
        if not plan.rounding:
            raise
        ends[plan] = End(str(error), raised=True)


def _windows(pair: Pair) -> Iterator[list[Any]]:
    """The windows of the PyTorch half; the user's code that yields them may raise."""
    stream = windows(pair.torch)
    n = 0
    while True:
        n += 1
        with blame("the batches of the PyTorch half", n):
            window = next(stream)
        yield window
