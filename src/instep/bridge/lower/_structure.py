"""What surrounds the tensors of a call: nested containers, taken apart and put together."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Record(dict):
    """A mapping whose items are attributes as well: what PyTorch code returns as an object."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


jax.tree_util.register_pytree_with_keys(
    Record,
    lambda record: ([(jax.tree_util.DictKey(k), v) for k, v in record.items()], tuple(record)),
    lambda names, values: Record(zip(names, values, strict=True)),
)


class Leaf(NamedTuple):
    """A tensor, by its number."""

    number: int


class Constant(NamedTuple):
    """Anything else: part of the program."""

    value: Any


class Node(NamedTuple):
    """A container."""

    kind: type
    children: dict[Any, Any]  # by key or position


def take_apart(tree: Any, is_leaf: Callable[[Any], bool]) -> tuple[list[Any], Any]:
    """The leaves of ``tree``, and its structure."""
    leaves: list[Any] = []

    def visit(x: Any) -> Any:
        if is_leaf(x):
            leaves.append(x)
            return Leaf(len(leaves) - 1)
        items = _items(x)
        if items is None or (not isinstance(x, _PLAIN) and not _holds(x, is_leaf)):
            return Constant(x)
        return Node(type(x), {key: visit(value) for key, value in items})

    structure = visit(tree)
    return leaves, structure


def put_together(structure: Any, leaves: Sequence[Any]) -> Any:
    """Tuples, lists and dicts as they were; every other container is a ``Record``."""
    if isinstance(structure, Leaf):
        return leaves[structure.number]
    if isinstance(structure, Constant):
        return structure.value
    children = {k: put_together(v, leaves) for k, v in structure.children.items()}
    if issubclass(structure.kind, tuple) and hasattr(structure.kind, "_fields"):
        return structure.kind(*children.values())
    if issubclass(structure.kind, tuple):
        return tuple(children.values())
    if issubclass(structure.kind, list):
        return list(children.values())
    return children if structure.kind is dict else Record(children)


def replaced(structure: Any, tree: Any, leaves: Sequence[Any]) -> Any:
    """``tree``, which has this structure, with other leaves in copies of its own containers."""
    if isinstance(structure, Leaf):
        return leaves[structure.number]
    if isinstance(structure, Constant):
        return tree
    items = dict(_items(tree) or ())
    children = {k: replaced(c, items[k], leaves) for k, c in structure.children.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*children.values())
    if isinstance(tree, tuple | list):
        return type(tree)(children.values())
    changed = copy.copy(tree)
    for name, value in children.items():
        if isinstance(tree, MutableMapping):
            changed[name] = value
        else:
            object.__setattr__(changed, name, value)
    return changed


def leaves_like(structure: Any, tree: Any) -> list[Any]:
    """The leaves of ``tree``, which has this structure.

    Raises:
      ValueError: something is missing, or is another constant than the program was made for.
    """
    return [leaf for _, leaf in sorted(_leaves(structure, tree, ""), key=lambda pair: pair[0])]


def _leaves(structure: Any, tree: Any, path: str) -> Iterator[tuple[int, Any]]:
    if isinstance(structure, Leaf):
        yield structure.number, tree
    elif isinstance(structure, Constant):
        if not _same(structure.value, tree):
            raise ValueError(
                f"{path or 'the input'} is {tree!r}; the program was made for "
                f"{structure.value!r}, which is part of it. Lower again for this value, pass "
                f"a tensor, or leave it out if nothing depends on it."
            )
    else:
        given = dict(_items(tree) or ())
        if given.keys() != structure.children.keys():
            raise ValueError(
                f"{path or 'the input'} has {list(given)}; the program was made for "
                f"{list(structure.children)}."
            )
        for key, child in structure.children.items():
            yield from _leaves(child, given[key], f"{path}.{key}" if path else str(key))


_PLAIN = (tuple, list, Mapping)


def _items(x: Any) -> list[tuple[Any, Any]] | None:
    """Children by name or position; None if it is no container."""
    if isinstance(x, Mapping):
        return list(x.items())
    if isinstance(x, tuple) and (names := getattr(x, "_fields", None)):
        return list(zip(names, x, strict=True))
    if isinstance(x, tuple | list):
        return list(enumerate(x))
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return [(field.name, getattr(x, field.name)) for field in dataclasses.fields(x)]
    if hasattr(x, "__dict__") and not callable(x) and not isinstance(x, type):
        return list(vars(x).items())
    return None


def _holds(x: Any, is_leaf: Callable[[Any], bool], depth: int = 4) -> bool:
    """Whether an object has a leaf somewhere inside."""
    if is_leaf(x):
        return True
    return depth > 0 and any(_holds(v, is_leaf, depth - 1) for _, v in _items(x) or ())


def _same(a: Any, b: Any) -> bool:
    """Whether ``b`` is the constant ``a``, or copies of it that ``instep.stack`` has joined."""
    if a is b:
        return True
    if isinstance(b, np.ndarray):
        copies = b.ndim == np.ndim(a) + 1 and b.shape[1:] == np.shape(a) and b.size > 0
        return (copies or b.shape == np.shape(a)) and bool(np.all(b == a))
    return type(a) is type(b) and bool(a == b)
