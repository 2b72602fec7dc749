"""Operators of single elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .... import ops


SAME = """
abs neg positive reciprocal sqrt rsqrt square exp exp2 expm1 log log2 log10 log1p
sin cos tan asin acos atan sinh cosh asinh acosh atanh deg2rad rad2deg
floor ceil round trunc frac sign nan_to_num logit
add sub rsub mul div floor_divide remainder fmod pow float_power addcmul addcdiv lerp
atan2 hypot copysign maximum minimum fmax fmin clamp clamp_min clamp_max
eq ne lt le gt ge logical_and logical_or logical_xor logical_not
bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift
isnan isinf isfinite isposinf isneginf isreal signbit isclose masked_fill heaviside
xlogy logaddexp logaddexp2 erf erfc erfinv lgamma digamma sinc i0 mvlgamma
igamma igammac polygamma nextafter frexp gcd lcm sgn
"""
ALIASES = {
    "absolute": "abs",
    "negative": "neg",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "arctan2": "atan2",
    "fix": "trunc",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
    "clip": "clamp",
    "not_equal": "ne",
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
    "__and__": "bitwise_and",
    "__or__": "bitwise_or",
    "__xor__": "bitwise_xor",
    "__lshift__": "bitwise_left_shift",
    "__rshift__": "bitwise_right_shift",
    "special_xlogy": "xlogy",
    "special_xlog1py": "xlog1py",
    "special_expm1": "expm1",
    "special_exp2": "exp2",
    "special_log1p": "log1p",
    "special_erf": "erf",
    "special_erfc": "erfc",
    "special_erfinv": "erfinv",
    "special_gammaln": "lgamma",
    "special_digamma": "digamma",
    "special_psi": "digamma",
    "special_multigammaln": "mvlgamma",
    "special_gammainc": "igamma",
    "special_gammaincc": "igammac",
    "special_logit": "logit",
    "special_round": "round",
    "special_sinc": "sinc",
    "special_i0": "i0",
    "special_i0e": "i0e",
    "special_i1": "i1",
    "special_i1e": "i1e",
    "special_entr": "entr",
    "special_ndtri": "ndtri",
    "special_log_ndtr": "log_ndtr",
    "special_zeta": "zeta",
}


def _ldexp(input: Any, other: Any) -> Any:
    return ops.mul(input, ops.pow(2.0, other))


ATEN: dict[str, Callable[..., Any]] = {
    **{name: getattr(ops, name) for name in SAME.split()},
    **{alias: getattr(ops, name) for alias, name in ALIASES.items()},
    "where.self": ops.where,
    "where.ScalarOther": ops.where,
    "where.ScalarSelf": ops.where,
    "where.Scalar": ops.where,
    "ldexp": _ldexp,
    "special_polygamma": ops.polygamma,
}
