"""Numbers that went through a lower precision and came back."""

from __future__ import annotations

from typing import Any

import numpy as np


ULPS = 8  # what the schedules keep in float32


def unless_rounded(value: Any, theirs: float) -> float:
    """``value`` as a float; ``theirs`` if no more than the dtype of ``value`` parts the two.

    A rate of 0.1 is 0.10000000149 in float32. Written back it would be another rate.
    """
    value = np.asarray(value)
    difference = abs(float(value) - float(theirs))
    same = difference <= ULPS * np.finfo(value.dtype).eps * abs(float(theirs))
    return float(theirs) if same and np.isfinite(theirs) else float(value)
