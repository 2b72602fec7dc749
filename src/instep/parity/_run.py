"""Walk both loops side by side: freely and step by step, in float64 and in lower precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from .._errors import where
from ..bridge._torch_loop import TorchLoop, windows
from ._blame import blame
from ._checks import checks as look_around
from ._hint import hint
from ._jax_side import steps_of
from ._lbfgs import can_be_synced
from ._lbfgs_torch import history_size
from ._pair import Pair, lowered_pair
from ._records import Plan
from ._report import Report
from ._settings import precision, random_mark, random_state_kept
from ._torch_side import dropouts, is_fresh
from ._walker import Walker, begin
from ._walks import PRECISIONS, End, plans_of, report_of, walk_all
from .diagnosis._search import Diagnosis


def run(
    pair: Pair | TorchLoop,
    steps: int = 20,
    precisions: Sequence[str] | None = None,
    on_step: Callable[[int], None] = lambda n: None,
    checks: bool = True,
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

    Arrays of 4 MiB and more live in unnamed files where nobody looks at them: a GPT of 124 M
    parameters needs no more than 24 GiB. Where both halves share one GPU, set
    ``XLA_PYTHON_CLIENT_PREALLOCATE=false`` before JAX starts, as the command line does, or use
    ``record`` and ``compare``, which are two processes.

    Args:
      pair: or a loop; its model, optimizer, scheduler and arrays are left as they are, and so
        are PyTorch's random state and the generator of a ``DataLoader``.
      steps: optimizer steps, at least 1.
      precisions: in which to judge rounding: of ``"float32"``, ``"bfloat16"``,
        ``"float16"``; None: that of the PyTorch model, float32 if that is float64 or mixed.
      on_step: called with the number of each step when it is done.
      checks: look also for what no step replays: masks that repeat, recompiles, labels out of
        range, other dtypes, features that never acted. The verdict does not depend on them.

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
        walkers, ends = _walk(pair, steps, low_of(pair.torch, precisions), on_step)
        fresh = is_fresh(pair.torch.optimizer)
        found = _diagnose(walkers, fresh)
    report = replace(
        report_of(walkers, ends, steps),
        causes=tuple(found.causes),
        unexplained=tuple(found.unexplained),
    )
    report = replace(report, checks=look_around(pair, report) if checks else ())
    return report.with_hint(
        found.failed or (None if found.causes else hint(report, dropouts(pair.torch), fresh))
    )


def _diagnose(walkers: Sequence[Walker], fresh: bool) -> Diagnosis:
    """Of the walk in which each step stands alone, if it diverges, else of the free one.

    Not of a free one that began elsewhere after steps of PyTorch: no step is to blame. It calls
    the user's code in ways that nobody meant; the verdict does not depend on it.
    """
    free, *synced = walkers[:2]
    left = [w for w in synced if w.evidence]
    if free.evidence and (fresh or not free.ledger.began_elsewhere):
        left.append(free)
    found = Diagnosis(left[0].evidence, left[0].quiet) if left else Diagnosis(())
    try:
        with precision("float64"):
            return found.look()
    except Exception as error:
        found.failed = f"the search for the cause ended early: {where(error)}"
        return found


def low_of(loop: TorchLoop, precisions: Sequence[str] | None) -> Sequence[str]:
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
    shared = steps_of(pair.jax)

    def begun(plan: Plan, window: list[Any]) -> Walker:
        return begin(plan, pair, window, shared, steps + 1)

    chaotic = can_be_synced(history_size(pair.torch.optimizer), pair.jax)
    plans, stream = plans_of(low, chaotic), windows_of(pair.torch)
    return walk_all(plans, begun, stream, steps, precision, random_mark, on_step)


def windows_of(loop: TorchLoop) -> Iterator[list[Any]]:
    """The windows of the PyTorch half; the user's code that yields them may raise."""
    stream = windows(loop)
    n = 0
    while True:
        n += 1
        with blame("the batches of the PyTorch half", n):
            window = next(stream)
        yield window
