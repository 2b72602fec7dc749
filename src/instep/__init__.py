"""instep: JAX in step with PyTorch."""

import typing as _typing
from importlib import import_module as _import_module
from importlib.metadata import PackageNotFoundError as _NotInstalled, version as _version

from . import (
    losses as losses,
    ops as ops,
    optim as optim,
    schedules as schedules,
    sharding as sharding,
)
from ._accumulate import backward as backward, mean as mean, zero_grad as zero_grad
from ._batch import split as split, stack as stack
from ._clip import clip_grad_norm as clip_grad_norm, clip_grad_value as clip_grad_value
from ._eval import make_eval_step as make_eval_step
from ._init import init_state as init_state
from ._keep_memory import keep_memory as keep_memory
from ._loop import JaxLoop as JaxLoop
from ._policy import Policy as Policy
from ._scaler import GradScaler as GradScaler
from ._state import (
    Accumulator as Accumulator,
    Loss as Loss,
    Metrics as Metrics,
    TrainState as TrainState,
    View as View,
)
from ._step import make_train_step as make_train_step, step as step
from ._train import train as train


if _typing.TYPE_CHECKING:
    from . import bridge as bridge, checkpoint as checkpoint, data as data, parity as parity
    from .bridge import TorchLoop as TorchLoop, from_torch as from_torch, to_torch as to_torch
    from .bridge.lower import lower as lower
    from .parity import Pair as Pair

try:
    __version__ = _version("instep")
except _NotInstalled:  # run from the source tree, not installed
    __version__ = "0+source"

# What needs more than the core is imported when it is asked for, so that the core works alone.
_LAZY = {
    "bridge": ".bridge",
    "checkpoint": ".checkpoint",
    "data": ".data",
    "parity": ".parity",
    "TorchLoop": ".bridge",
    "from_torch": ".bridge",
    "lower": ".bridge.lower",
    "to_torch": ".bridge",
    "Pair": ".parity",
}


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'instep' has no attribute {name!r}")
    module = _import_module(_LAZY[name], __name__)
    return module if _LAZY[name] == f".{name}" else getattr(module, name)


def __dir__():
    return sorted(name for name in {*globals(), *_LAZY} if not name.startswith("_"))
