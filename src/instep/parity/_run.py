"""Walk both loops side by side: freely and step by step, in float64 and in lower precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .._errors import ParityError
from ..bridge._torch_loop import TorchLoop, windows
from ._blame import blame
from ._hint import hint
from ._jax_side import CannotSync, steps_of
from ._pair import Pair
from ._records import Curve, Matched, Plan
from ._report import Report
from ._settings import precision, random_state_kept
from ._summary import make_report
from ._walker import Walker, begin


PRECISIONS = ("float32", "bfloat16", "float16")


def run(
    pair: Pair,
    steps: int = 20,
    precisions: Sequence[str] | None = None,
    on_step: Callable[[int], None] = lambda n: None,
) -> Report:
    """Walk both halves of ``pair`` from the same weights and batches, and judge every leaf.

    Three questions, one verdict. In float64, running freely: are they the same? In float64,
    each step from where PyTorch stands: is each step by itself the same? In lower precision,
    each step from where PyTorch stands: does JAX round no worse than PyTorch does?
    Compared at every step: the loss, every gradient before and after clipping, its norm,
    every optimizer state, update, parameter and buffer, and the learning rate. The losses of
    both loops running freely in float32 are recorded, not judged.

    Args:
      pair: its model, optimizer, scheduler and arrays are left as they are, and so are
        PyTorch's random state and the generator of a ``DataLoader``.
      steps: optimizer steps, at least 1.
      precisions: in which to judge rounding: of ``"float32"``, ``"bfloat16"``,
        ``"float16"``; None: that of the PyTorch model, float32 if that is float64.
      on_step: called with the number of each step when it is done.

    Raises:
      TypeError: ``pair`` is not a ``Pair``.
      ValueError: ``steps`` is below 1, or a precision is another one.
      ParityError: a half raised, or weights, batches and halves do not fit together.
    """
    if not isinstance(pair, Pair):
        raise TypeError(
            f"parity.run takes an instep.Pair(torch=TorchLoop(...), jax=JaxLoop(...), "
            f"weights=[...]); got {type(pair).__name__}."
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps=}.")
    with random_state_kept(pair.torch):
        walkers, not_walked = _walk(pair, steps, _low(pair.torch, precisions), on_step)
    report = make_report(
        [walker.ledger for walker in walkers if walker.plan.judged],
        steps,
        weights=[
            Matched(link.rule, link.torch, link.jax, link.layout.name)
            for link in walkers[0].jax.weights.links
        ],
        curves=[
            Curve(walker.plan.dtype, *zip(*walker.losses, strict=True))
            for walker in walkers
            if not walker.plan.synced
        ],
        not_walked=not_walked,
    )
    return report.with_hint(hint(report, pair.torch))


def _low(loop: TorchLoop, precisions: Sequence[str] | None) -> Sequence[str]:
    """The dtypes in which rounding is judged."""
    if precisions is None:
        dtypes = [str(p.dtype).removeprefix("torch.") for p in loop.model.parameters()]
        return [dtypes[0] if dtypes and dtypes[0] in PRECISIONS else "float32"]
    if isinstance(precisions, str) or not set(precisions) <= set(PRECISIONS):
        raise ValueError(
            f"precisions is a list of {', '.join(map(repr, PRECISIONS))}; float64 is always "
            f"walked. Got {precisions!r}."
        )
    return precisions


def _walk(
    pair: Pair, steps: int, low: Sequence[str], on_step: Callable[[int], None]
) -> tuple[list[Walker], list[str]]:
    """All walks in one pass over the batches; and those that could not be made, and why."""
    stream = _windows(pair)
    first = next(stream)
    shared = steps_of(pair.jax)
    plans = [
        Plan("float64"),
        Plan("float64", synced=True),
        *(Plan(dtype, synced=True) for dtype in low),
        *(Plan(dtype, judged=False) for dtype in low if dtype == "float32"),
    ]
    walkers: list[Walker] = []
    not_walked: dict[str, str] = {}
    for plan in plans:
        with precision(plan.dtype), _or_not_walked(plan, not_walked):
            walkers.append(begin(plan, pair, first, shared))
    for n in range(1, steps + 1):
        window = first if n == 1 else next(stream)
        rng, noise = torch.get_rng_state(), set()
        for walker in walkers:
            plan = walker.plan
            if plan.name in not_walked or walker.over:
                continue
            torch.set_rng_state(rng)
            with precision(plan.dtype), _or_not_walked(plan, not_walked):
                walker.advance(n, window, noise if plan.rounding else ())
            if plan.synced and not plan.rounding:
                noise = walker.ledger.noise(n)
        on_step(n)
        if all(walker.over or not walker.plan.judged for walker in walkers):
            break
    walked = [walker for walker in walkers if walker.plan.name not in not_walked]
    return walked, [f"{name}: {why}" for name, why in not_walked.items()]


@contextmanager
def _or_not_walked(plan: Plan, not_walked: dict[str, str]) -> Iterator[None]:
    """Note why a walk ends early; what raises in the free float64 walk is the caller's."""
    try:
        yield
    except CannotSync as obstacle:
        not_walked[plan.name] = str(obstacle)
    except ParityError as error:
        if not plan.rounding:
            raise
        not_walked[plan.name] = str(error)


def _windows(pair: Pair) -> Iterator[list[Any]]:
    """The windows of the PyTorch half; the user's code that yields them may raise."""
    stream = windows(pair.torch)
    n = 0
    while True:
        n += 1
        with blame("the batches of the PyTorch half", n):
            window = next(stream)
        yield window
