"""The rule for one leaf: what is in step, what diverges, what is noise."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from instep.parity import Status, _tolerance
from instep.parity._judge import measure, measure_rounding, ulp
from instep.parity._records import Measurement


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda x: x, Status.IN_STEP),
        (lambda x: x * (1 + 1e-13), Status.IN_STEP),
        (lambda x: x * (1 + 1e-11), Status.DIVERGED),
        (lambda x: -x, Status.DIVERGED),
        (lambda x: x[:, None], Status.DIVERGED),
        (lambda x: np.where(x == x[0], np.nan, x), Status.DIVERGED),
        (lambda x: np.where(x == x[0], np.inf, x), Status.DIVERGED),
        (lambda x: x[::-1], Status.DIVERGED),
    ],
)
def test_measure(change, status):
    x = np.array([1.0, -2.0, 3.0])
    assert measure(1, x, change(x), floor=0.0).status is status


def test_measure_noise_and_not_finite():
    x = np.array([1.0, 2.0])
    assert measure(1, x, x * 1.5, floor=3e-6).status is Status.NOISE
    assert measure(1, x, x + 7e-7, floor=1e-7).status is Status.IN_STEP
    assert measure(1, x, x + 9e-7, floor=1e-7).status is Status.DIVERGED
    nan = np.array([np.nan, 1.0])
    assert measure(1, nan, nan, floor=0.0).status is Status.NOT_FINITE
    assert measure(1, nan, nan[::-1], floor=0.0).status is Status.DIVERGED
    assert measure(1, x, x, floor=np.inf).status is Status.NOISE
    assert measure(1, np.zeros(2), np.zeros(2), floor=0.0).status is Status.IN_STEP
    assert measure(1, np.zeros(2), np.full(2, 1e-300), floor=0.0).status is Status.DIVERGED


NAN, INF = np.array([np.nan, 1.0]), np.array([np.inf, 1.0])


@pytest.mark.parametrize(
    ("there", "here", "status"),
    [
        (NAN, NAN, Status.NOT_FINITE),
        (INF, INF, Status.NOT_FINITE),
        (INF, -INF, Status.DIVERGED),
        (NAN, INF, Status.DIVERGED),
        (NAN, np.ones(2), Status.DIVERGED),
        (np.ones(2), NAN, Status.DIVERGED),
        (np.ones(2), INF, Status.DIVERGED),
        (NAN, np.array([np.nan, 1.1]), Status.DIVERGED),
        (INF, np.array([np.inf, 1.1]), Status.DIVERGED),
        (NAN, np.array([np.nan, 1.0 + 1e-13]), Status.NOT_FINITE),
        (np.ones(2), np.ones((2, 1)), Status.DIVERGED),
        (np.ones(2), np.ones(3), Status.DIVERGED),
        (np.ones(1), np.array(1.0), Status.DIVERGED),
        (np.ones(2), np.float32(1) + np.float32([0, 1e-10]), Status.IN_STEP),
    ],
)
def test_places_of_infinities_and_shapes(there, here, status):
    m = measure(1, there, here, floor=0.0)
    assert m.status is status
    assert measure(1, there, here, floor=np.inf).status in (status, Status.NOISE)
    if m.error == np.inf:
        assert m.ratio == np.inf and measure(1, there, here, np.inf).status is status


def test_ratio():
    m = Measurement(1, Status.DIVERGED, error=2.0, floor=0.0, scale=0.0, bound=0.0)
    assert m.ratio == np.inf and replace(m, error=0.0).ratio == 0.0
    assert replace(m, bound=4.0).ratio == 0.5
    assert replace(m, error=np.inf, bound=np.inf).ratio == np.inf


EPS = {
    np.dtype(np.float32): 2.0**-23,
    np.dtype(np.float16): 2.0**-10,
    np.dtype(ml_dtypes.bfloat16): 2.0**-7,
}


ORACLE = np.linspace(1.0, 1.9, 10)  # so that the ulp of its maximum is the epsilon


@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_the_bound_is_four_times_pytorch_and_two_ulp(dtype):
    eps = EPS[dtype]
    of_torch = (ORACLE + 8 * eps).astype(dtype)
    e_torch = np.sqrt(np.mean((of_torch.astype(np.float64) - ORACLE) ** 2))
    bound = 4 * e_torch + 2 * eps
    for factor, status in ((0.999, Status.IN_STEP), (1.001, Status.DIVERGED)):
        m = measure_rounding(1, ORACLE, ORACLE - factor * bound, [of_torch])
        assert m.status is status and m.ratio == pytest.approx(factor)
        assert (m.floor, m.bound) == pytest.approx((e_torch, bound))


def test_the_largest_error_of_pytorch_counts():
    lucky, own = ORACLE.astype(np.float32), (ORACLE * (1 + 1e-3)).astype(np.float32)
    m = measure_rounding(1, ORACLE, ORACLE * (1 + 3e-3), [lucky, own, lucky])
    assert m.status is Status.IN_STEP
    assert measure_rounding(1, ORACLE, m.bound + ORACLE, [lucky]).status is Status.DIVERGED


@pytest.mark.parametrize(
    ("value", "like", "expected"),
    [
        (1.0, np.float32(0), 2.0**-23),
        (1.999, np.float32(0), 2.0**-23),
        (2.0, np.float32(0), 2.0**-22),
        (0.75, np.float64(0), 2.0**-24),  # a host number is float32 on the JAX side
        (3.0, np.array(0, ml_dtypes.bfloat16), 2.0**-6),
        (3.0, np.float16(0), 2.0**-9),
        (3.0, np.int64(0), 0.0),
        (0.0, np.float32(0), 0.0),
    ],
)
def test_ulp(value, like, expected):
    assert ulp(value, np.asarray(like)) == expected


def test_what_would_pass_as_zeros_is_noise():
    own = np.zeros(10, np.float32)
    m = measure_rounding(1, ORACLE, ORACLE, [own])
    assert m.status is Status.NOISE and m.bound > m.floor
    zeros = np.zeros(10)
    assert measure_rounding(1, zeros, zeros, [own]).status is Status.IN_STEP
    assert measure_rounding(1, zeros, zeros + 1e-30, [own]).status is Status.DIVERGED


def test_noise_is_no_excuse_for_more_than_noise():
    tiny = np.array([1e-17, -1e-17])
    assert measure(1, tiny, -tiny, floor=1e-17).status is Status.NOISE
    assert measure(1, tiny, tiny + 0.9e-11, floor=1e-17).status is Status.NOISE
    assert measure(1, tiny, tiny + 1.1e-11, floor=1e-17).status is Status.DIVERGED
    own = [np.zeros(10, np.float32)]  # what PyTorch has is all rounding
    bound = measure_rounding(1, ORACLE, ORACLE, own).bound
    assert measure_rounding(1, ORACLE, ORACLE + 0.9 * bound, own).status is Status.NOISE
    assert measure_rounding(1, ORACLE, ORACLE + 1.1 * bound, own).status is Status.DIVERGED


def test_a_count_must_be_equal():
    seven = np.array(7)
    assert measure_rounding(1, seven, np.array(7), [seven]).status is Status.IN_STEP
    assert measure_rounding(1, seven, np.array(8), [seven]).status is Status.DIVERGED


def test_shapes_and_infinities_diverge_in_every_precision():
    own = [ORACLE.astype(np.float32)]
    for wrong in (ORACLE[:5], np.where(ORACLE > 1.5, np.inf, ORACLE), ORACLE * np.nan):
        m = measure_rounding(1, ORACLE, wrong, own)
        assert m.status is Status.DIVERGED and m.ratio == np.inf


def test_the_numbers_are_the_documented_ones():
    t = _tolerance
    assert (t.RELATIVE, t.FLOOR_FACTOR, t.NOISE, t.DRAWS) == (1e-12, 8.0, 1e-6, 3)
    assert (t.ROUNDING_FACTOR, t.ROUNDING_ULPS, t.LOOKS, t.JUMP) == (4.0, 2.0, 32, 16.0)
