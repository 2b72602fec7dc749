"""Torch in, torch out: the PyTorch loop, and its weights on the JAX side."""

from .._compat import require as _require


_require("torch", "instep.bridge")

from ._torch_loop import TorchLoop as TorchLoop
from ._weights import (
    Link as Link,
    batch_norm as batch_norm,
    conv as conv,
    linear as linear,
    tensor as tensor,
    to_jax as to_jax,
    to_torch as to_torch,
)
