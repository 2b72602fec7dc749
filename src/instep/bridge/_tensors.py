"""Microbatches as PyTorch yields them: tensors in tuples, lists, mappings and dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, MutableMapping
from typing import Any

import numpy as np
import torch

from .._batch import joined
from ._arrays import array_to_tensor, tensor_to_array


def map_tensors(
    fn: Callable[[Any], Any], tree: Any, is_leaf: Callable[[Any], bool] = torch.is_tensor
) -> Any:
    """Apply ``fn`` to every tensor of ``tree``; containers are kept, the rest is shared."""
    if is_leaf(tree):
        return fn(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(fn, x, is_leaf) for x in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(map_tensors(fn, x, is_leaf) for x in tree)
    if isinstance(tree, MutableMapping):
        mapped = copy.copy(tree)  # keeps the class, BatchEncoding for example
        for key, value in tree.items():
            mapped[key] = map_tensors(fn, value, is_leaf)
        return mapped
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
        mapped = {n: map_tensors(fn, v, is_leaf) for n, v in fields.items()}
        return dataclasses.replace(tree, **mapped)
    return tree


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tensors of ``tree``, in order."""
    found: list[torch.Tensor] = []
    map_tensors(found.append, tree)
    return found


def to_dtype(tree: Any, dtype: torch.dtype) -> Any:
    """A copy of ``tree`` whose floating tensors are cast to ``dtype``."""
    return map_tensors(
        lambda x: x.to(dtype, copy=True) if x.is_floating_point() else x.clone(), tree
    )


def to_numpy(tree: Any) -> Any:
    """A copy of ``tree`` with NumPy arrays, which share no memory with its tensors."""
    return map_tensors(tensor_to_array, tree)


def to_tensors(tree: Any) -> Any:
    """A copy of ``tree`` with tensors for its NumPy arrays."""
    return map_tensors(array_to_tensor, tree, lambda x: isinstance(x, np.ndarray))


def batch_of(
    window: list[Any], convert: Callable[[Any], Any], accumulate: int | None = None
) -> Any:
    """The JAX batch of a window of PyTorch microbatches; ``accumulate`` as for ``joined``."""
    return joined([to_numpy(convert(microbatch)) for microbatch in window], accumulate)
