"""Torch in, torch out: the PyTorch loop, and its weights on the JAX side."""

from .._compat import require as _require


_require("torch", "instep.bridge")

from ._torch_loop import TorchLoop as TorchLoop
from ._weights import (
    Layout as Layout,
    Link as Link,
    batch_norm as batch_norm,
    conv as conv,
    linear as linear,
    match_weights as match_weights,
    tensor as tensor,
    torch_only as torch_only,
    weights_to_jax as weights_to_jax,
    weights_to_torch as weights_to_torch,
)
