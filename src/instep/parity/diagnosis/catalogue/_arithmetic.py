"""Mistakes in the arithmetic between layers: constants, terms, reductions, what is detached."""

from __future__ import annotations

import torch

from .._evidence import Evidence
from .._mistake import mistake
from .._passes import calls
from .._rewrite import Call
from ._sites import changed_calls, dialled_calls


PRODUCTS = ("mul", "div", "mul_", "div_")
SUMS = ("add", "sub", "add_", "sub_")
REVERSED = ("__rdiv__", "__rsub__")


def _has_constant(call: Call) -> bool:
    """Whether the second operand is a number, not a tensor."""
    return len(call.args) == 2 and isinstance(call.args[1], int | float)


def _left_out(call: Call) -> Call:
    return call.of(torch.clone, call.args[0])


@mistake("Write the factor or the summand that PyTorch's model has here.", special=True)
def constant_missing(evidence: Evidence):
    """A number by which PyTorch multiplies or divides, or that it adds, is left out."""
    names = (*PRODUCTS, *SUMS)
    for said in dict.fromkeys(_said(c) for c in calls(evidence) if c.name in names):
        if not said:
            continue
        yield from changed_calls(
            evidence, names, _left_out, said, when=lambda call, said=said: _said(call) == said
        )


SIGNS = {"mul": "*", "div": "/", "add": "+", "sub": "-"}


def _said(call: Call) -> str:
    """``"* 0.5"``; "" of what would change nothing, or is no number."""
    if not _has_constant(call) or call.args[1] == _neutral(call):
        return ""
    return f"{SIGNS[call.name.rstrip('_')]} {call.args[1]:g}"


def _neutral(call: Call) -> int:
    """The number that would change nothing."""
    return 1 if call.name in PRODUCTS else 0


@mistake("Write the number that PyTorch's model has here.", special=True)
def another_constant(evidence: Evidence):
    """A number that is written in the forward pass or in the loss is another one."""
    names = (*PRODUCTS, *SUMS, *REVERSED, "pow")
    found = [c for c in calls(evidence) if c.name in names and _has_constant(c)]
    for alike in dict.fromkeys((call.name, call.args[1]) for call in found):
        yield from dialled_calls(
            evidence,
            names,
            f"constant {alike[1]:g}, here",
            lambda call: float(call.args[1]),
            lambda call, value: call.of(call.function, call.args[0], value),
            lambda call, a=alike: _has_constant(call) and (call.name, call.args[1]) == a,
        )


def _of_two_tensors(call: Call) -> bool:
    both = call.args[:2]
    return len(both) == 2 and all(torch.is_tensor(x) and x.is_floating_point() for x in both)


@mistake(
    "Add what PyTorch's model adds: a residual, a position, a term of the loss.", special=True
)
def term_missing(evidence: Evidence):
    """A term of a sum is left out."""
    for i in (0, 1):
        yield from changed_calls(
            evidence,
            SUMS,
            lambda call, i=i: call.of(_expanded, call.args[i], call.args[1 - i]),
            ("the second", "the first")[i],
            when=lambda call, i=i: _of_two_tensors(call) and (i == 0 or call.name[:3] == "add"),
        )


def _expanded(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, like.shape)).clone()


@mistake("Give the term the sign that it has in PyTorch.", special=True)
def term_of_other_sign(evidence: Evidence):
    """A term of a sum has the opposite sign."""
    for name, function in (("add", torch.sub), ("sub", torch.add)):
        yield from changed_calls(
            evidence,
            (name,),
            lambda call, f=function: call.of(f, *call.args),
            when=_of_two_tensors,
        )


@mistake("jax.lax.stop_gradient where PyTorch has .detach().")
def detach_missing(evidence: Evidence):
    """A gradient goes through what PyTorch detaches."""
    yield from changed_calls(evidence, ("detach",), _left_out)


@mistake("Flatten in PyTorch's order: transpose to (N, C, H, W) first, or permute the weights.")
def flattened_channels_last(evidence: Evidence):
    """Images or sequences are flattened with their channels last, PyTorch's with them first."""

    def last(call: Call) -> Call:
        return call.of(lambda x: x.movedim(1, -1).flatten(1), call.args[0])

    yield from changed_calls(
        evidence,
        ("flatten", "reshape", "view"),
        last,
        when=lambda call: bool(call.args[0].ndim > 2 and _flattens(call)),
    )


def _flattens(call: Call) -> bool:
    x = call.args[0]
    wanted = (len(x), x[0].numel())
    if call.name == "flatten":
        return call.args[1:2] == (1,) or call.kwargs.get("start_dim") == 1
    return tuple(call().shape) == wanted


@mistake("Reduce over the axis that PyTorch's model reduces over.")
def reduced_over_another_axis(evidence: Evidence):
    """A mean, a sum or the like is taken over another axis of the same length."""
    for dim in range(4):
        yield from changed_calls(
            evidence,
            ("mean", "sum", "amax", "logsumexp"),
            lambda call, dim=dim: call.but(dim=dim),
            f"dim={dim}",
            when=lambda call, dim=dim: _reduces_another(call, dim),
        )


def _reduces_another(call: Call, dim: int) -> bool:
    x, now = call.args[0], call.get("dim")
    if isinstance(now, tuple | list):
        now = now[0] if len(now) == 1 else None
    if not isinstance(now, int) or dim >= x.ndim:
        return False
    return now % x.ndim != dim and x.shape[now] == x.shape[dim]


@mistake("Take the mean or the sum that PyTorch's model takes.")
def sum_and_mean_exchanged(evidence: Evidence):
    """A sum is taken where PyTorch takes the mean, or the other way round."""
    for name, function in (("mean", torch.sum), ("sum", torch.mean)):
        yield from changed_calls(
            evidence,
            (name,),
            lambda call, f=function: call.of(f, *call.args, **call.kwargs),
            when=lambda call: call.args[0].is_floating_point(),
        )
