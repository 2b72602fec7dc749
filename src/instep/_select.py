"""Which leaves of a tree are meant: by a pattern, a function or a mask."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ._state import PyTree
from ._trees import named_leaves


Selector = str | Callable[[str, Any], bool] | PyTree


def selected(selector: Selector, tree: PyTree) -> PyTree:
    """A tree of bools like ``tree``: True where ``selector`` means the leaf.

    Args:
      selector: one of

        * a regular expression, searched in the dotted name of each leaf as
          ``named_leaves`` gives it: ``r"^head\\."``, ``r"bias$"``;
        * a callable ``(name, leaf) -> bool``, for example
          ``lambda name, leaf: leaf.ndim > 1``;
        * a mask: a pytree of bools with the structure of ``tree``.
      tree: any pytree; of the leaves only names, shapes and dtypes are known under
        ``jax.jit``.

    Raises:
      ValueError: no leaf is selected, or the mask does not fit.
      TypeError: the callable returned, or the mask holds, something other than a bool.
    """
    leaves = named_leaves(tree)
    if isinstance(selector, str):
        flags = {name: re.search(selector, name) is not None for name in leaves}
    elif callable(selector):
        flags = {name: selector(name, leaf) for name, leaf in leaves.items()}
    else:
        flags = _mask(selector, leaves)
    wrong = {n: flag for n, flag in flags.items() if not isinstance(flag, bool | np.bool_)}
    if wrong:
        raise TypeError(f"a leaf is selected by True or False; {selector!r} gave {wrong}.")
    if not any(flags.values()):
        raise ValueError(f"{selector!r} selects none of the leaves {list(leaves)}.")
    return jax.tree.unflatten(jax.tree.structure(tree), [bool(flag) for flag in flags.values()])


def _mask(mask: PyTree, leaves: dict[str, Any]) -> dict[str, Any]:
    flags = named_leaves(mask)
    missing, extra = sorted(leaves.keys() - flags.keys()), sorted(flags.keys() - leaves.keys())
    if missing or extra:
        raise ValueError(
            f"the mask does not fit: missing {missing}, not expected {extra}. It is a pytree "
            f"of bools with the structure of the tree it selects from."
        )
    return {name: flags[name] for name in leaves}
