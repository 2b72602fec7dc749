"""Arguments as Python numbers: never JAX arrays, so that x64 may be switched on later."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.core import Tracer


def number(name: str, value: Any) -> float:
    """Return ``value`` as a Python float.

    Raises:
      TypeError: it is not a number.
    """
    if isinstance(value, Tracer | str) or callable(value) or np.ndim(value) != 0:
        raise TypeError(f"{name} must be a number; got {value!r}.")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a number; got {value!r}.") from error


def integer(name: str, value: Any, low: int = 1) -> int:
    """Return ``value`` as a Python int.

    Raises:
      ValueError: it is not integral or below ``low``.
    """
    kind = {0: "an integer >= 0", 1: "a positive integer"}[low]
    try:
        result = int(value)
        if result == value and result >= low:
            return result
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{name} must be {kind}; got {name}={value!r}.")


def choice(name: str, value: Any, *choices: str) -> str:
    """Return ``value``; raise ValueError if it is not one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}; got {name}={value!r}.")
    return value
