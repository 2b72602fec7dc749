"""The plain runner: restore, step, save."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ._loop import JaxLoop, initial_state, train_step
from ._state import Metrics, PyTree, TrainState
from ._step import TrainStep
from ._trees import describe, named_leaves
from .sharding import place


if TYPE_CHECKING:
    from .checkpoint import Checkpointer
    from .data import BatchIterator

OnStep = Callable[[int, Metrics], Any]
OnSave = Callable[[int, TrainState], Mapping[str, Any] | None]


def train(
    loop: JaxLoop,
    steps: int,
    *,
    checkpointer: Checkpointer | None = None,
    save_every: int = 1000,
    resume: bool = True,
    stop_on_nan: bool = False,
    on_step: OnStep | None = None,
    on_save: OnSave | None = None,
) -> TrainState:
    """Run a loop until its state has taken ``steps`` optimizer steps.

    PyTorch::

        for batch in itertools.islice(batches, start, steps):
            ...  # zero_grad, forward, loss, backward, step
            if step % save_every == 0: torch.save(...)

    A process that is killed and started again with the same arguments ends with the same bits
    as one that was not: what was done after the last save is done again, on the same batches.

    At SIGTERM it finishes the step, saves and returns the state, whose ``step`` is less than
    ``steps``. The only process does so when it is called in its main thread; of several, one
    that is told is enough, and all stop after the same step.

    Args:
      loop: its ``batches`` are what ``instep.data.stream`` takes; they are gone through again
        as often as it takes.
      steps: of the state, those before a restart included.
      checkpointer: where to save; None: nowhere. It is not closed.
      save_every: steps between two saves; the last state is saved too.
      resume: go on from what ``checkpointer`` restores. With False its folder must be empty.
      stop_on_nan: check every step's metrics and parameters, and raise where one is not finite.
        A step that the scaler skips is not checked for its metrics. A state with such numbers
        is never saved.
      on_step: ``(n, metrics)`` after step n, counted from 1; ``metrics`` is in NumPy. It is
        called when the next step is dispatched already, so that reading does not stall it.
      on_save: ``(n, state)`` before a save; the numbers it returns are kept as metrics of the
        checkpoint beside ``loss`` and ``grad_norm``. The state is valid until it returns.

    Returns:
      The state, when everything is written.

    Raises:
      TypeError: ``loop`` is no ``JaxLoop``.
      ValueError: there are no batches; or the folder is not empty and ``resume`` is False, or
        is not shared by all processes.
      FloatingPointError: ``stop_on_nan``; the message names the first leaf, and the step.
      CheckpointError: the checkpoint is of another training.
    """
    if not isinstance(loop, JaxLoop):
        raise TypeError(
            f"train takes an instep.JaxLoop; got {type(loop).__name__}. A TorchLoop goes "
            f"through instep.from_torch and a loop of your own, or through the command "
            f"instep train."
        )
    if loop.batches is None:
        raise ValueError("the loop has no batches. Give JaxLoop(batches=...).")
    if save_every < 1:
        raise ValueError(f"save_every must be at least 1; got {save_every}.")
    state = initial_state(loop)
    if loop.mesh is not None:  # where a checkpoint is restored to
        state = place(state, loop.mesh, loop.sharding)
    return run(
        train_step(loop),
        state,
        loop.batches,
        steps,
        checkpointer=checkpointer,
        save_every=save_every,
        resume=resume,
        stop_on_nan=stop_on_nan,
        on_step=on_step,
        on_save=on_save,
    )


def run(
    step: TrainStep,
    state: TrainState,
    batches: Iterable[PyTree],
    steps: int,
    *,
    checkpointer: Checkpointer | None = None,
    save_every: int = 1000,
    resume: bool = True,
    stop_on_nan: bool = False,
    on_step: OnStep | None = None,
    on_save: OnSave | None = None,
) -> TrainState:
    """``train`` with a step and a first state of your own; ``step`` may donate its state."""
    from .data import stream
    from .data._stream import close_all

    iterator = iter(stream(batches))
    try:
        state = _start(state, iterator, checkpointer, resume)
        loop = _Run(checkpointer, save_every, stop_on_nan, on_step, on_save)
        with _sigterm() as stop:
            state = loop(step, state, iterator, steps, stop)
        if checkpointer is not None:
            checkpointer.wait()
        return state
    finally:
        close_all(iterator)


def _start(
    state: TrainState, batches: BatchIterator, checkpointer: Checkpointer | None, resume: bool
) -> TrainState:
    if checkpointer is None:
        return state
    if not resume:
        if there := checkpointer.steps():
            raise ValueError(
                f"{checkpointer.folder} has checkpoints, the last of step {there[-1]}. Go on "
                f"from it with resume=True, or give another folder."
            )
        return state
    _check_shared(checkpointer)
    restored = checkpointer.restore(like=state)
    if restored is None:
        return state
    state, position = restored
    batches.restore(position)
    return state


def _check_shared(checkpointer: Checkpointer) -> None:
    """Raise where a folder is another one on another process."""
    if jax.process_count() == 1:
        return
    newest = max(checkpointer.steps(), default=-1)
    found = [int(n) for n in multihost_utils.process_allgather(np.int32(newest))]
    if len(set(found)) > 1:
        raise ValueError(
            f"the newest checkpoints that the processes see in {checkpointer.folder} are of "
            f"steps {found} (-1: none). Give a folder that all of them share."
        )


@dataclass
class _Run:
    """The loop itself; the metrics of a step are read when the next one is dispatched."""

    checkpointer: Checkpointer | None
    save_every: int
    stop_on_nan: bool
    on_step: OnStep | None
    on_save: OnSave | None
    pending: tuple[int, Metrics, PyTree] | None = None  # step, its metrics, finite leaves
    metrics: Metrics | None = None  # of the last step that was read

    def __call__(
        self,
        step: TrainStep,
        state: TrainState,
        batches: BatchIterator,
        steps: int,
        stop: Callable[[int], bool],
    ) -> TrainState:
        start = saved = n = int(state.step)
        while n < steps and not stop(n):
            before, (state, metrics) = state, step(state, _next(batches, n, steps))
            if n == start and self.checkpointer is not None:
                _check_same(before, state)
            n += 1
            finite = _finite(state.params) if self.stop_on_nan else None
            self.read()
            self.pending = n, metrics, finite
            if n % self.save_every == 0:
                saved = self.save(n, state, batches)
        self.read()
        if n > saved:
            self.save(n, state, batches)
        return state

    def read(self) -> None:
        """Wait for the step before, check it and report it."""
        if self.pending is None:
            return
        n, metrics, finite = jax.device_get(self.pending)
        self.pending, self.metrics = None, metrics
        if self.on_step is not None:
            self.on_step(n, metrics)
        if finite is not None:
            _check_finite(n, metrics, finite, self.checkpointer)

    def save(self, n: int, state: TrainState, batches: BatchIterator) -> int:
        if self.checkpointer is None:
            return n
        self.read()  # a state that is not finite is not saved
        numbers = {}
        if self.metrics is not None:
            numbers["loss"] = self.metrics.loss
            if self.metrics.grad_norm is not None:
                numbers["grad_norm"] = self.metrics.grad_norm
        if self.on_save is not None:
            numbers |= self.on_save(n, state) or {}
        self.checkpointer.save(state, batches.state(), numbers)
        return n


def _next(batches: Iterator[PyTree], n: int, steps: int) -> PyTree:
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(
            f"the batches ended after step {n} of {steps}. Repeat them, for example with "
            f"grain's .repeat(), or ask for fewer steps."
        ) from None


def _check_same(before: TrainState, after: TrainState) -> None:
    """A state that changes its leaves would not fit the one it is restored into."""
    old, new = named_leaves(before), named_leaves(after)
    for name in {**old, **new}:
        was, now = (describe(x[name]) if name in x else "absent" for x in (old, new))
        if was != now:
            raise TypeError(
                f"{name} is {was} before the step and {now} after it, so a checkpoint could "
                f"not be restored. Let the loss_fn or tx keep it as it is."
            )


@jax.jit
def _finite(params: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.isfinite(x).all(), params)


def _check_finite(
    n: int, metrics: Metrics, finite: PyTree, checkpointer: Checkpointer | None
) -> None:
    """Raise FloatingPointError for the first leaf that is not finite."""
    skipped = metrics.skipped is not None and bool(metrics.skipped)
    seen = {} if skipped else named_leaves(metrics)
    for name, x in seen.items():
        if jnp.issubdtype(x.dtype, jnp.inexact) and not np.isfinite(x).all():
            raise _not_finite(n, f"metrics.{name}", x, checkpointer)
    for name, good in named_leaves(finite).items():
        if not good:
            raise _not_finite(n, f"params.{name}", None, checkpointer)


def _not_finite(
    n: int, name: str, value: Any, checkpointer: Checkpointer | None
) -> FloatingPointError:
    shown = f": {value}" if value is not None and np.ndim(value) == 0 else ""
    last = "There is no checkpoint"
    if checkpointer is not None:
        checkpointer.wait()  # for one that is being written
        if there := checkpointer.steps():
            last = f"The last checkpoint is {checkpointer.folder / str(there[-1])}"
    return FloatingPointError(
        f"step {n}: {name} is not finite{shown}. {last}; look at the batch, the learning rate "
        f"or clip_grad_norm."
    )


@contextmanager
def _sigterm() -> Iterator[Callable[[int], bool]]:
    """``n -> whether to stop after step n``, since SIGTERM came; the handler comes back."""
    if jax.process_count() > 1:  # JAX handles it, and makes all of them stop at one step
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda n: False
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        yield lambda n: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
