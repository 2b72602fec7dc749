"""Start a JAX loop from the weights of a PyTorch loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._loop import JaxLoop
from .._state import PyTree
from ._arrays import array_to_tensor, tensor_to_array
from ._match import match_weights
from ._rule import Rule
from ._weights import WeightMap, weights_to_jax


if TYPE_CHECKING:
    from ._torch_loop import TorchLoop


def model_arrays(loop: TorchLoop) -> dict[str, np.ndarray]:
    """Copies of all parameters and buffers of the model, by ``state_dict`` name."""
    named = [*loop.model.named_parameters(), *loop.model.named_buffers()]
    return {name: tensor_to_array(tensor) for name, tensor in named}


def write_model(loop: TorchLoop, arrays: dict[str, np.ndarray]) -> None:
    """Write parameters and buffers into the model, in place; names that are absent stay."""
    import torch

    with torch.no_grad():
        for name, tensor in [*loop.model.named_parameters(), *loop.model.named_buffers()]:
            if name in arrays:
                tensor.copy_(array_to_tensor(arrays[name]))


def link(
    rules: Sequence[Rule | str] | str, model: Any, params: PyTree, buffers: PyTree
) -> WeightMap:
    """``match_weights`` between a PyTorch model and a JAX half that shall train in step.

    Raises:
      ValueError: as ``match_weights``, or a layer could not train in step.
    """
    weights = match_weights(rules, model, params, buffers)
    for x in weights.inexact:
        raise ValueError(f"{', '.join(x.torch)} and {', '.join(x.jax)}: {x.inexact}")
    return weights


def start_from(arrays: dict[str, np.ndarray], weights: WeightMap, half: JaxLoop) -> JaxLoop:
    """``half`` with the parameters and buffers of a PyTorch model, as ``model_arrays``."""
    return replace(
        half,
        params=weights_to_jax(weights, arrays, half.params),
        buffers=weights_to_jax(weights, arrays, half.buffers),
    )
