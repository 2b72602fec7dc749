"""What is said of repeated times: a median, a band, and a ratio within the round.

Medians, since the machine has other things to do and never does ours faster. Ratios are taken
between two times of one round, so that what slows the machine down for a minute slows down
both; their interval rests on order alone, whatever the distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


CONFIDENCE = 0.95


@dataclass(frozen=True)
class Band:
    """The median of repeated measurements, and where 80 % of them lie."""

    p10: float  # 10th percentile
    median: float  # 50th
    p90: float  # 90th


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, with an interval for it.

    ``confidence`` is the probability that such an interval holds the median of what was
    sampled. It is at least ``CONFIDENCE`` from six rounds on; below, all that few rounds can
    say: the interval is then the smallest and the largest ratio.
    """

    median: float  # of the ratios
    low: float  # end of the interval
    high: float  # the other end
    confidence: float

    @property
    def verdict(self) -> str:
        """``"below 1"``, ``"above 1"``, or ``"not resolved"`` where the interval holds 1."""
        if self.confidence < CONFIDENCE or self.low <= 1.0 <= self.high:
            return "not resolved"
        return "below 1" if self.high < 1.0 else "above 1"


def band(values: Sequence[float]) -> Band:
    """Of at least one value; percentiles are interpolated between neighbours.

    Args:
      values: numbers, in float64 from here on.
    """
    p10, median, p90 = np.percentile(np.asarray(values, np.float64), [10, 50, 90])
    return Band(float(p10), float(median), float(p90))


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """The median of ``above[i] / below[i]``, and its interval by order statistics.

    Each ratio lies below the true median with probability 1/2, so the median lies between the
    k-th smallest and the k-th largest of n ratios with probability
    ``1 - 2 P(Binomial(n, 1/2) < k)``. The largest k is taken that leaves ``CONFIDENCE``.

    Args:
      above, below: as many numbers, the i-th of both from the same round.

    Raises:
      ValueError: the two are not of the same, positive length.
    """
    if len(above) != len(below) or not above:
        raise ValueError(
            f"paired times come from the same rounds; got {len(above)} and {len(below)}."
        )
    ratios = np.sort(np.asarray(above, np.float64) / np.asarray(below, np.float64))
    k, confidence = _rank(len(ratios))
    return Ratio(float(np.median(ratios)), float(ratios[k - 1]), float(ratios[-k]), confidence)


def _rank(n: int) -> tuple[int, float]:
    """The largest k whose interval is wide enough, at least 1, and its confidence."""
    k, tail = 1, 2 * math.comb(n, 0) / 2**n
    while k < (n + 1) // 2:
        wider = tail + 2 * math.comb(n, k) / 2**n
        if 1.0 - wider < CONFIDENCE:
            break
        k, tail = k + 1, wider
    return k, max(0.0, 1.0 - tail)
