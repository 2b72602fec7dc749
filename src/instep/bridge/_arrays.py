"""Single tensors as NumPy arrays and back, to the bit."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np


if TYPE_CHECKING:
    import torch

_BITS = {1: "uint8", 2: "int16"}  # by itemsize


def tensor_to_array(tensor: Any) -> np.ndarray:
    """``tensor.detach().cpu().numpy().copy()``, for every dtype that JAX has too.

    PyTorch: ``torch.Tensor.numpy``, which has no bfloat16; here that is the one of
    ``ml_dtypes``, and every bit survives.

    Args:
      tensor: any shape; what is no tensor goes through ``np.array``.
    """
    torch = sys.modules.get("torch")  # where there is a tensor, somebody has imported it
    if torch is None or not torch.is_tensor(tensor):
        return np.array(tensor)
    tensor = tensor.detach().cpu()
    try:
        return tensor.numpy().copy()
    except TypeError:  # NumPy alone lacks this dtype
        bits = getattr(torch, _BITS[tensor.element_size()])
        name = str(tensor.dtype).removeprefix("torch.")
        return tensor.view(bits).numpy().copy().view(jnp.dtype(name))


def array_to_tensor(array: Any) -> torch.Tensor:
    """``torch.from_numpy`` of a copy, in PyTorch's dtype of the same name.

    Args:
      array: any shape, of NumPy or JAX; bfloat16 too.
    """
    import torch

    array = np.array(array)
    if array.dtype.isbuiltin == 1:
        return torch.from_numpy(array)
    bits = array.view(_BITS[array.dtype.itemsize])
    return torch.from_numpy(bits).view(getattr(torch, array.dtype.name))
