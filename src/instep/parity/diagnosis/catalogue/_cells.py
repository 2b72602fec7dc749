"""LSTM and GRU as PyTorch's, with the places marked where dialects differ.

Letters: B batch, T time, E width of the input, H of the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .._evidence import Evidence
from .._mistake import Variant
from .._rewrite import Call
from ._sites import changed_calls


Activation = Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "relu6": F.relu6,
    "softplus": F.softplus,
    "selu": F.selu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "softsign": F.softsign,
}


@dataclass(frozen=True)
class Dialect:
    """What may be done otherwise; as it is, a cell is PyTorch's own."""

    candidate: Activation = torch.tanh
    output: Activation = torch.tanh
    forget_bias: float = 0.0
    reset_first: bool = False
    exchanged: bool = False
    backwards: bool = False


def in_dialect(
    evidence: Evidence, names: tuple[str, ...], value: str = "", **dialect: Any
) -> Iterator[Variant]:
    """Variants in which the LSTMs or GRUs of ``changed_calls`` speak a dialect."""
    yield from changed_calls(
        evidence, names, lambda call: _by_hand(call, Dialect(**dialect)), value, when=is_plain
    )


def with_activations(
    evidence: Evidence, function: Activation, name: str = ""
) -> Iterator[Variant]:
    """Variants in which a cell has another activation than tanh, at one of its places."""
    if function is torch.tanh:
        return
    both = ("lstm", "gru")
    said = f"{name} of the candidate".strip()
    yield from in_dialect(evidence, both, said, candidate=function)
    said = f"{name} of the output".strip()
    yield from in_dialect(evidence, ("lstm",), said, output=function)


def biases_missing(evidence: Evidence) -> Iterator[Variant]:
    """Variants in which one of PyTorch's two biases is zero."""
    for offset, said in ((2, "bias_ih"), (3, "bias_hh")):

        def without(call: Call, offset=offset) -> Call:
            params = [
                torch.zeros_like(p) if i % 4 == offset else p
                for i, p in enumerate(call.args[2])
            ]
            return call.of(call.function, *call.args[:2], params, *call.args[3:])

        yield from changed_calls(
            evidence,
            ("lstm", "gru"),
            without,
            said,
            when=lambda call: is_plain(call) and bool(call.args[3]),
        )


def is_plain(call: Call) -> bool:
    """One direction, no dropout, and no packed sequences."""
    if len(call.args) != 9 or not isinstance(call.args[2], list | tuple):
        return False
    dropout, training, both_ways = call.args[5:8]
    return not (both_ways or (dropout and training))


def _by_hand(call: Call, dialect: Dialect) -> Call:
    x, hx, params, has_biases, layers, _, _, _, batch_first = call.args
    cell, per_layer = CELLS[call.name], 4 if has_biases else 2

    def run() -> tuple[torch.Tensor, ...]:
        x_TBE = x.transpose(0, 1) if batch_first else x
        last = []
        for layer in range(layers):
            weights = params[per_layer * layer : per_layer * (layer + 1)]
            start = [h[layer] for h in hx] if call.name == "lstm" else [hx[layer]]
            x_TBE, carry = _unrolled(cell, x_TBE, start, weights, dialect)
            last.append(carry)
        made = x_TBE.transpose(0, 1) if batch_first else x_TBE
        return made, *(torch.stack(states) for states in zip(*last, strict=True))

    return call.of(run)


def _unrolled(cell, x_TBE, carry: list, weights: Sequence[torch.Tensor], dialect: Dialect):
    order = reversed(range(len(x_TBE))) if dialect.backwards else range(len(x_TBE))
    states: dict[int, torch.Tensor] = {}
    for t in order:
        carry = cell(x_TBE[t], carry, weights, dialect)
        states[t] = carry[0]
    return torch.stack([states[t] for t in range(len(x_TBE))]), carry


def lstm_cell(x_BE, carry: list, weights: Sequence[torch.Tensor], d: Dialect) -> list:
    h, c = carry
    w_i, w_h, *biases = weights
    b_i, b_h = biases or (None, None)
    i, f, g, o = (F.linear(x_BE, w_i, b_i) + F.linear(h, w_h, b_h)).chunk(4, -1)
    c = torch.sigmoid(f + d.forget_bias) * c + torch.sigmoid(i) * d.candidate(g)
    return [torch.sigmoid(o) * d.output(c), c]


def gru_cell(x_BE, carry: list, weights: Sequence[torch.Tensor], d: Dialect) -> list:
    (h,) = carry
    w_i, w_h, *biases = weights
    b_i, b_h = biases or (None, None)
    r, z, n = F.linear(x_BE, w_i, b_i).chunk(3, -1)
    r_h, z_h, n_h = F.linear(h, w_h, b_h).chunk(3, -1)
    r, z = torch.sigmoid(r + r_h), torch.sigmoid(z + z_h)
    if d.reset_first:
        b_n = None if b_h is None else b_h.chunk(3)[2]
        n = d.candidate(n + F.linear(r * h, w_h.chunk(3)[2], b_n))
    else:
        n = d.candidate(n + r * n_h)
    return [z * n + (1 - z) * h if d.exchanged else (1 - z) * n + z * h]


CELLS = {"lstm": lstm_cell, "gru": gru_cell}
