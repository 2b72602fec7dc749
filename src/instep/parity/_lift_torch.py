"""The PyTorch half of ``_lift``: no operator rounds to fewer bits than float64."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class LiftTorch(TorchDispatchMode):
    """Every operator of PyTorch that is asked for a floating dtype gets float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        dtype = kwargs.get("dtype")
        if dtype is not None and dtype.is_floating_point:
            kwargs = kwargs | {"dtype": torch.float64}
        return func(*args, **kwargs)
