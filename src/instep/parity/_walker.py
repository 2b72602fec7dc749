"""One walk under way: the PyTorch half, the JAX half, and the ledger."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import torch

from .._batch import joined
from .._loop import OpaqueLoop
from ..bridge._copy import copy_loop
from ..bridge._tensors import batch_of, to_dtype, to_numpy
from ..bridge._torch_loop import TorchLoop
from ..bridge._transfer import link, model_arrays, start_from, write_model
from ..bridge._weights import weights_to_torch
from . import _torch_side
from ._blame import blame
from ._floor import DOUBLE, LOWER, OneUlp
from ._jax_side import JaxWalk, Steps, native
from ._judge import OPTIMIZER, Ledger
from ._leaf import LOSS, Leaf, Observation
from ._opaque import opaque
from ._pair import Pair
from ._records import Plan, Status
from ._settings import random_state, set_random_state
from ._spill import spill_loop
from ._tolerance import DRAWS, FLOOR_FACTOR, LOOKS, ROUNDING_FACTOR
from ._torch_walk import TorchWalk, begin_torch
from .diagnosis._evidence import Evidence, rates_of


WITNESSES = 3  # diverging steps that a diagnosis looks at


@dataclass
class Walker:
    """Both halves, from the same weights, in the precision of the plan."""

    plan: Plan
    pair: Pair
    torch: TorchWalk
    jax: JaxWalk
    ledger: Ledger
    losses: list[tuple[float, float]] = field(default_factory=list)  # (PyTorch, JAX)
    program: Callable[[Any, Any], Any] | None = None  # JAX's step, as it was written
    schedule: list[list[float]] = field(default_factory=list)  # learning rates, by steps taken
    evidence: list[Evidence] = field(default_factory=list)  # of float64 steps that diverge
    quiet: list[Evidence] = field(default_factory=list)  # the first and last that do not
    _last: Evidence | None = None
    _rates: dict[int, Observation] = field(default_factory=dict)  # those that JAX shows

    def advance(
        self, n: int, window: list[Any], noise: Collection[Leaf] = (), doubt: bool = True
    ) -> None:
        """Take step ``n`` with both halves and judge it.

        Args:
          n: from 1.
          window: the microbatches of the step, as the PyTorch loop yields them.
          noise: leaves that rounding decides at this step.
          doubt: look again at what diverges in low precision.
        """
        window = to_dtype(window, self.torch.dtype)
        with blame("Pair.batch", n):
            microbatches = [to_numpy(self.pair.batch(x)) for x in window]
        before, rng = None, random_state()
        if self.plan.synced:
            self.jax.sync(self.torch.standing)
        looks = self.plan.rounding or self.torch.repeats
        witness = not self.plan.rounding and self.plan.judged and self._wanted
        if witness or (looks and self.plan.synced and doubt):
            before = copy_loop(self.torch.reference)
            spill_loop(before)
        stood, start = self.torch.standing, self.jax.state
        with blame("the PyTorch half", n):
            right, floors, drawn = self.torch.step(n, window)
        if self.pair.replays:
            microbatches = list(zip(microbatches, drawn, strict=True))
        batch = joined(microbatches, self.pair.torch.accumulate)
        with blame("the JAX half", n):
            seen = self.jax.advance(batch)
        self.losses.append((float(self.torch.standing[LOSS]), float(seen[LOSS])))
        if self.plan.judged:
            self.ledger.judge_by(n, right, floors, seen, noise)
        if before is not None and looks and doubt:
            self._look_again(n, window, before, rng, right)
        if before is not None and witness:
            evidence = Evidence(
                n, before, window, rng, stood, right, seen, self.ledger.at(n), self.schedule,
                self._rates, self.program, start, batch, frozenset(self.ledger.skipped),
                self._last,
            )  # fmt: skip
            self._keep(evidence)

    @property
    def _wanted(self) -> bool:
        """Whether a step that diverges now would say more: apart, one stands for all."""
        return len(self.evidence) < (WITNESSES if self.plan.synced else 1)

    def _keep(self, evidence: Evidence) -> None:
        self._rates[evidence.n] = {x: v for x, v in evidence.seen.items() if x.kind == "lr"}
        if evidence.last is not None and not self.evidence:
            evidence.last.last = None  # of the steps before, only the last is ever asked for
        diverges = any(m.status is Status.DIVERGED for m in evidence.measured.values())
        if diverges:
            self.evidence.append(evidence)
        else:
            self.quiet = [*self.quiet[:1], evidence]
        self._last = evidence

    def _look_again(
        self, n: int, window: list[Any], before: TorchLoop, rng: Any, right: Observation
    ) -> None:
        """More copies, and such as round as coarsely as JAX may, until nothing diverges."""
        kept, rounding = random_state(), self.plan.rounding

        def step(one_ulp: OneUlp) -> Observation:
            set_random_state(rng)
            dtype, at = self.torch.dtype, n + self.torch.taken
            own = to_dtype(window, dtype) if rounding else one_ulp.moved_window(window)
            moved = None if rounding else self.torch.standing
            return _torch_side.step(copy_loop(before), own, at, one_ulp, moved)

        for seed in range(DRAWS, DRAWS + LOOKS):
            gradients = bool(self.ledger.beyond(n, ["gradient"]))
            grows = (
                self.torch.repeats and not gradients and bool(self.ledger.beyond(n, OPTIMIZER))
            )
            if rounding and gradients:
                coarse = OneUlp(seed, LOWER, ROUNDING_FACTOR)
                self.ledger.look_again(n, right, step(coarse))
            elif grows and rounding:
                self.ledger.widen(n, right, step(OneUlp(seed, LOWER, ROUNDING_FACTOR)))
            elif grows:
                self.ledger.widen(n, right, step(OneUlp(seed, DOUBLE, FLOOR_FACTOR)))
            elif not (rounding and self.ledger.lucky(n)):
                break
            if rounding and self.ledger.lucky(n):
                self.ledger.draw_again(n, right, step(OneUlp(seed, LOWER)))
        set_random_state(kept)


def begin(plan: Plan, pair: Pair, window: list[Any], steps: Steps, ahead: int = 0) -> Walker:
    """Copy the PyTorch half, bring the weights across, and compare what stands.

    Args:
      plan: precision and kind of the walk.
      pair: left as it is.
      window: the first one; nothing is trained on it here.
      steps: from ``steps_of``, shared by all walks.
      ahead: how many steps the walk will take.
    """
    with blame("copying the PyTorch half"):
        reference = copy_loop(pair.torch, getattr(torch, plan.dtype))
    walk = _start_jax(plan, pair, reference, window, steps)
    half = begin_torch(plan, reference, pair.torch)
    ledger = Ledger(
        plan,
        scheduled=pair.torch.scheduler is not None,
        alone=walk.weights.alone,
    )
    at_start = walk.start()
    ledger.judge(0, half.standing, [], at_start)
    walker = Walker(plan, pair, half, walk, ledger)
    walk.rest()
    walker.program = steps.plain
    if plan.judged and not plan.rounding:
        walker.schedule = rates_of(reference, ahead * pair.torch.accumulate + 1, half.taken)
        walker._rates[0] = {x: v for x, v in at_start.items() if x.kind == "lr"}
    return walker


def _start_jax(
    plan: Plan,
    pair: Pair,
    reference: TorchLoop,
    window: list[Any],
    steps: Steps,
) -> JaxWalk:
    """Bring the weights across, in the direction that the kind of JAX half asks for."""
    step = steps.plain if plan.rounding else steps.lifted
    if isinstance(pair.jax, OpaqueLoop):
        with blame("Pair.batch", 1):
            own = to_dtype(window, getattr(torch, plan.dtype))
            batch = batch_of(own, pair.batch, pair.torch.accumulate)
        with blame("the JAX half", 1):
            walk = opaque(pair.jax, step, batch, jnp.dtype(plan.dtype))
        view = walk.view
        with blame("Pair.weights"):
            weights = link(pair.weights, reference.model, view.params, view.buffers)
            write_model(reference, weights_to_torch(weights, view.params, view.buffers))
    else:
        with blame("Pair.weights"):
            weights = link(pair.weights, reference.model, pair.jax.params, pair.jax.buffers)
            half = start_from(model_arrays(reference), weights, pair.jax)
        with blame("the JAX half", 1):
            walk = native(half, step)
    walk.weights = weights
    walk.parameters = frozenset(name for name, _ in reference.model.named_parameters())
    walk.cycles_momentum = _torch_side.cycles_momentum(pair.torch.scheduler)
    return walk
