"""The precision of matrix products."""

from __future__ import annotations

from collections.abc import Callable

import jax


def at_precision(fn: Callable, matmul_precision: str | None) -> Callable:
    """``fn`` under ``jax.default_matmul_precision``; None leaves JAX's own."""
    if matmul_precision is None:
        return fn

    def fn_at_precision(*args):
        with jax.default_matmul_precision(matmul_precision):
            return fn(*args)

    return fn_at_precision
