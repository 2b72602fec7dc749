"""Where the elements of a PackedSequence are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jax.core import Tracer


class Packing(NamedTuple):
    """Where the elements of a PackedSequence are in time and batch."""

    place_TB: np.ndarray  # in the data; anything where a sequence has ended
    goes_on_TB: np.ndarray
    time: np.ndarray
    sequence: np.ndarray

    @classmethod
    def of(cls, batch_sizes: Any) -> Packing:
        """Of the number of sequences that go on at each time."""
        if isinstance(batch_sizes, Tracer):
            raise NotImplementedError(
                "the batch_sizes of a PackedSequence must be constants of the program: they "
                "decide its shapes. Give padded sequences, or pack with lengths that are no "
                "input."
            )
        sizes_T = np.asarray(batch_sizes)
        goes_on_TB = np.arange(sizes_T[0]) < sizes_T[:, None]
        starts_T1 = np.cumsum(sizes_T)[:, None] - sizes_T[:, None]
        place_TB = np.where(goes_on_TB, starts_T1 + np.arange(sizes_T[0]), 0)
        return cls(place_TB, goes_on_TB, *np.nonzero(goes_on_TB))
