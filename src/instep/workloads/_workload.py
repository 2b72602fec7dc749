"""A training problem with two halves and a test set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from ..parity import Pair


@dataclass(frozen=True)
class Workload:
    """A pair to compare, and what it takes to train both halves to the end."""

    name: str
    summary: str
    make_pair: Callable[[], Pair]  # fresh objects at every call
    total_steps: int
    test_set: Callable[[], tuple[np.ndarray, np.ndarray]]  # (inputs as PyTorch's, labels)
