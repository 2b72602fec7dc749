"""The PyTorch half of one walk under way: the loop, its oracle and its moved copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch

from ..bridge._copy import copy_loop
from ..bridge._optimizer import updates_taken
from ..bridge._tensors import to_dtype
from ..bridge._torch_loop import TorchLoop
from . import _torch_side
from ._drawn import Drawn, Redrawn
from ._floor import DOUBLE, LOWER, OneUlp
from ._judge import Floor, floors_of
from ._leaf import FOUND_INF, Leaf, Observation
from ._records import Plan
from ._settings import precision, random_state, set_random_state
from ._spill import spill_loop
from ._tolerance import DRAWS


class TorchStep(NamedTuple):
    """One step of PyTorch, as it is judged by."""

    right: Observation  # in float64
    floors: dict[Leaf, Floor]  # how far its own steps are that rounding sets apart from it
    drawn: list[Any]  # what each forward pass of the reference drew at random


@dataclass
class TorchWalk:
    """A copy of the loop in the precision of the plan, and the copies that measure rounding."""

    plan: Plan
    reference: TorchLoop
    standing: Observation  # of the reference, now
    one_ulps: list[OneUlp]
    copies: list[TorchLoop]  # between the steps: of a free walk
    taken: int = 0  # optimizer steps before the walk: the scheduler goes on from there

    @property
    def repeats(self) -> bool:
        """Whether one step of the optimizer is many, inside which rounding grows."""
        return isinstance(self.reference.optimizer, torch.optim.LBFGS)

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.plan.dtype)

    def step(self, n: int, window: list[Any]) -> TorchStep:
        """Take step ``n``.

        All draw the same random numbers, as dropout would, and each has inputs of its own.
        """
        if self.plan.synced:
            self.copies = [_at_rest(copy_loop(self.reference)) for _ in self.one_ulps]
        n += self.taken
        rng = random_state()
        rounding, oracle, right = self.plan.rounding, None, None
        if rounding and self.plan.judged:
            oracle = copy_loop(self.reference, torch.float64)
        # PyTorch may write into its inputs. In float64 the copies answer for inputs and weights
        # too; below, these are given.
        windows = [
            to_dtype(window, self.dtype) if rounding else one_ulp.moved_window(window)
            for one_ulp in self.one_ulps
        ]
        own = to_dtype(window, self.dtype)
        with Drawn() as drawn:
            seen = _torch_side.step(drawn.marking(self.reference), own, n)
        self.standing, rng_after = seen, random_state()
        if oracle is not None:
            set_random_state(rng)
            with precision("float64"), Redrawn(drawn):
                right = _torch_side.step(oracle, to_dtype(window, torch.float64), n)
        _at_rest(self.reference)

        def draws() -> Iterator[Observation]:
            for loop, one_ulp, own in zip(self.copies, self.one_ulps, windows, strict=True):
                set_random_state(rng)
                yield _torch_side.step(loop, own, n, one_ulp, None if rounding else seen)
                _at_rest(loop)

        # What overflows only in few bits has no counterpart in float64.
        if right is None or seen.get(FOUND_INF) != right.get(FOUND_INF):
            right, own_steps = seen, draws()
        else:
            own_steps = chain([seen], draws())
        floors = floors_of(self.plan, right, own_steps)
        set_random_state(rng_after)
        return TorchStep(right, floors, drawn.passes)


def begin_torch(plan: Plan, reference: TorchLoop, loop: TorchLoop) -> TorchWalk:
    """Walk ``reference``, a copy of ``loop`` in the precision of the plan."""
    _at_rest(reference)
    dtypes = LOWER if plan.rounding else DOUBLE
    one_ulps = [OneUlp(seed, dtypes) for seed in range(DRAWS if plan.judged else 0)]
    standing = _torch_side.start(reference)
    copies = [] if plan.synced else [_at_rest(copy_loop(reference)) for _ in one_ulps]
    taken = 0
    if loop.scheduler is not None:
        taken = updates_taken(loop.scheduler, loop.scheduler_every)
    return TorchWalk(plan, reference, standing, one_ulps, copies, taken)


def _at_rest(loop: TorchLoop) -> TorchLoop:
    """The loop itself, which leaves memory to others until its next step."""
    spill_loop(loop)
    return loop
