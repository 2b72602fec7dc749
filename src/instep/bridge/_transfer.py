"""Start a JAX loop from the weights of a PyTorch loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from .._loop import JaxLoop
from .._state import PyTree
from .._trees import named_leaves
from ._tensors import array_tensor, tensor_array
from ._torch_loop import TorchLoop
from ._weights import Links, Rule, match_weights, weights_to_jax


def model_arrays(loop: TorchLoop) -> dict[str, np.ndarray]:
    """Copies of all parameters and buffers of the model, by ``state_dict`` name."""
    named = [*loop.model.named_parameters(), *loop.model.named_buffers()]
    return {name: tensor_array(tensor) for name, tensor in named}


def write_model(loop: TorchLoop, arrays: dict[str, np.ndarray]) -> None:
    """Write parameters and buffers into the model, in place; names that are absent stay."""
    with torch.no_grad():
        for name, tensor in [*loop.model.named_parameters(), *loop.model.named_buffers()]:
            if name in arrays:
                tensor.copy_(array_tensor(arrays[name]))


def link(rules: Iterable[Rule], loop: TorchLoop, params: PyTree, buffers: PyTree) -> Links:
    """``match_weights`` between a PyTorch loop and the params and buffers of a JAX half.

    Raises:
      ValueError: as ``match_weights``, or a name is in params and in buffers.
    """
    named_params, named_buffers = named_leaves(params), named_leaves(buffers)
    both = sorted(named_params.keys() & named_buffers.keys())
    if both:
        raise ValueError(f"leaves {both} are in params and in buffers. Name them apart.")
    return match_weights(rules, model_arrays(loop), named_params | named_buffers)


def start_from(loop: TorchLoop, links: Links, half: JaxLoop) -> JaxLoop:
    """``half`` with the parameters and buffers that the PyTorch model has now."""
    arrays = model_arrays(loop)
    return replace(
        half,
        params=weights_to_jax(links, arrays, half.params),
        buffers=weights_to_jax(links, arrays, half.buffers),
    )
