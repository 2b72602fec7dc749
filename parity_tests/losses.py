"""The calls that PyTorch's own test databases make of its losses, and both sides of one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

from instep import losses
from instep.bridge import tensor_to_array
from instep.ops import pairwise_distance


NAMES = sorted(n for n in dir(F) if (n.endswith("_loss") or "entropy" in n or n == "kl_div"))
HOW_TORCH_SAYS_IT = ("size_average", "reduce", "options")  # deprecated; how it chunks


class Call(NamedTuple):
    """One call of a loss; the tensors that require a gradient are differentiated."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def torch(self):
        return getattr(F, self.name)

    @property
    def ours(self):
        return getattr(losses, self.name)

    @property
    def signature(self) -> str:
        """All but the numbers: calls that differ in no more are one case."""
        kwargs = {k: v for k, v in self.kwargs.items() if k not in HOW_TORCH_SAYS_IT}
        return f"{self.name}({', '.join(map(_described, self.args))}, {_described(kwargs)})"

    def to(self, dtype: torch.dtype) -> Call:
        """The same numbers, floating tensors in ``dtype``."""

        def cast(x):
            if not torch.is_tensor(x) or not x.is_floating_point():
                return x
            return x.detach().to(dtype).requires_grad_(x.requires_grad)

        args = tuple(cast(x) for x in self.args)
        return Call(self.name, args, {k: cast(v) for k, v in self.kwargs.items()})

    def moved(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Call:
        """What is differentiated moved, unless it holds labels or signs."""

        def moved(x):
            if not _differentiated(x) or torch.equal(x, x.round()):
                return x
            x = move(x.detach().clone())
            if self.name == "binary_cross_entropy":  # takes probabilities only
                x = x.clamp(0, 1)
            return x.requires_grad_()

        return Call(self.name, tuple(map(moved, self.args)), self.kwargs)


def calls() -> Iterator[Call]:
    """Of both databases, one of each signature; its tensors are leaves of their own."""
    seen = set()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for call in (*_of_op_db(), *_of_module_db()):
            if call.signature not in seen:
                seen.add(call.signature)
                yield call.to(torch.float64)


def _of_op_db():
    for op in op_db:
        name = op.name.removeprefix("nn.functional.")
        if name in NAMES:
            for sample in op.sample_inputs("cpu", torch.float64, requires_grad=True):
                yield Call(name, (sample.input, *sample.args), sample.kwargs)


def _of_module_db():
    """What each module's forward calls."""
    for info in module_db:
        if not info.name.endswith("Loss"):
            continue
        for inputs in info.module_inputs_func(info, "cpu", torch.float64, True, True):
            made, given = inputs.constructor_input, inputs.forward_input
            module = info.module_cls(*made.args, **made.kwargs)
            with _FirstCall() as mode, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of kl_div's mean, and of options
                module(*given.args, **given.kwargs)
            yield mode.call


class _FirstCall(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.call = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if self.call is None and name in NAMES:
            self.call = Call(name, args, dict(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _described(value: Any) -> str:
    if torch.is_tensor(value):
        grad = "'" if value.requires_grad else ""
        return f"{str(value.dtype).removeprefix('torch.')}{grad}{list(value.shape)}"
    if isinstance(value, dict):
        return ", ".join(f"{k}={_described(v)}" for k, v in value.items())
    return repr(value)


def of_torch(call: Call, order: int = 2) -> list[np.ndarray]:
    """The loss, its gradients, and theirs, each along a fixed cotangent."""
    leaves = [x for x in (*call.args, *call.kwargs.values()) if _differentiated(x)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = [call.torch(*call.args, **call.kwargs)]
    out = list(made)
    for _ in range(order):
        total = sum((along(y, i) * y).sum() for i, y in enumerate(made))
        if not total.requires_grad:  # constant
            break
        grads = torch.autograd.grad(total, leaves, create_graph=True, allow_unused=True)
        made = [
            torch.zeros_like(x) if g is None or g._is_zerotensor() else g
            for x, g in zip(leaves, grads, strict=True)
        ]
        out += made
    return [tensor_to_array(y.detach()) for y in out]


def both(call: Call, order: int = 2) -> zip:
    """Pairs of PyTorch's and ours: the loss and all gradients that PyTorch has."""
    theirs, ours = of_torch(call, order), of_ours(call, order)
    return zip(theirs, ours[: len(theirs)], strict=True)


def of_ours(call: Call, order: int = 2) -> list[np.ndarray]:
    """The same of ``instep.losses``, under ``jax.jit``."""
    kwargs = {k: v for k, v in call.kwargs.items() if k not in HOW_TORCH_SAYS_IT}
    given = {**{f"{i}": x for i, x in enumerate(call.args)}, **kwargs}
    tensors = {k: x for k, x in given.items() if torch.is_tensor(x)}
    static = {k: _ours_of(x) for k, x in given.items() if k not in tensors}
    names = [k for k, x in tensors.items() if _differentiated(x)]
    arrays = {k: jnp.asarray(tensor_to_array(x.detach())) for k, x in tensors.items()}
    run = _compiled(call.ours, order, tuple(names), len(call.args), _Static(static))
    return [np.asarray(y) for y in run(arrays)]


def _ours_of(value: Any) -> Any:
    if isinstance(value, torch.nn.PairwiseDistance):
        return functools.partial(
            pairwise_distance, p=value.norm, eps=value.eps, keepdim=value.keepdim
        )
    return value


class _Static(dict):
    """What is not an array. Equal where it reads the same."""

    def __hash__(self):
        return hash(repr(self))

    def __eq__(self, other):
        return repr(self) == repr(other)


@functools.cache
def _compiled(loss, order, names, n_args, static):
    def value(leaves, arrays):
        given = {**static, **arrays, **leaves}
        args = [given.pop(f"{i}") for i in range(n_args)]
        return [loss(*args, **given)]

    def gradients(of, leaves, arrays):
        def total(leaves):
            return sum(jnp.sum(along(y, i) * y) for i, y in enumerate(of(leaves, arrays)))

        grads = jax.grad(total)(leaves)
        return [grads[k] for k in names]

    @jax.jit
    def run(arrays):
        leaves = {k: arrays[k] for k in names}
        of, out = value, value(leaves, arrays)
        for _ in range(order if names else 0):
            of = functools.partial(gradients, of)
            out = out + of(leaves, arrays)
        return out

    return run


def along(y, place=0):
    """A cotangent for ``y``, in its own dtype: the same for every tensor of shape and place.

    Another for another place: the gradients of ``x`` and ``y`` in a loss of ``x - y`` cancel
    along the same one, and so do their derivatives.
    """
    shape = tuple(y.shape)
    c = np.random.default_rng([sum(shape) + len(shape), place]).uniform(0.5, 1.5, shape)
    if torch.is_tensor(y):
        return torch.tensor(c, dtype=y.dtype)
    return jnp.asarray(c, y.dtype)


def _differentiated(x: Any) -> bool:
    return torch.is_tensor(x) and x.requires_grad
