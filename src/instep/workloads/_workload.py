"""A training problem with two halves and a test set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np


if TYPE_CHECKING:
    from ..parity import Pair


class MakePair(Protocol):
    """Fresh halves at every call; the seed decides the weights and the order of the data."""

    def __call__(self, seed: int = 0) -> Pair: ...


@dataclass(frozen=True)
class Workload:
    """A pair to compare, and what it takes to train both halves to the end."""

    name: str
    summary: str
    make_pair: MakePair
    total_steps: int
    test_set: Callable[[], tuple[np.ndarray, np.ndarray]]  # (inputs as PyTorch's, labels)
