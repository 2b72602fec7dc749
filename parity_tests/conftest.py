"""Fixtures and the two comparisons that every test uses. The tolerances are instep's own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import jax
import numpy as np
import pytest
import torch

from instep.parity._judge import measure
from instep.parity._records import Status


@contextlib.contextmanager
def strict_float64() -> Iterator[None]:
    """float64 on both sides, and no silent promotion between dtypes or ranks."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        try:
            yield
        finally:
            torch.set_default_dtype(default)


@pytest.fixture
def x64():
    """``strict_float64`` for one test."""
    with strict_float64():
        yield


@pytest.fixture(scope="module", autouse=True)
def forget_what_is_compiled():
    """JAX remembers 8192 compiled functions and, when these are full, none of the next."""
    yield
    jax.clear_caches()


def draw(*shape: int) -> np.ndarray:
    """Numbers about zero, the same for the same shape; float64."""
    return np.random.default_rng(sum(shape)).standard_normal(shape) / 2


def array(x) -> np.ndarray:
    return x.detach().numpy() if torch.is_tensor(x) else np.asarray(x)


def assert_in_step(
    torch_value, jax_value, what: str = "", at_least: float = 0.0, finite: bool = True
) -> None:
    """One leaf, by the float64 rule of ``instep.parity`` with a floor of zero.

    A number that passes through zero is judged by its largest magnitude so far: ``at_least``.
    Without ``finite``, infinities and NaN may be there, in both at the same places.
    """
    m = measure(0, array(torch_value), array(jax_value), floor=0.0, at_least=at_least)
    in_step = {Status.IN_STEP} if finite else {Status.IN_STEP, Status.NOT_FINITE}
    assert m.status in in_step, f"{what}: {m} (ratio {m.ratio:.3g})"


def assert_bitwise(a, b, what: str = "") -> None:
    """Two trees with the same structure, dtypes and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b), what
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.atleast_1d(x), np.atleast_1d(y)
        assert x.dtype == y.dtype and x.shape == y.shape, what
        np.testing.assert_array_equal(x.view(np.uint8), y.view(np.uint8), err_msg=what)
