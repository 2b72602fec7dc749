"""Mistakes in embeddings, and in weights that are used twice."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import torch
import torch.nn.functional as F

from .._evidence import Evidence
from .._mistake import Variant, mistake
from .._passes import calls
from .._rewrite import Call
from ._sites import changed_calls


@mistake("Look the embedding up as it is: no factor of sqrt(d).")
def embedding_scaled(evidence: Evidence):
    """An embedding is multiplied by the square root of its width, or divided."""

    def scaled(power: float):
        def embed(*args, **kwargs):
            return F.embedding(*args, **kwargs) * args[1].shape[-1] ** power

        return lambda call: call.of(embed, *call.args, **call.kwargs)

    for power in (0.5, -0.5):
        yield from changed_calls(evidence, ("embedding",), scaled(power), f"d ** {power}")


@mistake("Zero the gradient of that row: instep.ops.embedding does, with padding_idx=.")
def padding_row_trained(evidence: Evidence):
    """The row of padding_idx gets a gradient; PyTorch's is zero."""
    yield from changed_calls(
        evidence,
        ("embedding",),
        lambda call: call.but(padding_idx=None),
        when=lambda call: call.get("padding_idx", -1) not in (None, -1),
    )


@mistake("Count positions from where PyTorch's model does.")
def positions_shifted(evidence: Evidence):
    """Positions are off by one."""

    def shifted(by: int, beyond: str):
        def embed(index, weight, *args, **kwargs):
            moved, last = index + by, weight.shape[0] - 1
            if beyond == "wraps":
                return F.embedding(moved % (last + 1), weight, *args, **kwargs)
            rows = F.embedding(moved.clamp(0, last), weight, *args, **kwargs)
            outside = ((moved < 0) | (moved > last))[..., None]
            # JAX takes the nearest row, and as x[i] gives it no gradient.
            return torch.where(outside, rows.detach(), rows) if beyond == "x[i]" else rows

        return lambda call: call.of(embed, *call.args, **call.kwargs)

    for by, beyond in product((1, -1), ("wraps", "x[i]", "take")):
        yield from changed_calls(
            evidence,
            ("embedding",),
            shifted(by, beyond),
            f"{by:+d}",
            when=lambda call: _is_range(call.args[0]),
        )


def _is_range(index: torch.Tensor) -> bool:
    row = index.reshape(-1, index.shape[-1])[0] if index.ndim else index.reshape(1)
    return bool(torch.equal(row, row[0] + torch.arange(len(row), device=row.device)))


@mistake("Tie the weights: one leaf, used twice, has the sum of both gradients.")
def tied_weights_untied(evidence: Evidence):
    """A weight that is used twice has the gradient of one use alone."""
    uses = [(call, x) for call in calls(evidence) for x in call.args if _is_weight(x)]
    for call, weight in uses:
        if len({other.number for other, x in uses if x is weight}) > 1:
            yield Variant({"call": _detached(call)}, call.module, f"not that of {call.name}")


def _is_weight(x: object) -> bool:
    return isinstance(x, torch.nn.Parameter)


def _detached(one: Call):
    def change(call: Call) -> Call | None:
        if call.number != one.number:
            return None
        return replace(call, args=tuple(x.detach() if _is_weight(x) else x for x in call.args))

    return change
