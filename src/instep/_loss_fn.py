"""The two signatures of a ``loss_fn``, and the one form the core works with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from ._state import Loss, PyTree


LossFn = Callable[..., Any]
CanonicalLossFn = Callable[[PyTree, PyTree, PyTree, Any], Loss]

_SIGNATURES = "loss_fn(params, batch) or loss_fn(params, buffers, batch, rng)"


def canonical(loss_fn: LossFn) -> CanonicalLossFn:
    """Give ``loss_fn`` the form ``(params, buffers, batch, rng) -> Loss``.

    Args:
      loss_fn: takes exactly two positional parameters ``(params, batch)`` or exactly four
        ``(params, buffers, batch, rng)``, and returns a floating scalar or a ``Loss``.

    Raises:
      TypeError: another number of parameters; and, when called, another return value.
    """
    parameters = _positional_parameters(loss_fn)
    if len(parameters) == 2:

        def call(params, buffers, batch, rng):
            del buffers, rng
            return _as_loss(loss_fn(params, batch))

    elif len(parameters) == 4:

        def call(params, buffers, batch, rng):
            return _as_loss(loss_fn(params, buffers, batch, rng))

    else:
        name = getattr(loss_fn, "__name__", repr(loss_fn))
        raise TypeError(
            f"loss_fn takes {_SIGNATURES}; {name} takes {len(parameters)} positional "
            f"parameters: ({', '.join(parameters)}). Bind the others with "
            f"functools.partial or make them keyword-only."
        )
    return call


def _positional_parameters(loss_fn: LossFn) -> list[str]:
    try:
        signature = inspect.signature(loss_fn)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"loss_fn takes {_SIGNATURES}; the signature of {loss_fn!r} cannot be read. "
            f"Wrap it in a function that has one of these."
        ) from error
    kinds = inspect.Parameter
    names = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is kinds.VAR_POSITIONAL:
            names.append(f"*{name}")
        elif parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD):
            names.append(name)
    if any(name.startswith("*") for name in names):
        raise TypeError(
            f"loss_fn takes {_SIGNATURES}; found ({', '.join(names)}), whose meaning "
            f"cannot be told. Write the parameters out."
        )
    return names


def _as_loss(returned: Any) -> Loss:
    if isinstance(returned, tuple | list):
        raise TypeError(
            f"loss_fn returned a {type(returned).__name__} of {len(returned)}; its meaning "
            f"cannot be told. Return a scalar, or instep.Loss(total, weight=..., "
            f"buffers=..., metrics=...)."
        )
    loss = returned if isinstance(returned, Loss) else Loss(returned)
    for field in ("total", "weight"):
        value = getattr(loss, field)
        if not hasattr(value, "dtype") and not isinstance(value, float | int):
            raise TypeError(
                f"the {field} of the loss is a {type(value).__name__}, not a scalar array. "
                f"Return a scalar or instep.Loss(total, weight)."
            )
        if np.shape(value) != ():
            raise TypeError(
                f"the {field} of the loss has shape {np.shape(value)}, not (). Reduce it: "
                f"loss.mean(), or instep.Loss(loss.sum(), weight=loss.size)."
            )
    if not jnp.issubdtype(jnp.result_type(loss.total), jnp.floating):
        raise TypeError(
            f"the loss has dtype {jnp.result_type(loss.total)}; only a floating loss has "
            f"gradients. Cast what it is computed from."
        )
    return loss
