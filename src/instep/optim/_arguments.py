"""What the constructors make of their arguments: numbers, schedules, or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


Schedule = Callable[[Any], Any]
Hyperparam = float | jax.Array | np.ndarray | Schedule


def fixed(name: str, value: Any, interval: str = "(-inf, inf)") -> float:
    """Return a hyperparameter as a Python float; raise if it is out of range.

    A number is kept in double precision on the host, never as a JAX array, so that a
    constructor called before x64 is switched on does not round it.

    Args:
      name: as the user calls it.
      value: a number, or an array or tensor of one element.
      interval: where it must lie, as mathematics writes it: ``"[0, 1)"``.

    Raises:
      TypeError: it is not a number.
      ValueError: it has more than one element, or lies outside.
    """
    if callable(value) or isinstance(value, Tracer | str) or value is None:
        raise TypeError(
            f"{name} must be a number; got {value!r}. Only lr, momentum and betas[0] may be "
            f"schedules, where the optimizer has them."
        )
    array = np.asarray(value)
    if array.dtype == object:
        raise TypeError(
            f"{name} must be a number; got a {type(value).__name__}. An optimizer is made "
            f"without the parameters: tx = adamw(1e-3); opt_state = tx.init(params)."
        )
    if array.size != 1:
        raise ValueError(f"{name} must be a scalar; got shape {array.shape}.")
    number = float(array.reshape(()))
    if not _lies_in(number, interval):
        raise ValueError(f"Invalid {name}: {number}. It must lie in {interval}.")
    return number


def scheduled(name: str, value: Hyperparam, interval: str = "[0, inf)") -> Any:
    """Return a hyperparameter that may be data: a number as ``fixed`` does, or a schedule.

    Raises:
      TypeError, ValueError: as ``fixed``.
    """
    if callable(value) or isinstance(value, Tracer):
        return value
    return fixed(name, value, interval)


def learning_rate(lr: Hyperparam, interval: str = "[0, inf)") -> Any:
    """The rate of an optimizer that has neither momentum nor betas.

    Raises:
      ValueError: the schedule also cycles the momentum, as in PyTorch.
    """
    if getattr(lr, "momentum", None) is not None:
        raise ValueError(
            "this schedule cycles the momentum too, and the optimizer has none. Make the "
            "schedule with cycle_momentum=False."
        )
    return scheduled("lr", lr, interval)


def learning_rate_and_momentum(lr: Hyperparam, momentum: Hyperparam) -> tuple[Any, Any]:
    """Rate and momentum; a schedule that cycles the momentum sets it, as in PyTorch."""
    cycled = getattr(lr, "momentum", None)
    momentum = momentum if cycled is None else cycled
    return scheduled("lr", lr), scheduled("momentum", momentum)


def learning_rate_and_betas(
    lr: Hyperparam, betas: tuple[Hyperparam, float], interval: str = "[0, inf)"
) -> tuple[Any, Any, float]:
    """Rate, beta1 and beta2; a schedule that cycles the momentum sets beta1, as in PyTorch."""
    arrays = [np.ndim(b) > 0 or hasattr(b, "dtype") for b in betas if not callable(b)]
    if any(arrays) and not all(arrays):
        raise ValueError(f"betas must be two numbers or two arrays; got {betas!r}.")
    cycled = getattr(lr, "momentum", None)
    beta1 = scheduled("betas[0]", betas[0] if cycled is None else cycled, "[0, 1)")
    return scheduled("lr", lr, interval), beta1, fixed("betas[1]", betas[1], "[0, 1)")


def _lies_in(number: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    return above and (number <= high if interval[-1] == "]" else number < high)
