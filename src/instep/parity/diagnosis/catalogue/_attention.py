"""Mistakes in attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .._evidence import Evidence
from .._mistake import mistake
from .._rewrite import Call
from ._sites import changed_calls


ATTENTION = ("scaled_dot_product_attention",)


@mistake("Mask the future: jnp.tril, or nnx.make_causal_mask.")
def not_causal(evidence: Evidence):
    """Attention sees the future: no causal mask."""
    yield from changed_calls(
        evidence,
        ATTENTION,
        lambda call: call.but(is_causal=False),
        when=lambda call: bool(call.get("is_causal", False)),
    )


@mistake("Position t may see itself and what is before it: jnp.tril(..., k=0).")
def mask_shifted(evidence: Evidence):
    """The causal mask is off by one."""
    for k in (-1, 1):

        def shifted(call: Call, k=k) -> Call:
            q, key = call.get("query"), call.get("key")
            ones = torch.ones(q.shape[-2], key.shape[-2], dtype=torch.bool, device=q.device)
            return call.but(is_causal=False, attn_mask=_seen(ones.tril(k), q.dtype))

        yield from changed_calls(
            evidence,
            ATTENTION,
            shifted,
            f"tril(k={k})",
            when=lambda call: bool(call.get("is_causal", False)),
        )
        yield from changed_calls(
            evidence,
            ("masked_fill",),
            lambda call, k=k: call.but(mask=_future(call.get("mask"), k + 1)),
            f"tril(k={k})",
            when=lambda call: _is_future(call.get("mask")),
        )


def _future(mask: torch.Tensor, k: int) -> torch.Tensor:
    """True from ``k`` behind the diagonal on, in the shape of ``mask``."""
    return torch.ones_like(mask, dtype=torch.bool).triu(k)


def _is_future(mask: torch.Tensor) -> bool:
    return mask.ndim > 1 and torch.equal(mask, _future(mask, 1))


def _seen(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Of a row that sees nothing, a mean over all: the finite minimum that people add."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, -1e30)


@mistake("Apply the mask that PyTorch's model applies.")
def mask_missing(evidence: Evidence):
    """The attention mask is not applied."""
    yield from changed_calls(
        evidence,
        ATTENTION,
        lambda call: call.but(attn_mask=None),
        when=lambda call: call.get("attn_mask") is not None,
    )
    yield from changed_calls(
        evidence,
        WHOLE,
        lambda call: call.but(attn_mask=None, is_causal=False),
        when=lambda call: call.get("attn_mask") is not None,
    )
    yield from changed_calls(
        evidence, ("masked_fill",), lambda call: call.of(torch.clone, call.args[0])
    )


WHOLE = ("multi_head_attention_forward",)  # nn.MultiheadAttention: one call from q to output


@mistake("Mask what is padding: key_padding_mask of PyTorch is True where nobody may look.")
def padding_attended(evidence: Evidence):
    """Attention sees what is padding."""
    yield from changed_calls(
        evidence,
        WHOLE,
        lambda call: call.but(key_padding_mask=None),
        when=lambda call: call.get("key_padding_mask") is not None,
    )


@mistake("Divide the products by sqrt(d) of a head before the softmax.")
def attention_unscaled(evidence: Evidence):
    """The products of queries and keys are not divided by the root of the head's width."""
    yield from changed_calls(evidence, ATTENTION, lambda call: call.but(scale=1.0))


@mistake("The scale is 1 / sqrt(d) with d the width of one head.")
def another_attention_scale(evidence: Evidence):
    """The products of queries and keys are scaled by another width."""
    for value, power in (("1 / d", -1.0), ("d ** -0.25", -0.25)):
        yield from changed_calls(
            evidence,
            ATTENTION,
            lambda call, power=power: call.but(scale=call.get("query").shape[-1] ** power),
            value,
        )
    yield from changed_calls(
        evidence,
        ATTENTION,
        lambda call: call.but(
            scale=(call.get("query").shape[-1] * call.get("query").shape[-3]) ** -0.5
        ),
        "1 / sqrt(width of all heads)",
        when=lambda call: call.get("query").ndim == 4,
    )


@mistake("Take it over the axis that PyTorch's dim= names; in attention that is the keys.")
def softmax_over_another_axis(evidence: Evidence):
    """A softmax is taken over another axis."""

    def over_queries(call: Call) -> Call:
        def attend(
            query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None
        ):
            scores = query @ key.mT * (scale or query.shape[-1] ** -0.5)
            if is_causal:
                ones = torch.ones_like(scores, dtype=torch.bool)
                scores = scores.masked_fill(~ones.tril(), -1e30)
            if attn_mask is not None and attn_mask.dtype == torch.bool:
                scores = scores.masked_fill(~attn_mask, -1e30)
            elif attn_mask is not None:
                scores = scores + attn_mask
            return F.softmax(scores, -2) @ value

        return call.of(attend, *call.args, **call.kwargs)

    yield from changed_calls(evidence, ATTENTION, over_queries, "over the queries")
    for dim in (0, 1, -2):
        yield from changed_calls(
            evidence,
            ("softmax", "log_softmax"),
            lambda call, dim=dim: call.but(dim=dim),
            f"dim={dim}",
            when=lambda call, dim=dim: bool(
                call.args[0].ndim > max(dim, 1) and call.get("dim") != dim
            ),
        )
