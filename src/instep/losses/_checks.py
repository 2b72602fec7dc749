"""What is checked of shapes, and of values: outside ``jax.jit`` and inside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import checkify
from jax.experimental.xla_metadata import set_xla_metadata


P = ParamSpec("P")
T = TypeVar("T")

_CHECKED = ContextVar("checked", default=False)


def checked(fn: Callable[P, T]) -> Callable[P, T]:
    """Make ``fn`` raise what its losses find wrong with the values of labels and targets.

    A label out of range is an error at once where its value can be read, as it is in
    ``torch.nn.functional.cross_entropy``. Where JAX traces it (``jit``, ``vmap``, ``scan``, or
    ``grad`` by it) the loss and its gradient become NaN, which costs nothing and cannot be
    overlooked, but names no label. ``checked`` switches the message on, at the price of
    carrying it through the program: ``train_step = checked(make_train_step(...))`` while
    looking for the fault.

    Args:
      fn: a function of pytrees of arrays, of any dtype. It is compiled again for each call of
        ``checked``, and what it donates is kept.

    Returns:
      The function. It waits for the result, and raises
      ``jax.experimental.checkify.JaxRuntimeError`` when a check failed.
    """

    def with_checks(*args: P.args, **kwargs: P.kwargs) -> T:
        with _checks():
            return fn(*args, **kwargs)

    with_error = jax.jit(checkify.checkify(with_checks, errors=checkify.user_checks))

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        error, out = with_error(*args, **kwargs)
        error.throw()
        return out

    return call


@contextmanager
def _checks() -> Iterator[None]:
    """Inside, what is traced has its checks; also what was traced and jitted before.

    Only here: a program with checks, even where nobody asks for their outcome, is one that JAX
    calls through Python, ten times slower.
    """
    token = _CHECKED.set(True)
    try:
        with set_xla_metadata(instep_checked=True):  # under which JAX traces anew
            yield
    finally:
        _CHECKED.reset(token)


def nan_unless(valid: jax.Array) -> jax.Array:
    """A factor of 1, or of NaN, which makes NaN of a value and of its gradient."""
    return jnp.where(valid, 1.0, jnp.nan)


def check_values(name: str, values: Any, valid: Callable[[Any], Any], fault: str) -> None:
    """ValueError for values that are not ``valid``; of traced ones a check for ``checked``."""
    if isinstance(values, Tracer):
        if not _CHECKED.get() or not values.size:
            return
        ok = jnp.ravel(valid(values))
        wrong = jnp.ravel(values)[jnp.argmin(ok)]
        checkify.debug_check(jnp.all(ok), f"{name} [{{wrong}}] {fault}", wrong=wrong)
        return
    values = np.asarray(values)
    wrong = np.unique(values[~valid(values)])
    if wrong.size:
        raise ValueError(f"{name} {wrong.tolist()[:10]} {fault}")


def broadcast(name: str, weight: Any, like: jax.Array) -> jax.Array:
    """``weight`` in the shape and dtype of ``like``; ValueError if it does not broadcast."""
    try:
        return jnp.broadcast_to(jnp.asarray(weight, like.dtype), like.shape)
    except ValueError:
        raise ValueError(
            f"{name} has shape {np.shape(weight)}, which does not broadcast to {like.shape}."
        ) from None


def check_same_shape(**arrays: Any) -> None:
    """ValueError unless all of ``arrays`` that are there have the shape of the first."""
    (first, array), *others = arrays.items()
    for name, other in others:
        if other is not None and np.shape(other) != np.shape(array):
            raise ValueError(
                f"{name} has shape {np.shape(other)}, {first} has {np.shape(array)}. Reshape "
                f"one of them: broadcasting would pair every example with every other."
            )
