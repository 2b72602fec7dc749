"""Names of leaves, and the checks that name them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path

from ._state import PyTree


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Map dotted leaf names to leaves: ``{"conv.kernel": ..., "layers.0.bias": ...}``.

    A Flax NNX variable is one leaf: its trailing ``value`` is not part of the name.
    """
    named = {}
    for path, leaf in tree_flatten_with_path(tree)[0]:
        if path and path[-1] == GetAttrKey("value"):
            path = path[:-1]
        name = keystr(path, simple=True, separator=".")
        if name in named:
            raise ValueError(f"two leaves are called {name!r}; rename one of them.")
        named[name] = leaf
    return named


def describe(leaf: Any) -> str:
    """``float32[3, 4]``"""
    return f"{jnp.result_type(leaf)}{list(np.shape(leaf))}"


def check_params(params: PyTree) -> None:
    """Raise unless every leaf of ``params`` can be differentiated."""
    leaves = named_leaves(params)
    if not leaves:
        raise ValueError(
            f"params has no leaves: {params!r}. Pass a pytree of floating arrays, for "
            f"example {{'weight': jnp.zeros((3, 4))}}."
        )
    wrong = {
        name: describe(leaf)
        for name, leaf in leaves.items()
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    }
    if wrong:
        raise TypeError(
            f"params must be real floating arrays to be differentiated; found {wrong}. "
            f"Move leaves that are not trained to `buffers`, or cast them."
        )


def check_like(what: str, tree: PyTree, like_what: str, like: PyTree) -> None:
    """Raise unless ``tree`` has the structure and shapes of ``like``; None leaves pass."""
    found, wanted = named_leaves(tree), named_leaves(like)
    present = jax.tree.map(lambda x: 0 if x is None else x, tree, is_leaf=_is_none)
    missing = sorted(wanted.keys() - named_leaves(present).keys())
    extra = sorted(found.keys() - wanted.keys())
    if missing or extra:
        raise ValueError(
            f"{what} does not match {like_what}: missing {missing}, not expected {extra}. "
            f"Both must be the same pytree (a leaf without a gradient is None)."
        )
    shapes = {
        name: f"{np.shape(found[name])} for {np.shape(wanted[name])}"
        for name in wanted
        if name in found and np.shape(found[name]) != np.shape(wanted[name])
    }
    if shapes:
        raise ValueError(f"{what} has other shapes than {like_what}: {shapes}.")


def _is_none(x: Any) -> bool:
    return x is None
