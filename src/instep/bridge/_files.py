"""State dicts from files, without running what is in them."""

from __future__ import annotations

import pickle
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch


def load_state_dict(path: str | PathLike[str]) -> dict[str, Any]:
    """The state dict in a file, on the CPU: ``.safetensors``, or as ``torch.save`` writes it.

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
            return safetensors.torch.load_file(path)
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
