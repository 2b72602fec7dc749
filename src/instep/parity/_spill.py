"""Large arrays in unnamed files: a comparison holds more copies of a model than memory does.

A walk keeps some twenty arrays as large as the parameters, and looks at most of them once.
Those of LARGE bytes and more are mapped from files that have no name and vanish with them, so
that what nobody looks at leaves memory. Smaller ones stay where they are.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np


if TYPE_CHECKING:
    import torch

    from ..bridge._torch_loop import TorchLoop


LARGE = 1 << 22  # bytes


def spilled(array: np.ndarray) -> np.ndarray:
    """``array``, or a copy of a large one in a file."""
    if array.nbytes < LARGE or isinstance(array, np.memmap):
        return array
    with tempfile.TemporaryFile(prefix="instep-") as file:  # the map keeps it open
        copy = np.memmap(file, np.uint8, "w+", shape=(array.nbytes,))
    made = copy.view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def spilled_tree(tree: Any) -> Any:
    """A pytree of JAX or NumPy arrays, the large ones in files; typed keys stay."""

    def spill(leaf: Any) -> Any:
        large = getattr(leaf, "nbytes", 0) >= LARGE
        typed = large and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return spilled(np.asarray(leaf)) if large and not typed else leaf

    return jax.tree.map(spill, tree)


def spill_loop(loop: TorchLoop) -> None:
    """Put large parameters, buffers and optimizer state into files, and drop gradients."""
    import torch

    tensors: list[torch.Tensor] = [*loop.model.parameters(), *loop.model.buffers()]
    for slots in loop.optimizer.state.values():
        tensors += [x for x in slots.values() if torch.is_tensor(x)]
    for tensor in tensors:
        host = tensor.device.type == "cpu" and tensor.is_contiguous()
        if not host or tensor.nbytes < LARGE:
            continue
        tensor.grad = None  # the next step begins without
        if getattr(tensor, "_in_file", None) != tensor.data_ptr():
            bits = torch.from_numpy(spilled(tensor.detach().view(-1).view(torch.uint8).numpy()))
            tensor.data = bits.view(tensor.dtype).view(tensor.shape)
            tensor._in_file = tensor.data_ptr()  # type: ignore[attr-defined]
