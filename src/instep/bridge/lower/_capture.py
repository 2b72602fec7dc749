"""What ``torch.export`` cannot see through, held as one operator while it looks.

``.data`` becomes ``detach``; a loss that looks at its numbers, a mask that is looked at, a
BatchNorm that counts and a registered ``torch.autograd.Function`` become calls that only know
their shapes. What would be lost without a word is refused.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.modules import transformer
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint

from ... import losses
from ..._errors import LoweringError
from ._overflow import Overflow
from ._regions import Regions
from ._table import function_of


class Captured:
    """JAX functions of the calls that stand in a graph as ``instep::call``."""

    def __init__(self):
        self.functions: dict[str, Callable[..., Any]] = {}
        self.shapes: dict[str, Callable[..., Any]] = {}
        self.regions = Regions()

    def call(
        self, name: str, function: Callable[..., Any], shape: Callable[..., Any], *args: Any
    ) -> Any:
        """Put one call into the graph.

        Args:
          name: to be read.
          function: the JAX function of ``args``.
          shape: a PyTorch function of ``args``: a tensor, or several, of the right shapes.
          args: tensors, sequences of tensors, and constants.
        """
        key = f"{name} {len(self.functions)}"
        tensors, rebuild = _tensors_of(args)
        single: list[bool] = []

        def shapes(given: Sequence[Any]) -> list[Any]:
            made = shape(*rebuild(given))
            single.append(torch.is_tensor(made))
            return _as_list(made)

        self.functions[key] = lambda given: _as_list(function(*rebuild(given)))
        self.shapes[key] = shapes
        made = torch.ops.instep.call.default(key, tensors)
        return made[0] if single[-1] else tuple(made)


_ACTIVE: list[Captured] = []  # the innermost last


@contextlib.contextmanager
def capturing() -> Iterator[Captured]:
    """While PyTorch traces a forward pass; what is patched is put back in any case.

    Raises:
      LoweringError: at the end, if numbers were drawn that a graph does not draw.
    """
    captured = Captured()
    patches = (
        (torch.autograd.Function, "apply", classmethod(_apply(captured))),
        (transformer, "_detect_is_causal_mask", _is_causal),
        (_BatchNorm, "forward", _batch_norm(_BatchNorm.forward)),
        (checkpoint, "_checkpoint_without_reentrant_generator", captured.regions.around),
    )
    fastpath = torch.backends.mha.get_fastpath_enabled()
    drawn = _host_randomness()
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in patches:
            stack.callback(setattr, owner, name, vars(owner)[name])
            setattr(owner, name, replacement)
        stack.callback(_ACTIVE.pop)
        _ACTIVE.append(captured)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fastpath)
        torch.backends.mha.set_fastpath_enabled(False)
        yield captured
    if drawn != _host_randomness():
        raise LoweringError(
            "the forward pass draws from random or numpy.random, whose numbers would be drawn "
            "once and stay. Draw with torch (torch.rand, torch.bernoulli), or switch it off."
        )


def _host_randomness() -> tuple[Any, ...]:
    """Where the generators of ``random`` and ``numpy.random`` stand."""
    numpy_state: Any = np.random.get_state(legacy=False)["state"]
    return random.getstate(), numpy_state["pos"], numpy_state["key"].tobytes()


class Rewriting(TorchFunctionMode):
    """Entered inside the forward pass.

    Attributes:
      overflow: what it asked of its numbers.
    """

    def __init__(self, captured: Captured):
        super().__init__()
        self._captured = captured
        self.overflow = Overflow()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func == _DATA:
            return args[0].detach()
        if func in _HOOKS:
            raise LoweringError(
                f"Tensor.{func.__name__} changes a gradient unseen by the forward pass. Write "
                f"what the hook does as a torch.autograd.Function, and register that."
            )
        if func is F.gaussian_nll_loss:
            return self._gaussian_nll_loss(*args, **kwargs)
        if func is F.ctc_loss:
            return self._ctc_loss(*args, **kwargs)
        answer = self.overflow.answer(func, args)
        if answer is not None:
            return answer
        made = func(*args, **kwargs)
        self.overflow.watch(func, args, made)
        return made

    def _gaussian_nll_loss(
        self, input, target, var, full=False, eps=1e-6, reduction: Any = "mean"
    ):
        return self._captured.call(
            "gaussian_nll_loss",
            lambda x, y, v: losses.gaussian_nll_loss(x, y, v, full, eps, reduction),
            lambda x, y, v: _reduced(x - y, reduction),
            input,
            target,
            var,
        )

    def _ctc_loss(
        self,
        log_probs,
        targets,
        input_lengths,
        target_lengths,
        blank=0,
        reduction="mean",
        zero_infinity=False,
    ):
        return self._captured.call(
            "ctc_loss",
            lambda x, y, n, m: losses.ctc_loss(x, y, n, m, blank, reduction, zero_infinity),
            lambda x, *_: _reduced(x[0, ..., 0], reduction),
            log_probs,
            targets,
            input_lengths,
            target_lengths,
        )


_DATA = vars(torch._C.TensorBase)["data"].__get__  # compared by ==: a new object each time


_HOOKS = (torch.Tensor.register_hook, torch.Tensor.register_post_accumulate_grad_hook)


def _reduced(losses: torch.Tensor, reduction: str) -> torch.Tensor:
    return losses.clone() if reduction == "none" else losses.sum()


def _is_causal(mask, is_causal=None, size=None):
    """PyTorch looks at the mask to call a faster kernel; the mask is applied either way."""
    del mask, size
    return bool(is_causal)


def _batch_norm(forward):
    """A momentum of None is 1 / num_batches_tracked, which PyTorch reads as a number."""

    def with_count(self: _BatchNorm, input: torch.Tensor) -> torch.Tensor:
        counts = self.momentum is None and self.training and self.track_running_stats
        if not counts:
            return forward(self, input)
        running: tuple[Any, Any] = self.running_mean, self.running_var
        count: Any = self.num_batches_tracked
        self._check_input_dim(input)
        share = 1.0 / count.add_(1).to(input.dtype)
        mean, var = map(torch.zeros_like, running)
        output = F.batch_norm(input, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        with torch.no_grad():  # after one batch with a momentum of 1 these are its own
            for buffer, new in zip(running, (mean, var), strict=True):
                buffer.lerp_(new, share.to(buffer.dtype))
        return output

    return with_count


def _apply(captured: Captured):
    applied = torch.autograd.Function.apply.__func__

    def apply(cls, *args, **kwargs):
        if cls is checkpoint.CheckpointFunction:
            return captured.regions.reentrant(*args)
        if cls.__module__.startswith("torch."):  # torch.cond, which a graph shows
            return applied(cls, *args, **kwargs)
        function = function_of(cls)
        if function is None:
            raise LoweringError(
                f"{cls.__name__} is a torch.autograd.Function, whose backward would be lost. "
                f"Write it in JAX with jax.custom_vjp and register it: "
                f"instep.bridge.register({cls.__name__}, function)."
            )
        return captured.call(cls.__name__, function, _forward_of(cls), *args, **kwargs)

    return apply


def _forward_of(cls) -> Callable[..., Any]:
    """``forward`` alone, in both of PyTorch's forms."""
    if cls.setup_context is not torch.autograd.Function.setup_context:
        return cls.forward
    return lambda *args: cls.forward(_Context(len(args)), *args)


class _Context:
    """Takes what ``forward`` saves, and forgets it."""

    def __init__(self, n: int):
        self.needs_input_grad = (True,) * n

    def save_for_backward(self, *tensors):
        pass

    mark_dirty = mark_non_differentiable = save_for_forward = save_for_backward

    def set_materialize_grads(self, value):
        pass


def _tensors_of(args: tuple) -> tuple[list[torch.Tensor], Callable[[Sequence[Any]], list]]:
    """The tensors among ``args``, and a function that puts others in their places."""
    flat = [list(x) if isinstance(x, list | tuple) else x for x in args]
    tensors: list[torch.Tensor] = []
    for x in flat:
        tensors += [y for y in (x if isinstance(x, list) else [x]) if torch.is_tensor(y)]

    def rebuild(given: Sequence[Any]) -> list:
        rest = iter(given)

        def one(y):
            return next(rest) if torch.is_tensor(y) else y

        return [[one(y) for y in x] if isinstance(x, list) else one(x) for x in flat]

    return tensors, rebuild


def _as_list(made: Any) -> list[Any]:
    return list(made) if isinstance(made, tuple | list) else [made]


_library = torch.library.Library("instep", "DEF")
_library.define("call(str name, Tensor[] tensors) -> Tensor[]")


@torch.library.register_fake("instep::call", lib=_library)
def _(name, tensors):
    return _ACTIVE[-1].shapes[name](tensors)
