"""Tensors that a module computed from its parameters and keeps as an attribute.

``weight_norm``, ``spectral_norm`` and ``prune`` of ``torch.nn.utils`` do, by a hook that
computes them anew before every forward pass. PyTorch copies no such tensor.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def deep_copy(objects: Any, module: nn.Module) -> Any:
    """``copy.deepcopy``, ``module`` among ``objects``; of what is computed, the numbers."""
    return copy.deepcopy(objects, {id(x): x.detach().clone() for _, x in computed(module)})


def computed(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors, by their paths."""
    for path, inner in module.named_modules():
        own = dict(inner.named_parameters(recurse=False))
        for name, value in vars(inner).items():
            if torch.is_tensor(value) and (not value.is_leaf or f"{name}_orig" in own):
                yield f"{path}.{name}" if path else name, value
