"""What an optimizer makes of gradients: of all, of some, and of none when a step is skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ._state import Hyperparams, PlateauState, PyTree
from ._trees import named_leaves


Closure = Callable[[PyTree], tuple[jax.Array, PyTree]]  # params -> (loss, grads)


def evaluations(loss: jax.Array, grads: PyTree, closure: Closure | None) -> dict[str, Any]:
    """The loss and how to get it elsewhere, as extra arguments of ``tx.update``.

    ``value`` and ``closure`` are those of ``instep.optim.lbfgs``; ``value``, ``grad`` and
    ``value_fn`` those of the line searches of optax.
    """
    known: dict[str, Any] = {"value": loss, "grad": grads}
    if closure is None:
        return known

    # optax hands on to value_fn what it does not know, and insists that it is taken.
    def value_fn(params: PyTree, closure: Closure = closure) -> jax.Array:
        return closure(params)[0]

    return known | {"closure": closure, "value_fn": value_fn}


def update(
    tx: optax.GradientTransformation,
    grads: PyTree,
    params: PyTree,
    opt_state: PyTree,
    extra: Mapping[str, Any],
) -> tuple[PyTree, PyTree]:
    """``tx.update`` and ``optax.apply_updates``; a parameter without a gradient stays.

    Raises:
      ValueError: there is such a parameter, and ``tx`` cannot pass over it.
    """
    present = named_leaves(grads)
    frozen = [name for name in named_leaves(params) if name not in present]
    cause = None
    try:
        takes = isinstance(tx, optax.GradientTransformationExtraArgs)
        updates, new = tx.update(grads, opt_state, params, **extra if takes else {})
        if not frozen or jax.tree.structure(new) == jax.tree.structure(opt_state):
            return _applied(params, updates), new
    except (ValueError, TypeError, AttributeError) as error:
        if not frozen or _is_ours(opt_state):
            raise
        cause = error
    raise ValueError(
        f"tx cannot pass over leaves without a gradient: {frozen}. The optimizers of "
        f"instep.optim do; around others put optax.masked(tx, mask), with a mask of bools "
        f"that is False there."
    ) from cause


def _is_ours(opt_state: PyTree) -> bool:
    """Whether an optimizer of ``instep.optim`` is inside, which passes over such leaves."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, Hyperparams))
    return any(isinstance(x, Hyperparams) for x in leaves)


def _applied(params: PyTree, updates: PyTree) -> PyTree:
    return jax.tree.map(
        lambda p, u: p if u is None else (p + u).astype(p.dtype), params, updates
    )


# The clocks of schedules: in PyTorch a scheduler does not know that a step was skipped.
_CLOCKS = (Hyperparams, PlateauState, optax.ScaleByScheduleState)
_INJECTED = optax.InjectStatefulHyperparamsState


def hold(skipped: jax.Array, old: PyTree, new: PyTree) -> PyTree:
    """``old`` where ``skipped``, else ``new``; schedules advance either way."""

    def choose(n: Any, o: Any) -> Any:
        if isinstance(n, _CLOCKS):
            return n
        if isinstance(n, _INJECTED):
            return n._replace(inner_state=hold(skipped, o.inner_state, n.inner_state))
        return jnp.where(skipped, o, n)

    known = (*_CLOCKS, _INJECTED)
    return jax.tree.map(choose, new, old, is_leaf=lambda x: isinstance(x, known))
