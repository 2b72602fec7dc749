"""Single tensors as NumPy arrays and back, to the bit."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import torch


_BITS = {1: (torch.uint8, np.uint8), 2: (torch.int16, np.int16)}


def tensor_to_array(tensor: Any) -> np.ndarray:
    """A copy in the dtype that NumPy calls the same; bfloat16 is that of ``ml_dtypes``."""
    if not torch.is_tensor(tensor):
        return np.array(tensor)
    tensor = tensor.detach().cpu()
    try:
        return tensor.numpy().copy()
    except TypeError:  # NumPy alone lacks this dtype
        bits, _ = _BITS[tensor.element_size()]
        name = str(tensor.dtype).removeprefix("torch.")
        return tensor.view(bits).numpy().copy().view(jnp.dtype(name))


def array_to_tensor(array: Any) -> torch.Tensor:
    """A copy of an array, in PyTorch's dtype of the same name."""
    array = np.array(array)
    if array.dtype.isbuiltin == 1:
        return torch.from_numpy(array)
    _, bits = _BITS[array.dtype.itemsize]
    return torch.from_numpy(array.view(bits)).view(getattr(torch, array.dtype.name))
