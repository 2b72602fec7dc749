"""Judge a JAX half by a recorded PyTorch half, on a machine that needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from .._batch import joined
from .._errors import ParityError
from .._loop import JaxLoop, OpaqueLoop
from ..bridge._match import split_rules
from ..bridge._rule import Rule
from ..bridge._transfer import link, start_from
from ..bridge._weights import weights_to_jax
from ._blame import blame
from ._half import check_half
from ._hint import hint
from ._jax_side import JaxWalk, Steps, jax_precision, native, steps_of
from ._judge import Ledger
from ._lbfgs import can_be_synced
from ._leaf import LOSS, Leaf, Observation
from ._opaque import opaque
from ._recording import Manifest, read_manifest, read_step
from ._records import Plan
from ._report import Report
from ._step_file import Recorded, Walks
from ._walks import plans_of, report_of, walk_all


Rules = Sequence[Rule | str] | str
Convert = Callable[[Any], Any]

ONE_LOOK = (
    "a recording has no second look: where rounding is beyond its bound, parity.run takes "
    "further copies of PyTorch's step before it says so, and may then find it in step"
)


def compare(
    folder: str | Path,
    half: JaxLoop | OpaqueLoop,
    weights: Rules = "auto",
    batch: Convert = lambda microbatch: microbatch,
    on_step: Callable[[int], None] = lambda n: None,
) -> Report:
    """Walk ``half`` beside the PyTorch half that ``parity.record`` wrote, and judge every leaf.

    The walks, bounds and verdicts are those of ``parity.run``, and so are the numbers: what
    differs is that nothing can be asked of PyTorch again. A float32 leaf beyond its bound gets
    no second look, and a divergence is located but its cause is not searched.

    Args:
      folder: the recording.
      half: starts from the recorded weights; an opaque loop too, if its view hands them on.
      weights: as for ``Pair``.
      batch: makes the batch of ``half`` from the recorded microbatch, NumPy arrays.
      on_step: called with the number of each step when it is done.

    Raises:
      TypeError, ValueError: ``half`` or ``weights`` are of another kind or accumulate over
        other windows.
      ParityError: the folder is no recording, not complete, damaged or of another version; or
        as ``parity.run``.
    """
    manifest = read_manifest(folder)
    check_half(half, "the JAX half", manifest.accumulate, manifest.drop_last)
    split_rules(weights)
    start, steps = read_step(folder, manifest, 0), steps_of(half)

    def begin(plan: Plan, first: Walks) -> Follower:
        standing = _there(start, plan).right

        def batch_of_first() -> Any:
            return _joined(_there(first, plan), 1, batch, manifest)

        walk = _start_jax(plan, standing, batch_of_first, manifest, half, weights, steps)
        ledger = Ledger(plan, scheduled=manifest.scheduled, alone=walk.weights.alone)
        ledger.judge(0, standing, [], walk.start())
        return Follower(plan, walk, ledger, standing, manifest, batch)

    def stream() -> Iterator[Walks]:
        for n in range(1, manifest.steps + 1):
            yield read_step(folder, manifest, n)

    plans = plans_of(manifest.precisions, can_be_synced(manifest.history_size, half))
    walks, ends = walk_all(
        plans, begin, stream(), manifest.steps, jax_precision, _nothing_drawn, on_step
    )
    said = [ONE_LOOK] if _doubtful(walks, manifest) else []
    report = report_of(walks, ends, manifest.steps, said)
    report = replace(report, environment=_both(report.environment, manifest.environment))
    return report.with_hint(hint(report, manifest.dropouts))


@dataclass
class Follower:
    """One walk of a JAX half beside recorded steps."""

    plan: Plan
    jax: JaxWalk
    ledger: Ledger
    standing: Observation  # of PyTorch, now
    manifest: Manifest
    batch: Convert
    losses: list[tuple[float, float]] = field(default_factory=list)  # (PyTorch, JAX)

    def advance(self, n: int, given: Walks, noise: Collection[Leaf], doubt: bool) -> None:
        """Take step ``n`` with the JAX half, and judge it; ``doubt`` cannot be met."""
        del doubt
        taken = _there(given, self.plan)
        batch = _joined(taken, n, self.batch, self.manifest)
        if self.plan.synced:
            self.jax.sync(self.standing)
        with blame("the JAX half", n):
            seen = self.jax.advance(batch)
        self.standing = taken.standing
        self.losses.append((float(self.standing[LOSS]), float(seen[LOSS])))
        if self.plan.judged:
            self.ledger.judge_by(n, taken.right, taken.floors, seen, noise)


def _start_jax(
    plan: Plan,
    start: Observation,
    first: Callable[[], Any],
    manifest: Manifest,
    half: JaxLoop | OpaqueLoop,
    rules: Rules,
    steps: Steps,
) -> JaxWalk:
    """Bring the recorded weights across; ``first`` makes the batch of the first step."""
    step = steps.plain if plan.rounding else steps.lifted
    arrays = {x.name: v for x, v in start.items() if x.kind in ("parameter", "buffer")}
    if isinstance(half, OpaqueLoop):
        batch = first()
        with blame("the JAX half", 1):
            walk = opaque(half, step, batch, jnp.dtype(plan.dtype))
        with blame("weights"):
            params, buffers = walk.view.params, walk.view.buffers
            walk.weights = link(rules, manifest.model, params, buffers)
            if walk.obstacle is None:  # else step 0 tells whether its own are the same
                view = replace(
                    walk.view,
                    params=weights_to_jax(walk.weights, arrays, params),
                    buffers=weights_to_jax(walk.weights, arrays, buffers),
                )
                walk.state, walk.view = walk.write(walk.state, view), view
    else:
        with blame("weights"):
            weights = link(rules, manifest.model, half.params, half.buffers)
            half = start_from(arrays, weights, half)
        with blame("the JAX half", 1):
            walk = native(half, step)
        walk.weights = weights
    walk.parameters = frozenset(manifest.parameters)
    walk.cycles_momentum = manifest.cycles_momentum
    return walk


def _there(walks: Walks, plan: Plan) -> Recorded:
    """The step of one walk, if PyTorch has taken it."""
    taken = walks[plan.name]
    if taken.raised is not None:
        raise ParityError(taken.raised)
    return taken


def _joined(taken: Recorded, n: int, batch: Convert, manifest: Manifest) -> Any:
    """The batch of step ``n``, as the JAX half takes it."""
    with blame("batch", n):
        return joined([batch(x) for x in taken.batches], manifest.accumulate)


def _doubtful(walks: Sequence[Follower], manifest: Manifest) -> bool:
    """Whether ``parity.run`` would have looked again at what diverges."""
    free, synced, *low = (walk.ledger.diverged for walk in walks)
    grows = manifest.history_size is not None and synced
    return grows or (any(low) and not (free or synced))


def _nothing_drawn() -> Callable[[], None]:
    """Nothing is drawn at random here, so there is nothing to go back to."""
    return lambda: None


def _both(here: dict[str, str], there: dict[str, str]) -> dict[str, str]:
    """This machine, and what the recording was made with where that is another."""
    others = {f"recorded {x}": value for x, value in there.items() if here.get(x) != value}
    others.pop("recorded torch", None)
    return here | others | {"torch": there["torch"]}
