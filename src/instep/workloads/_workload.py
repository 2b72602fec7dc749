"""A training problem with two halves, held-out data, and what both halves reach on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ._metric import Metric


if TYPE_CHECKING:
    from ..parity import Pair


class MakePair(Protocol):
    """Fresh halves at every call; the seed decides the weights and the order of the data."""

    def __call__(self, seed: int = 0) -> Pair: ...


@dataclass(frozen=True)
class FlaxHalf:
    """The Flax half as Flax's usual loop takes it: ``loss_fn(model, batch)`` is a scalar."""

    model: Any
    loss_fn: Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Workload:
    """A pair to compare, and what it takes to train both halves to the end.

    ``held_out`` returns microbatches ``(inputs, labels)`` as PyTorch's loader yields them, of
    data that training does not see. After ``total_steps`` in float32 the ``metric`` on them is
    ``target`` or better in both halves. None: a size that nobody trains on a CPU.
    """

    name: str  # what ``get`` takes
    summary: str  # one line for ``instep list``
    make_pair: MakePair  # fresh halves at every call
    total_steps: int
    held_out: Callable[[], Iterable[tuple[Any, Any]]]
    metric: Metric
    target: float | None
    precision: str = "float32"  # or "bf16": of the matrix products and attention
    flax: Callable[[], FlaxHalf] | None = None  # of the first weights
