"""Mistakes inside the cells of LSTM and GRU."""

from __future__ import annotations

import torch

from .._evidence import Evidence
from .._mistake import mistake
from .._rewrite import Call
from ._cells import in_dialect, is_plain
from ._sites import changed_calls


@mistake("PyTorch's LSTM has its gates in the order i, f, g, o, and GRU's r, z, n.")
def gates_in_another_order(evidence: Evidence):
    """The gates of an LSTM or GRU are taken in another order."""
    orders = {
        "lstm": {
            "i, g, f, o": (0, 2, 1, 3),
            "i, f, o, g": (0, 1, 3, 2),
            "f, i, g, o": (1, 0, 2, 3),
        },
        "gru": {"z, r, n": (1, 0, 2)},
    }
    for name, known in orders.items():
        for said, order in known.items():

            def exchanged(call: Call, order=order) -> Call:
                params = [
                    torch.cat([p.chunk(len(order))[i] for i in order]) for p in call.args[2]
                ]
                return call.of(call.function, *call.args[:2], params, *call.args[3:])

            yield from changed_calls(evidence, (name,), exchanged, said, when=is_plain)


@mistake(
    "PyTorch adds no constant to the forget gate; the cells of Haiku and TensorFlow 1 add 1."
)
def forget_bias_added(evidence: Evidence):
    """A constant is added to the forget gate of an LSTM."""
    yield from in_dialect(evidence, ("lstm",), "1", forget_bias=1.0)


@mistake("PyTorch's GRU resets the product with the state: r * (W h + b), not W (r * h) + b.")
def state_reset_before_product(evidence: Evidence):
    """The reset gate of a GRU multiplies the state, where PyTorch's multiplies its product."""
    yield from in_dialect(evidence, ("gru",), reset_first=True)


@mistake("PyTorch's GRU keeps z of the old state: (1 - z) * n + z * h.")
def update_gate_exchanged(evidence: Evidence):
    """The update gate of a GRU keeps what PyTorch's replaces."""
    yield from in_dialect(evidence, ("gru",), exchanged=True)


@mistake("Scan from the first step to the last: reverse=False.")
def sequence_reversed(evidence: Evidence):
    """A sequence is read from its end."""
    yield from in_dialect(evidence, ("lstm", "gru"), backwards=True)
