"""What a workload has learned: a mean over held-out labels, in NumPy for both halves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Metric:
    """A mean over labels of one function of the logits, whichever half they are of."""

    name: str  # as a report prints it
    each: Callable[[np.ndarray, np.ndarray], np.ndarray]  # float (..., C), int (...): (...)
    text: str  # how a value is written
    unit: str = ""  # behind the text
    higher_is_better: bool = False  # an accuracy, not a loss

    def reached(self, value: float, target: float) -> bool:
        """Whether ``value`` is as good as ``target``."""
        return value >= target if self.higher_is_better else value <= target


def _is_right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return logits.argmax(-1) == labels


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    of_label = np.take_along_axis(shifted, labels[..., None], -1)[..., 0]
    return np.log(np.exp(shifted).sum(-1, dtype=np.float64)) - of_label


ACCURACY = Metric("test accuracy", _is_right, "{:.1%}", higher_is_better=True)
NATS_PER_BYTE = Metric("validation loss", _cross_entropy, "{:.3f}", " nats per byte")
NATS_PER_CHARACTER = Metric("validation loss", _cross_entropy, "{:.3f}", " nats per character")
