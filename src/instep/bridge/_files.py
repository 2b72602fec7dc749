"""State dicts from files, without running what is in them, and into files."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from ._arrays import array_to_tensor


def load_state_dict(path: str | PathLike[str]) -> dict[str, Any]:
    """The state dict in a file, on the CPU: ``.safetensors``, or as ``torch.save`` writes it.

    Tied tensors come under each of their names, as ``save_state_dict`` and
    ``safetensors.torch.save_model`` note them.

    Only tensors and plain containers are read: ``torch.load(weights_only=True)``, since a
    pickle may run any code.

    Args:
      path: a file that ends in ``.safetensors``, or any other for ``torch.load``.

    Raises:
      ValueError: the file holds more than that, or cannot be read.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        try:
            return _with_tied(safetensors.torch.load_file(path), path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds Python objects beside tensors, which could run any code, so it is "
            f"not loaded. Save state dicts alone: torch.save(model.state_dict(), path). "
            f"PyTorch says: {str(error).splitlines()[0]}"
        ) from None


def save_state_dict(state_dict: Mapping[str, Any], path: str | PathLike[str]) -> None:
    """Write a state dict, to the bit, for PyTorch.

    PyTorch: ``torch.save(model.state_dict(), path)``, or with a path in ``.safetensors``
    ``safetensors.torch.save_model(model, path)``. The file has its name when it is whole. ::

        instep.to_torch(state, loop)
        bridge.save_state_dict(loop.model.state_dict(), "model.safetensors")
        # or without a PyTorch model around:
        arrays = bridge.weights_to_torch(weights, state.params, state.buffers)
        bridge.save_state_dict(arrays, "model.pt")

    Args:
      state_dict: tensors or arrays by name. An object that is there under several names is
        tied: ``torch.save`` keeps that, a ``.safetensors`` holds it under the first and notes
        the others, for ``load_state_dict`` and ``safetensors.torch.load_model``.
      path: ends in ``.safetensors``, or anything else for ``torch.save``.
    """
    path = Path(path)
    one_each: dict[int, torch.Tensor] = {}  # an array under two names is one tensor
    for value in state_dict.values():
        if id(value) not in one_each:
            tensor = value.detach() if torch.is_tensor(value) else array_to_tensor(value)
            one_each[id(value)] = tensor
    tensors = {name: one_each[id(value)] for name, value in state_dict.items()}
    unfinished = path.with_name(f"{path.name}.unfinished")
    if path.suffix == ".safetensors":
        kept, tied = _apart(tensors)
        safetensors.torch.save_file(kept, unfinished, metadata={"format": "pt"} | tied)
    else:
        torch.save(tensors, unfinished)
    unfinished.replace(path)


def _apart(
    tensors: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors that share no memory; and of the tied ones, the name under which each is kept."""
    kept: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[Any, str] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        storage = tensor.untyped_storage().data_ptr()
        if tensor.numel() and place in first:
            tied[name] = first[place]
            continue
        first[place] = name
        shares = storage in storages or not tensor.is_contiguous()  # a part of another
        kept[name] = tensor.clone(memory_format=torch.contiguous_format) if shares else tensor
        storages.add(storage)
    return kept, tied


def _with_tied(tensors: dict[str, Any], path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        noted = file.metadata() or {}
    return tensors | {
        name: tensors[kept]
        for name, kept in noted.items()
        if kept in tensors and name not in tensors
    }
