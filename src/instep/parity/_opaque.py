"""The JAX half of a walk when it is somebody's own step: opened through its view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._loop import OpaqueLoop
from .._state import PyTree, View
from .._trees import named_leaves
from ._jax_side import JaxWalk


def opaque(loop: OpaqueLoop, step: Callable, batch: PyTree, dtype: np.dtype) -> JaxWalk:
    """Walk somebody's own step from its own weights, cast to ``dtype``.

    ``step`` is from ``steps_of``. ``batch`` is the first one: the metrics it would give, as
    zeros, let ``view`` look at the state before the first step.
    """
    state = loop.state() if callable(loop.state) else loop.state
    _, metrics = jax.eval_shape(loop.step, _cast(state, dtype, set()), batch)
    metrics = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
    places = _places(loop, state, metrics)
    seen = _kept(loop.view(state, metrics)) if places else {}
    arrays = {
        place
        for place, (name, leaf) in zip(places or (), seen.items(), strict=True)
        if place is not None and not _scalar_of_optimizer(name, leaf)
    }
    state = _cast(state, dtype, arrays)

    def advance(state, batch):
        state, metrics = step(state, batch)
        # Copied, because the next step may donate the state.
        return state, jax.tree.map(np.array, loop.view(state, metrics))

    def write(state, view):
        leaves, treedef = jax.tree.flatten(state)
        for place, leaf in zip(places or (), _kept(view).values(), strict=True):
            if place is not None:
                leaves[place] = jnp.array(leaf, leaves[place].dtype)
        return treedef.unflatten(leaves)

    view = jax.tree.map(np.array, loop.view(state, metrics))
    hidden = _hidden(state, places or [])
    return JaxWalk(state, view, advance, write, _obstacle(view, places), hidden)


def _kept(view: View) -> dict[str, Any]:
    """The leaves of a view that a step hands to the next, by name."""
    return named_leaves(
        {"params": view.params, "buffers": view.buffers, "opt_state": view.opt_state}
    )


def _scalar_of_optimizer(name: str, leaf: Any) -> bool:
    """A count or a learning rate: they go on by themselves, in dtypes of their own."""
    return name.startswith("opt_state") and np.ndim(leaf) == 0


def _obstacle(view: View, places: list[int | None] | None) -> str | None:
    """Why ``write`` cannot reach all that a view shows."""
    if places is None:
        return "view computes with NumPy, so that what it shows is not found in the state"
    computed = [
        name
        for (name, leaf), place in zip(_kept(view).items(), places, strict=True)
        if place is None and not _scalar_of_optimizer(name, leaf)
    ]
    if computed:
        return f"view computes {', '.join(computed)} instead of handing on what the state has"
    return None


def _places(loop: OpaqueLoop, state: PyTree, metrics: PyTree) -> list[int | None] | None:
    """Where in the flat state each leaf of ``_kept`` comes from; None: it is computed.

    Traced with abstract values: a leaf that ``view`` hands on as it is keeps its identity.
    None for all if ``view`` cannot be traced.
    """

    def look(state, metrics):
        view = loop.view(state, metrics)
        if not isinstance(view, View):
            raise TypeError(
                f"view returned a {type(view).__name__}; return instep.View(loss, ...)."
            )
        return list(_kept(view).values())

    try:
        jaxpr = jax.make_jaxpr(look)(state, metrics).jaxpr
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return None
    given = jaxpr.invars[: len(jax.tree.leaves(state))]
    index = {id(variable): i for i, variable in enumerate(given)}
    return [index.get(id(variable)) for variable in jaxpr.outvars]


def _hidden(state: PyTree, places: list[int | None]) -> tuple[str, ...]:
    """Floating arrays of the state that no view shows: weights behind those that it does."""
    return tuple(
        name
        for place, (name, leaf) in enumerate(named_leaves(state).items())
        if place not in places
        and np.ndim(leaf)
        and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    )


def _cast(state: PyTree, dtype: np.dtype, arrays: set[int]) -> PyTree:
    """A copy of ``state`` in ``dtype``; below float32 only the leaves in ``arrays``."""

    def cast(i: int, leaf: Any) -> jax.Array:
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        wide = jnp.finfo(dtype).bits >= 32
        return jnp.array(leaf, dtype if floating and (wide or i in arrays) else None, copy=True)

    leaves, treedef = jax.tree.flatten(state)
    return treedef.unflatten([cast(i, leaf) for i, leaf in enumerate(leaves)])
