"""A step that is compiled once, and says what that shows: memory, operations, another shape."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from .._errors import RequestError
from .._signature import STRONGLY_TYPED, Signature, changed, signature
from .._state import Metrics, PyTree, TrainState
from ..sharding._sharded_step import ShardedStep
from ._flops import flops
from ._peaks import seconds_at_peak


REMEDY = (
    "Take smaller microbatches and more of them (accumulate=), compute activations again in "
    "the backward pass (jax.checkpoint, or remat= of from_torch), or compute in bfloat16."
)


class OutOfMemoryError(RequestError):
    """A step needs more memory than the device has."""


@dataclass(frozen=True)
class Compiled:
    """What is known of a step before it runs."""

    seconds: float  # to trace and compile it
    arguments: int  # bytes: the state and a batch
    temporaries: int  # bytes: activations, and outputs that do not take an argument's place
    limit: int | None  # bytes that the device gives
    flops: dict[str, int] | None  # see ``flops``
    at_peak: float | None  # seconds

    @property
    def total(self) -> int:
        """Bytes of arguments and temporaries."""
        return self.arguments + self.temporaries

    def __str__(self) -> str:
        """One line."""
        limit = "" if self.limit is None else f"; the device has {in_bytes(self.limit)}"
        return (
            f"compiled in {self.seconds:.1f} s. Memory of a step: {in_bytes(self.total)} "
            f"({in_bytes(self.arguments)} arguments, {in_bytes(self.temporaries)} "
            f"temporaries){limit}"
        )


class CompiledStep:
    """A jitted step; what it compiles is told, and a step that cannot fit is refused.

    Args:
      step: of ``seen_step``.
      on_compile: gets what is known when the first call is compiled, before it runs.
      on_recompile: gets a sentence when a later call is compiled again.
    """

    def __init__(
        self,
        step: Any,
        on_compile: Callable[[Compiled], None],
        on_recompile: Callable[[str], None],
    ):
        self._step = step
        self._on_compile, self._on_recompile = on_compile, on_recompile
        self._last: Signature | None = None
        self._calls = self._programs = 0

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        try:
            if self._last is None:
                self._first(state, batch)
            out = self._step(state, batch)
        except jax.errors.JaxRuntimeError as error:
            if (made := memory_error(error)) is None:
                raise
            raise made from error
        self._calls += 1
        programs = self._step._cache_size()
        if programs > self._programs and self._calls > 1:
            self._again(state, batch)
        self._programs = programs
        return out

    def _first(self, state: TrainState, batch: PyTree) -> None:
        self._last = signature(state, batch)
        start = time.perf_counter()
        jaxpr, compiled = _compiled(self._step, state, batch)
        found = _known(compiled, jaxpr, time.perf_counter() - start)
        self._on_compile(found)
        if found.limit is not None and found.total > found.limit:
            raise OutOfMemoryError(
                f"a step needs {in_bytes(found.total)} of memory and the device gives "
                f"{in_bytes(found.limit)}. {REMEDY}"
            )

    def _again(self, state: TrainState, batch: PyTree) -> None:
        assert self._last is not None
        now = signature(state, batch)
        if now != self._last:  # else the same program, for arrays placed in another way
            self._on_recompile(
                f"call {self._calls} of the step was compiled again: "
                f"{changed(self._last, now)}. {STRONGLY_TYPED}"
            )
        self._last = now


def memory_error(error: Exception) -> OutOfMemoryError | None:
    """What to do about ``error`` where it is that the memory was not enough."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        return None
    said = str(error).splitlines()[0]
    return OutOfMemoryError(f"the device has not enough memory: {said} {REMEDY}")


def device_bytes(name: str = "bytes_in_use") -> int | None:
    """What the first device of this process says of its memory; None: it does not."""
    stats = jax.local_devices()[0].memory_stats()
    return None if stats is None else stats.get(name)


def in_bytes(n: float) -> str:
    """``1.5 GB``"""
    for unit in ("B", "kB", "MB"):
        if n < 999.5:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB" if n < 999.5 else f"{n:,.0f} GB"


def _compiled(step: Any, state: TrainState, batch: PyTree) -> tuple[Any, Any]:
    """The jaxpr of a step, and its program, which is found when the step is called."""
    if isinstance(step, ShardedStep):
        return step.compiled(state, batch)
    traced = step.trace(state, batch)
    return traced.jaxpr, traced.lower().compile()


def _known(compiled: Any, jaxpr: Any, seconds: float) -> Compiled:
    memory, counted = compiled.memory_analysis(), flops(jaxpr)
    devices = {d for s in jax.tree.leaves(compiled.input_shardings) for d in s.device_set}
    at_peak = seconds_at_peak(counted, jax.devices()[0].device_kind, max(len(devices), 1))
    arguments = temporaries = 0
    if memory is not None:
        arguments = memory.argument_size_in_bytes
        new = memory.output_size_in_bytes - memory.alias_size_in_bytes
        temporaries = memory.temp_size_in_bytes + new
    limit = device_bytes("bytes_limit")
    return Compiled(seconds, arguments, temporaries, limit, counted, at_peak)
