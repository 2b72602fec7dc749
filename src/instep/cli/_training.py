"""What ``instep train`` does, from its TARGET to the last line it prints."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from jax.experimental import multihost_utils

from .. import data, progress
from .._errors import RequestError
from .._state import TrainState
from .._train import run
from ..progress._compile import memory_error
from ..progress._display import clock
from ..workloads._target import resolve
from ._console import err, out
from ._distributed import join, on_mesh, shared_out
from ._loops import Trainable, trainable


if TYPE_CHECKING:
    from ..checkpoint import Checkpointer


@dataclass(frozen=True)
class Options:
    """The options of the command, by their names."""

    checkpoint_dir: Path | None
    save_every: int
    keep: int
    resume: bool
    validate_every: int | None
    ema: float | None
    metrics: Path | None
    tensorboard: Path | None
    profile: Path | None
    log_every: int | None
    stop_on_nan: bool
    distributed: bool


def trained(target: str, steps: int | None, options: Options) -> int:
    """Train, and print what was done; the exit code."""
    with ExitStack() as stack:
        if options.distributed:
            join(stack)
        found = trainable(resolve(target), target, steps)
        _check(found, target, options)
        found, batches = _laid_out(found, options)
        path = _metrics_path(target, options)
        checkpointer = None
        if options.checkpoint_dir is not None:
            from ..checkpoint import Checkpointer

            checkpointer = stack.enter_context(
                Checkpointer(options.checkpoint_dir, options.keep)
            )
            if not options.resume and (there := checkpointer.steps()):
                raise RequestError(
                    f"{options.checkpoint_dir} has checkpoints, the last of step {there[-1]}. "
                    f"Leave --no-resume out to go on from it, or give another folder."
                )
        watch, file = _watch(found, target, path, options)
        began = time.perf_counter()
        with _closing(watch):
            state = _run(found, batches, watch, checkpointer, options)
        return _told(found, state, watch, file, checkpointer, time.perf_counter() - began)


def _laid_out(found: Trainable, options: Options) -> tuple[Trainable, data.BatchStream]:
    """What is run on the devices there are, and its batches, made ahead."""
    loop = found.loop
    assert loop.batches is not None
    if options.distributed:
        loop, batches = shared_out(loop)
    elif loop.mesh is not None:
        batches = on_mesh(loop)
    else:
        batches = data.prefetch(loop.batches)
    return replace(found, loop=loop), batches


def _run(
    found: Trainable,
    batches: data.BatchStream,
    watch: progress.Watch,
    checkpointer: Checkpointer | None,
    options: Options,
) -> TrainState:
    try:
        return run(
            watch.step,
            progress.seen_state(found.loop, options.ema),
            batches,
            found.steps,
            checkpointer=checkpointer,
            save_every=options.save_every,
            resume=options.resume,
            stop_on_nan=options.stop_on_nan,
            on_step=watch.on_step,
            on_save=watch.on_save,
        )
    except jax.errors.JaxRuntimeError as error:
        if (made := memory_error(error)) is None:
            raise
        raise made from error


def _watch(
    found: Trainable, target: str, path: Path, options: Options
) -> tuple[progress.Watch, progress.MetricsFile | None]:
    first = jax.process_index() == 0  # the others train, and write nothing
    if not first:
        display = progress.Quiet()
    elif err.is_terminal:
        display = progress.Live(err, Path(target).name, found.steps)
    else:
        every = options.log_every or max(found.steps // 20, 1)
        display = progress.Plain(err, found.steps, every)
    sinks: list[Any] = []
    file = None
    if first:
        file = progress.MetricsFile(path, _header(target, found.steps))
        sinks.append(file)
        if options.tensorboard is not None:
            sinks.append(progress.TensorBoard(options.tensorboard))
    profile = None
    if options.profile is not None and first:
        profile = progress.Profile(options.profile, display.say)

    name = found.metric if options.ema is None else f"{found.metric} of the average"

    def validate(state: TrainState) -> dict[str, float]:
        assert found.measure is not None
        weights = progress.evaluated(state)
        if jax.process_count() > 1:  # it takes what one process holds
            weights = multihost_utils.process_allgather(weights, tiled=True)
        return {name: found.measure(*weights)}

    watch = progress.Watch(
        progress.seen_step(found.loop, options.ema),
        found.steps,
        found.loop.accumulate,
        display,
        sinks,
        validate,
        options.validate_every,
        profile,
    )
    return watch, file


@contextmanager
def _closing(watch: progress.Watch) -> Iterator[None]:
    try:
        yield
    finally:
        watch.close()


def _told(
    found: Trainable,
    state: TrainState,
    watch: progress.Watch,
    file: progress.MetricsFile | None,
    checkpointer: Checkpointer | None,
    seconds: float,
) -> int:
    """Print what was done; the exit code."""
    n, last = int(state.step), watch.last
    lost = n < found.steps and checkpointer is None
    if file is None:  # another process says it
        return int(lost)
    if last is None:
        _say(f"nothing to do: {checkpointer and checkpointer.folder} is at step {n} already.")
        return 0
    begun = last.step - watch.count
    of = f" (from {begun})" if begun else ""
    values = [f"loss {last.loss:.4g}"]
    values += [f"{name} {value:.4g}" for name, value in last.validation.items()]
    _say(f"step {n} of {found.steps}{of} in {clock(seconds)}; {', '.join(values)}")
    if watch.not_finite is not None:
        _say(f"The loss of step {watch.not_finite} is not finite. --stop-on-nan stops there.")
    _say(f"metrics      {file.path}")
    if file.moved is not None:
        _say(f"             (of the run before: {file.moved})")
    if checkpointer is not None:
        _say(f"checkpoint   {checkpointer.folder / str(n)}")
    if n >= found.steps:
        return 0
    if lost:
        _say("Stopped by SIGTERM; nothing was saved. Give --checkpoint-dir to go on later.")
        return 1
    _say("Stopped by SIGTERM and saved. The same command goes on from there.")
    return 0


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _check(found: Trainable, target: str, options: Options) -> None:
    """Errors that would come late."""
    if options.validate_every is not None and found.measure is None:
        raise RequestError(
            f"{target} has no held-out data to validate on. Leave --validate-every out, or let "
            f"the callable return an instep.workloads.Workload."
        )
    given = options.metrics
    if given is not None and not given.parent.is_dir():
        raise RequestError(f"no folder {str(given.parent)!r} to write {given.name} in.")


def _metrics_path(target: str, options: Options) -> Path:
    if options.metrics is not None:
        return options.metrics
    if options.checkpoint_dir is None:
        return Path(f"{Path(target).name.replace(':', '-')}.jsonl")
    options.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    return options.checkpoint_dir / "metrics.jsonl"


def _header(target: str, steps: int) -> dict[str, Any]:
    from ..parity._environment import environment

    return {
        "target": target,
        "steps": steps,
        "command": shlex.join(["instep", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "devices": jax.device_count(),
        "environment": environment(),
    }
