"""A training loop under way, as the worker drives it, and the table of all there are."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

import numpy as np

from .._errors import RequestError


if TYPE_CHECKING:
    from ..parity._leaf import Observation
    from ._problem import Problem


class BenchError(RequestError):
    """A contender cannot run here, or stopped; the message says which and why."""


@dataclass
class Contender:
    """One of those that are timed.

    Args:
      step: takes optimizer step ``n``, from 0, and need not wait for its result.
      wait: returns when everything is done.
      standing: the parameters and buffers of now, under PyTorch's names where there are any.
      loss: of the last step.
      device: on which it runs, as its framework calls it.
      notes: what was chosen for it, and is reported.
      forget_peak, peak: of the memory of the device, in bytes; None on the host.
    """

    step: Callable[[int], None]
    wait: Callable[[], None]
    standing: Callable[[], Observation]
    loss: Callable[[], float]
    device: str
    notes: dict[str, str] = field(default_factory=dict)
    forget_peak: Callable[[], None] = lambda: None
    peak: Callable[[], int | None] = lambda: None

    def observe(self) -> Observation:
        """The loss of the last step, and what stands after it."""
        from ..parity._leaf import LOSS

        return {LOSS: np.asarray(self.loss(), np.float64)} | self.standing()


class Build(Protocol):
    """Makes a contender of a fresh problem; ``option`` is what stands after the colon."""

    def __call__(self, problem: Problem, option: str, /) -> Contender: ...


class Entry(NamedTuple):
    """One kind of contender."""

    place: str  # module and function
    says: str
    framework: str  # "jax" or "torch": that it computes with
    needs_torch_half: bool


CONTENDERS = {
    "instep": Entry("._fused:fused", "instep's fused, jitted, donated step", "jax", False),
    "instep-lowered": Entry(
        "._fused:lowered", "the same, of the PyTorch half lowered by from_torch", "jax", True
    ),
    "jax-plain": Entry("._by_hand:plain", "the step by hand in jax and optax", "jax", False),
    "multisteps": Entry(
        "._by_hand:multi_steps", "optax.MultiSteps, called per microbatch", "jax", False
    ),
    "flax": Entry(
        "._flax:usual", "the usual loop of Flax: nnx.Optimizer, nnx.jit", "jax", True
    ),
    "torch-eager": Entry("._torch:eager", "PyTorch, eagerly", "torch", True),
    "torch-compile": Entry(
        "._torch:compiled",
        "torch.compile of the model; torch-compile:MODE in another mode",
        "torch",
        True,
    ),
}
"""What can be timed beside instep's step, by the name that ``run(against=)`` takes."""
FIRST = "instep"  # what all others are compared with


def parse(against: Sequence[str]) -> list[str]:
    """The names of all contenders of a run, ``instep`` first, each once.

    Raises:
      RequestError: there is none of that name.
    """
    named = list(dict.fromkeys([FIRST, *(name.strip() for name in against if name.strip())]))
    for name in named:
        kind, _, option = name.partition(":")
        if kind not in CONTENDERS or (option and kind != "torch-compile"):
            close = difflib.get_close_matches(kind, CONTENDERS, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise RequestError(
                f"no contender {name!r}{hint}. There are {', '.join(CONTENDERS)}; "
                f"torch-compile takes a mode: torch-compile:max-autotune-no-cudagraphs."
            )
    return named


def entry_of(name: str) -> Entry:
    """That of a contender, whatever its option."""
    return CONTENDERS[name.partition(":")[0]]


def build(name: str, problem: Problem) -> Contender:
    """Make the contender called ``name``.

    Raises:
      BenchError: it cannot be made of this TARGET; the message says why.
    """
    entry, option = entry_of(name), name.partition(":")[2]
    if entry.needs_torch_half and problem.torch_loop is None:
        raise BenchError(
            f"{name} needs a PyTorch half, and {problem.name} is a JaxLoop alone. Compare with "
            f"jax-plain or multisteps, or give an instep.Pair."
        )
    module, _, function = entry.place.partition(":")
    make: Build = getattr(import_module(module, __package__), function)
    return make(problem, option)


def refuse(name: str, why: str) -> NoReturn:
    """Raise a ``BenchError`` that tells how to go on without this contender."""
    raise BenchError(f"{name} cannot run this TARGET: {why}. Leave it out of --against.")
