"""Torch in, torch out: the PyTorch loop, its weights and its training state on the JAX side.

Which weight is which (rules, layouts, ``match_weights``) needs no torch; the rest does.
"""

import typing as _typing
from importlib import import_module as _import_module

from .._compat import require as _require
from ._arrays import array_to_tensor as array_to_tensor, tensor_to_array as tensor_to_array
from ._layout import (
    CONV as CONV,
    CONV_TRANSPOSE as CONV_TRANSPOSE,
    CONV_TRANSPOSE_KERNEL as CONV_TRANSPOSE_KERNEL,
    LINEAR as LINEAR,
    SAME as SAME,
    Layout as Layout,
    flattened as flattened,
    heads_bias as heads_bias,
    heads_in as heads_in,
    heads_out as heads_out,
    one as one,
    rows as rows,
)
from ._match import match_weights as match_weights
from ._rule import Link as Link, Rule as Rule
from ._rules import (
    batch_norm as batch_norm,
    conv as conv,
    conv_transpose as conv_transpose,
    embedding as embedding,
    group_norm as group_norm,
    layer_norm as layer_norm,
    linear as linear,
    rms_norm as rms_norm,
    tensor as tensor,
    torch_only as torch_only,
)
from ._rules_sequence import (
    gru as gru,
    lstm as lstm,
    multihead_attention as multihead_attention,
)
from ._weights import (
    WeightMap as WeightMap,
    weights_to_jax as weights_to_jax,
    weights_to_torch as weights_to_torch,
)


if _typing.TYPE_CHECKING:
    from ._autocast import autocast as autocast
    from ._files import load_state_dict as load_state_dict, save_state_dict as save_state_dict
    from ._from_torch import from_torch as from_torch, to_torch as to_torch
    from ._optimizer import (
        optimizer_from_torch as optimizer_from_torch,
        optimizer_state_dict as optimizer_state_dict,
        optimizer_to_torch as optimizer_to_torch,
    )
    from ._plateau import (
        plateau_from_torch as plateau_from_torch,
        plateau_to_torch as plateau_to_torch,
    )
    from ._scaler import (
        scaler_from_torch as scaler_from_torch,
        scaler_to_torch as scaler_to_torch,
    )
    from ._scheduler import (
        scheduler_from_torch as scheduler_from_torch,
        scheduler_to_torch as scheduler_to_torch,
        steps_taken as steps_taken,
    )
    from ._torch_loop import TorchLoop as TorchLoop
    from .lower import Lowered as Lowered, register as register

# What needs torch is imported when it is asked for.
_LAZY = {
    "autocast": "._autocast",
    "load_state_dict": "._files",
    "save_state_dict": "._files",
    "from_torch": "._from_torch",
    "to_torch": "._from_torch",
    "optimizer_from_torch": "._optimizer",
    "optimizer_state_dict": "._optimizer",
    "optimizer_to_torch": "._optimizer",
    "plateau_from_torch": "._plateau",
    "plateau_to_torch": "._plateau",
    "scaler_from_torch": "._scaler",
    "scaler_to_torch": "._scaler",
    "scheduler_from_torch": "._scheduler",
    "scheduler_to_torch": "._scheduler",
    "steps_taken": "._scheduler",
    "TorchLoop": "._torch_loop",
    "Lowered": ".lower",
    "register": ".lower",
}


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'instep.bridge' has no attribute {name!r}")
    _require("torch", f"instep.bridge.{name}")
    return getattr(_import_module(_LAZY[name], __name__), name)


def __dir__():
    return sorted(name for name in {*globals(), *_LAZY} if not name.startswith("_"))
