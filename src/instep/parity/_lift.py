"""In a float64 walk nothing is rounded to a lower precision in between, on either side.

Models cast to float32 on purpose: a softmax, an RMSNorm, a loss. Where people train, that is an
upcast; in a float64 walk it would be the only rounding there is, and hide everything below
1e-8. So while the walk lasts, a cast of float64 to fewer bits gives float64. What is made in
float32 from integers or from nothing stays so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax.numpy as jnp
import numpy as np
import torch
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import primitives
from torch.utils._python_dispatch import TorchDispatchMode


class LiftTorch(TorchDispatchMode):
    """Every operator of PyTorch that is asked for a floating dtype."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        dtype = kwargs.get("dtype")
        given = [x.dtype for x in args if torch.is_tensor(x)]
        if dtype is not None and dtype.is_floating_point and torch.float64 in given:
            kwargs = kwargs | {"dtype": torch.float64}
        return func(*args, **kwargs)


# Primitives whose result has the dtype that a parameter names, where that may be lower.
_NAMED = {
    primitives.convert_element_type_p: "new_dtype",
    primitives.dot_general_p: "preferred_element_type",
    primitives.conv_general_dilated_p: "preferred_element_type",
}


@contextmanager
def lift_jax() -> Iterator[None]:
    """The same for what JAX traces meanwhile; the metadata keeps its traces apart."""

    def lifting(bind: Callable, parameter: str) -> Callable:
        def lifted(*args, **params):
            dtype = params[parameter]
            double = any(getattr(x, "dtype", None) == np.float64 for x in args)
            if double and dtype is not None and jnp.issubdtype(dtype, jnp.floating):
                params[parameter] = np.dtype(np.float64)
            return bind(*args, **params)

        return lifted

    for primitive, parameter in _NAMED.items():
        primitive.bind = lifting(primitive.bind, parameter)
    try:
        with set_xla_metadata(instep="float64"):
            yield
    finally:
        for primitive in _NAMED:
            del primitive.bind
