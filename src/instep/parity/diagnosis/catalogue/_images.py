"""Mistakes in pooling and padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .._evidence import Evidence
from .._mistake import mistake
from .._rewrite import Call
from ._sites import changed_calls


@mistake("count_include_pad=True in Flax's avg_pool; PyTorch counts the padding by default.")
def pooling_counts_no_padding(evidence: Evidence):
    """An average pool divides by the numbers inside the image; PyTorch counts the padding."""
    yield from changed_calls(
        evidence,
        ("avg_pool1d", "avg_pool2d", "avg_pool3d"),
        lambda call: call.but(count_include_pad=False),
        when=lambda call: bool(call.get("count_include_pad", True)),
    )


@mistake("count_include_pad=False, as in PyTorch's model.")
def pooling_counts_padding(evidence: Evidence):
    """An average pool counts the padding, and PyTorch's model does not."""
    yield from changed_calls(
        evidence,
        ("avg_pool1d", "avg_pool2d", "avg_pool3d"),
        lambda call: call.but(count_include_pad=True),
        when=lambda call: not call.get("count_include_pad", True),
    )


POOLS = {
    "avg_pool2d": F.max_pool2d,
    "max_pool2d": F.avg_pool2d,
    "adaptive_avg_pool2d": F.adaptive_max_pool2d,
    "adaptive_max_pool2d": F.adaptive_avg_pool2d,
}


@mistake("Pool as PyTorch's model does.")
def pooling_exchanged(evidence: Evidence):
    """An average for a maximum, or the other way round."""

    def exchanged(call: Call) -> Call:
        size = call.get("kernel_size", call.get("output_size"))
        if size is None:
            size = call.args[1]
        given = {k: v for k, v in call._given().items() if k in ("stride", "padding") and v}
        return call.of(POOLS[call.name], call.args[0], size, **given)

    yield from changed_calls(evidence, tuple(POOLS), exchanged)
    yield from changed_calls(
        evidence,
        ("mean",),
        lambda call: call.of(torch.amax, call.args[0], call.get("dim"), _keeps(call)),
        "max",
        when=lambda call: call.get("dim") is not None,
    )
    yield from changed_calls(
        evidence,
        ("amax",),
        lambda call: call.of(torch.mean, call.args[0], call.get("dim"), _keeps(call)),
        "mean",
    )


def _keeps(call: Call) -> bool:
    return bool(call.get("keepdim", False))


CONVOLUTIONS = {"conv1d": 1, "conv2d": 2}


@mistake(
    "Give the padding as numbers: padding=1 is ((1, 1), (1, 1)); 'SAME' is not, at stride 2."
)
def padding_same(evidence: Evidence):
    """Padded as 'SAME' does: unevenly at stride 2, where PyTorch pads both sides alike."""

    def same(call: Call) -> Call:
        x, w = call.get("input"), call.get("weight")
        n = CONVOLUTIONS[call.name]
        stride, dilation = (_each(call.get(k, 1), n) for k in ("stride", "dilation"))
        pads: list[int] = []
        for size, kernel, s, d in zip(x.shape[2:], w.shape[2:], stride, dilation, strict=True):
            total = max((-(-size // s) - 1) * s + (kernel - 1) * d + 1 - size, 0)
            pads = [total // 2, total - total // 2, *pads]
        return call.but(input=F.pad(x, pads), padding=0)

    yield from changed_calls(evidence, tuple(CONVOLUTIONS), same)


def _each(value, n: int) -> tuple[int, ...]:
    return (value,) * n if isinstance(value, int) else tuple(value)


@mistake("Pad as PyTorch's model does.")
def padding_missing(evidence: Evidence):
    """Zeros around the image are missing, on all sides or on one, or moved."""
    yield from changed_calls(
        evidence,
        ("conv1d", "conv2d", "conv3d", *POOLS),
        lambda call: call.but(padding=0),
        "padding=0",
        when=lambda call: any(_each(call.get("padding", 0), 1)),
    )
    for pads in ((0, 2, 0, 2), (2, 0, 2, 0)):
        yield from changed_calls(
            evidence,
            ("conv2d",),
            lambda call, pads=pads: call.but(input=F.pad(call.get("input"), pads), padding=0),
            f"F.pad(x, {pads})",
            when=lambda call: bool(_each(call.get("padding", 0), 2) == (1, 1)),
        )
