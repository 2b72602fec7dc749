"""What the benchmark says of repeated times, and in which order it takes them."""

from math import comb

import numpy as np
import pytest

from instep import bench
from instep.bench._rounds import interleave
from instep.bench._settings import Settings


RATIO_1 = [0.9, 1.1, 1.0, 1.2, 0.8, 1.3]


def test_a_band_is_the_percentiles():
    assert bench.band(range(11)) == bench.Band(1.0, 5.0, 9.0)
    assert bench.band([3.0]) == bench.Band(3.0, 3.0, 3.0)


@pytest.mark.parametrize(("n", "rank"), [(6, 1), (8, 1), (9, 2), (20, 6), (40, 14), (100, 40)])
def test_the_interval_is_the_one_of_the_sign_test(n, rank):
    """Ranks from published tables of the distribution-free interval for a median at 95 %."""
    found = bench.paired_ratio(list(range(1, n + 1)), [1.0] * n)
    assert (found.low, found.high) == (rank, n + 1 - rank)
    outside = 2 * sum(comb(n, i) for i in range(rank)) / 2**n
    assert found.confidence == pytest.approx(1 - outside) and found.confidence >= 0.95


def test_few_rounds_resolve_nothing():
    found = bench.paired_ratio([1.0, 1.1, 1.2], [2.0, 2.0, 2.0])
    assert (found.low, found.high) == (0.5, 0.6)
    assert (found.confidence, found.verdict) == (0.75, "not resolved")


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.5, "below 1"), (1.0, "not resolved"), (2.0, "above 1")]
)
def test_the_verdict_of_a_ratio(factor, verdict):
    assert bench.paired_ratio([factor * x for x in RATIO_1], [1.0] * 6).verdict == verdict


def test_ratios_are_taken_within_the_round():
    """The machine slows down tenfold in half of the rounds; the ratio does not see it."""
    rng = np.random.default_rng(0)
    slow = np.where(np.arange(20) % 2, 10.0, 1.0)
    ours, theirs = slow * rng.normal(0.8, 0.01, 20), slow * rng.normal(1.0, 0.01, 20)
    found = bench.paired_ratio(list(ours), list(theirs))
    assert 0.77 < found.low < 0.8 < found.high < 0.83


def test_the_interval_holds_the_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [
        bench.paired_ratio(list(np.exp(rng.normal(0, 1, 20))), [1.0] * 20) for _ in range(800)
    ]
    held = np.mean([r.low <= 1.0 <= r.high for r in found])
    three_sigma = 3 * np.sqrt(0.05 * 0.95 / 800)
    assert held > found[0].confidence - three_sigma


def test_unpaired_times_are_refused():
    with pytest.raises(ValueError, match="from the same rounds; got 1 and 2"):
        bench.paired_ratio([1.0], [1.0, 2.0])


# Rounds.


class FakeWorker:
    """Takes ``seconds`` a step, and writes down who computes when."""

    def __init__(self, name, seconds, log):
        self.name, self.seconds, self.log = name, seconds, log

    def ask(self, steps):
        self.log.append((self.name, steps))
        return {"seconds": steps * self.seconds, "handed_over": 0.0}


def test_rounds_are_interleaved_in_changing_order_with_the_same_number_of_steps():
    log = []
    workers = {name: FakeWorker(name, s, log) for name, s in (("a", 0.01), ("b", 0.04))}
    rounds = interleave(workers, Settings(rounds=8, warm_up=1, pause=0.0))
    assert rounds.steps == 20  # 0.2 s of the faster
    blocks = [name for name, steps in log if steps == 20][-16:]
    pairs = [tuple(blocks[i : i + 2]) for i in range(0, 16, 2)]
    assert set(pairs) == {("a", "b"), ("b", "a")}
    assert rounds.seconds["a"] == pytest.approx([0.01] * 8)
