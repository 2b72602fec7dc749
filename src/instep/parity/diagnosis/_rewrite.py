"""PyTorch's forward pass with some of its calls changed, and a list of the calls it makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name


@dataclass(frozen=True)
class Call:
    """One call of a function of PyTorch's in a forward pass.

    Args:
      number: in the order of the pass, from 0.
      name: of the function, ``"layer_norm"``.
      module: path of the module that makes it; "" for the model, or the loss outside it.
      function, args, kwargs: what is called.
    """

    number: int
    name: str
    module: str
    function: Callable
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Any:
        return self.function(*self.args, **self.kwargs)

    def get(self, argument: str, default: Any = None) -> Any:
        """The value of an argument, however it was given."""
        return self._given().get(argument, default)

    def but(self, **changed: Any) -> Call:
        """The same call with other arguments."""
        given = self._given() | changed
        names = list(given)
        first = names[: len(self.args)]
        return replace(
            self,
            args=tuple(given[name] for name in first),
            kwargs={name: given[name] for name in names if name not in first},
        )

    def of(self, function: Callable, *args: Any, **kwargs: Any) -> Call:
        """Another call in its place."""
        return replace(self, function=function, args=args, kwargs=kwargs)

    def _given(self) -> dict[str, Any]:
        names = _names(self.function, self.name)
        positional = {
            names[i] if i < len(names) else f"_{i}": value for i, value in enumerate(self.args)
        }
        return positional | dict(self.kwargs)


Rewrite = Callable[[Call], Call | None]  # None: this call stays as it is

# Functions written in C++ have no signature to read: their arguments, in order.
ARGUMENTS = {
    "linear": ("input", "weight", "bias"),
    "gelu": ("input", "approximate"),
    "scaled_dot_product_attention": (
        "query", "key", "value", "attn_mask", "dropout_p", "is_causal",
    ),
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d"),
        ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    ),
    **dict.fromkeys(
        ("avg_pool1d", "avg_pool2d", "avg_pool3d"),
        ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    ),
    **dict.fromkeys(("mean", "amax", "sum", "logsumexp"), ("input", "dim", "keepdim")),
    "masked_fill": ("input", "mask", "value"),
    "softmax": ("input", "dim"),
    "log_softmax": ("input", "dim"),
    "lstm": ("input", "hx", "params", "has_biases", "num_layers", "dropout", "train",
             "bidirectional", "batch_first"),
}  # fmt: skip


# Attributes that make a tensor.
VIEWS = {getattr(torch.Tensor, name).__get__: name for name in ("T", "mT")}


def _names(function: Callable, name: str) -> tuple[str, ...]:
    if name in ARGUMENTS:
        return ARGUMENTS[name]
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ("input", "other")


class Rewriting(TorchFunctionMode):
    """Every call that a forward pass makes goes through ``rewrites``, and is listed.

    Args:
      model: whose modules the calls are told by.
      rewrites: tried in order, each on what the one before made of the call.
      watch: called with each call and what it returned.
    """

    def __init__(
        self,
        model: nn.Module,
        rewrites: Sequence[Rewrite] = (),
        watch: Callable[[Call, Any], None] = lambda call, made: None,
    ):
        super().__init__()
        self._model, self._rewrites, self._watch = model, rewrites, watch
        self._inside: list[str] = []
        self._count = 0

    def __enter__(self):
        self._hooks = [
            hook
            for path, module in self._model.named_modules()
            for hook in (
                module.register_forward_pre_hook(lambda *_, path=path: self._enter(path)),
                module.register_forward_hook(self._leave, always_call=True),
            )
        ]
        return super().__enter__()

    def __exit__(self, *raised):
        for hook in self._hooks:
            hook.remove()
        return super().__exit__(*raised)

    def _enter(self, path: str) -> None:
        self._inside.append(path)

    def _leave(self, *_) -> None:
        self._inside.pop()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = VIEWS.get(func, getattr(func, "__name__", ""))
        if name in ("__get__", "__set__", "is_floating_point"):  # shapes and dtypes
            return func(*args, **(kwargs or {}))
        module = self._inside[-1] if self._inside else ""
        call = Call(self._count, name, module, func, args, kwargs or {})
        self._count += 1
        for rewrite in self._rewrites:
            call = rewrite(call) or call
        made = call()
        self._watch(call, made)
        return made


def full_name(call: Call) -> str:
    """``"torch.nn.functional.layer_norm"``"""
    return resolve_name(call.function) or call.name


def calls_of(model: nn.Module, forward: Callable[[], torch.Tensor]) -> list[Call]:
    """The calls that ``forward`` makes, with their arguments."""
    calls: list[Call] = []
    with torch.no_grad(), Rewriting(model, watch=lambda call, made: calls.append(call)):
        forward()
    return calls
