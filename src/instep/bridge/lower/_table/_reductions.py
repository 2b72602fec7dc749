"""Reductions, cumulative sums, sorting and products of matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .... import ops


SAME = """
nansum nanmean count_nonzero logsumexp amax amin aminmax max min argmax argmin all any
cumsum cumprod cummax cummin logcumsumexp diff
median nanmedian mode kthvalue msort topk
matmul mm bmm mv dot vdot outer inner tensordot addmm addmv addr baddbmm addbmm kron dist
trace cross linalg_cross logdet searchsorted bucketize histc cov corrcoef renorm
"""


def _over_all(function: Callable[..., Any]) -> Callable[..., Any]:
    """The overload without ``dim``."""

    def call(input: Any, *, dtype: Any = None) -> Any:
        return function(input, dtype=dtype)

    return call


def _moments(function: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The three overloads of a variance."""

    def default(input: Any, unbiased: bool) -> Any:
        return function(input, correction=int(unbiased))

    def dim(input: Any, dim: Any, unbiased: bool, keepdim: bool) -> Any:
        return function(input, dim, correction=int(unbiased), keepdim=keepdim)

    name = function.__name__
    return {f"{name}.default": default, f"{name}.dim": dim, f"{name}.correction": function}


def _sort(input: Any, dim: int, descending: bool) -> Any:
    return ops.sort(input, dim, descending)


def _argsort_stable(input: Any, *, stable: bool, dim: int, descending: bool) -> Any:
    return ops.argsort(input, dim, descending, stable)


def _sort_stable(input: Any, *, stable: bool | None, dim: int, descending: bool) -> Any:
    return ops.sort(input, dim, descending, stable)


ATEN: dict[str, Callable[..., Any]] = {
    **{name: getattr(ops, name) for name in SAME.split()},
    **_moments(ops.var),
    **_moments(ops.std),
    **_moments(ops.var_mean),
    **_moments(ops.std_mean),
    "sum.default": _over_all(ops.sum),
    "sum.dim_IntList": ops.sum,
    "mean.default": _over_all(ops.mean),
    "mean.dim": ops.mean,
    "prod.default": _over_all(ops.prod),
    "prod.dim_int": ops.prod,
    "special_logsumexp": ops.logsumexp,
    "norm": ops.norm,
    "trapezoid.dx": ops.trapezoid,
    "trapezoid.x": ops.trapezoid,
    "trapz.dx": ops.trapezoid,
    "trapz.x": ops.trapezoid,
    "cumulative_trapezoid.dx": ops.cumulative_trapezoid,
    "cumulative_trapezoid.x": ops.cumulative_trapezoid,
    "sort.default": _sort,
    "sort.stable": _sort_stable,
    "argsort.default": ops.argsort,
    "argsort.stable": _argsort_stable,
    "ger": ops.outer,
}
