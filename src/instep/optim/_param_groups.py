"""Parameter groups: a transformation for each part of the parameters."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._select import Selector, selected
from .._state import PyTree
from .._trees import named_leaves
from ._hyperparams import ParamGroupsState


Group = tuple[Selector, optax.GradientTransformation | None]


def param_groups(groups: Sequence[Group]) -> optax.GradientTransformationExtraArgs:
    """Give every part of the parameters its own transformation.

    PyTorch::

        torch.optim.AdamW([
            {"params": decayed, "weight_decay": 0.1},
            {"params": others, "weight_decay": 0.0},
        ])

    instep::

        tx = instep.optim.param_groups([
            (lambda name, leaf: leaf.ndim > 1, instep.optim.adamw(1e-3, weight_decay=0.1)),
            (lambda name, leaf: leaf.ndim <= 1, instep.optim.adamw(1e-3, weight_decay=0.0)),
        ])

    ``optax.partition`` does the same with labels; here every leaf is in exactly one group,
    and the groups have an order, so ``hyperparams(opt_state, group=1)`` is
    ``optimizer.param_groups[1]``.

    Args:
      groups: pairs of a selector and a transformation of ``instep.optim`` or optax. A
        selector is a regular expression of leaf names, a callable ``(name, leaf) -> bool``
        or a mask. The transformation None leaves its parameters as they are: PyTorch's
        parameters that no optimizer was given.

    Returns:
      A transformation with a ``ParamGroupsState``. Extra arguments of ``update`` (``value``,
      ``closure``, ``touched``) are handed to the groups that take them.

    Raises:
      TypeError: a group is not a pair.
      ValueError: there is no group; from ``update``, no params; and from ``init``, leaves in
        no group or in several.
    """
    if not groups:
        raise ValueError("param_groups needs at least one (selector, transformation).")
    if not all(isinstance(group, tuple) and len(group) == 2 for group in groups):
        raise TypeError(f"a group is a pair (selector, transformation); got {list(groups)}.")
    selectors = [selector for selector, _ in groups]
    transformations = [
        optax.with_extra_args_support(optax.set_to_zero() if tx is None else tx)
        for _, tx in groups
    ]

    def init_fn(params: PyTree) -> Any:
        owner = _owners(selectors, params)
        parts = [_part(params, owner, i) for i in range(len(groups))]
        made = [tx.init(part) for tx, part in zip(transformations, parts, strict=True)]
        return ParamGroupsState(tuple(made))

    def update_fn(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> Any:
        if params is None:
            raise ValueError("param_groups needs params: tx.update(grads, opt_state, params).")
        owner = _owners(selectors, params)
        made, states = jax.tree.map(jnp.zeros_like, params), []
        for i, (tx, old) in enumerate(zip(transformations, state.groups, strict=True)):
            part, own = _part(params, owner, i), _part(updates, owner, i)
            own_extra = {n: _own(x, params, owner, i) for n, x in extra.items()}
            own_updates, new = tx.update(own, old, part, **own_extra)
            made = _merged(made, own_updates, owner, i)
            states.append(new)
        return made, ParamGroupsState(tuple(states))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def add_param_group(
    tx: optax.GradientTransformation, opt_state: ParamGroupsState, params: PyTree
) -> ParamGroupsState:
    """The state for ``tx``, which has one group or more than ``opt_state`` has, at the end.

    PyTorch: ``optimizer.add_param_group({"params": ...})`` in mid-training. The groups that
    were there keep their state; the new ones start at step 0::

        tx = param_groups([(head, adamw(1e-3)), (backbone, None)])  # at first
        tx = param_groups([(head, adamw(1e-3)), (backbone, adamw(1e-5))])  # from here on
        opt_state = add_param_group(tx, opt_state, params)

    Args:
      tx: made by ``param_groups``: the old groups in their order, then the new ones.
      opt_state: that of the old groups; those that were None may be trained now.
      params: pytree, the parameters now.

    Raises:
      TypeError: ``opt_state`` is not that of ``param_groups``.
      ValueError: there is no new group, or an old group has other parameters now.
    """
    if not isinstance(opt_state, ParamGroupsState):
        raise TypeError(
            f"opt_state is a {type(opt_state).__name__}; groups can be added to the state of "
            f"instep.optim.param_groups only. Start with one group, (lambda *_: True, tx)."
        )
    fresh: Any = tx.init(params)
    kept = dict(enumerate(opt_state.groups))
    kept = {i: x for i, x in kept.items() if not isinstance(x, optax.EmptyState)}
    if len(kept) == len(fresh.groups):
        raise ValueError(
            f"tx has {len(fresh.groups)} groups and opt_state trains {len(kept)} already."
        )
    for i, was in kept.items():
        now = fresh.groups[i] if i < len(fresh.groups) else None
        if jax.tree.structure(was) != jax.tree.structure(now):
            raise ValueError(
                f"group {i} has other parameters or another optimizer than before: "
                f"{sorted(named_leaves(now))} instead of {sorted(named_leaves(was))}. Keep the "
                f"old groups as they are and append the new one."
            )
    return replace(fresh, groups=tuple(kept.get(i, x) for i, x in enumerate(fresh.groups)))


def _owners(selectors: Sequence[Selector], params: PyTree) -> PyTree:
    """The number of the group of every leaf."""
    masks = [named_leaves(selected(selector, params)) for selector in selectors]
    chosen = {
        name: [i for i, mask in enumerate(masks) if mask[name]] for name in named_leaves(params)
    }
    wrong = {name: which for name, which in chosen.items() if len(which) != 1}
    if wrong:
        raise ValueError(
            f"every parameter belongs to exactly one group; found {_told(wrong)}. Give what is "
            f"not trained to a last group (selector, None)."
        )
    owners: list[Any] = [which[0] for which in chosen.values()]
    return jax.tree.unflatten(jax.tree.structure(params), owners)


def _told(wrong: dict[str, list[int]]) -> str:
    places = {name: f"groups {which}" if which else "none" for name, which in wrong.items()}
    return ", ".join(f"{name} in {place}" for name, place in places.items())


def _part(tree: PyTree, owner: PyTree, group: int) -> PyTree:
    """``tree`` with None for the leaves of other groups."""
    return jax.tree.map(lambda o, x: x if o == group else None, owner, tree)


def _merged(tree: PyTree, part: PyTree, owner: PyTree, group: int) -> PyTree:
    """``tree`` with the leaves of a group from ``part``."""
    return jax.tree.map(lambda o, x, y: y if o == group else x, owner, tree, part)


def _own(x: Any, params: PyTree, owner: PyTree, group: int) -> Any:
    """An extra argument of ``update``, as the transformation of a group takes it.

    Of a tree like params its part; a function of the parameters as one of the group's; a
    number as it is.
    """
    if callable(x):

        @functools.wraps(x)  # optax looks at the names of its arguments
        def of_the_group(part: PyTree, **kwargs: Any) -> Any:
            made = x(_merged(params, part, owner, group), **kwargs)
            if not isinstance(made, tuple):
                return made
            return made[0], _part(made[1], owner, group)

        return of_the_group
    try:
        jax.tree.structure(params).flatten_up_to(x)
    except (TypeError, ValueError):
        return x
    return _part(x, owner, group)
