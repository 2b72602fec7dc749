"""Mistakes inside layers: their constants, their padding, what they are exchanged for."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from .._evidence import Evidence
from .._mistake import Variant, mistake
from .._rewrite import Call
from .._step import calls
from ._sites import changed_calls


NORMS = ("layer_norm", "group_norm", "batch_norm", "rms_norm", "instance_norm")
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
}


@mistake("jax.nn.gelu(x, approximate=False): JAX's default is the tanh approximation.")
def gelu_by_tanh(evidence: Evidence):
    """GELU by its tanh approximation, JAX's default; PyTorch's is exact, by erf."""
    yield from changed_calls(
        evidence,
        ("gelu",),
        lambda call: call.but(approximate="tanh"),
        when=lambda call: call.get("approximate", "none") == "none",
    )


@mistake("jax.nn.gelu(x, approximate=True) is PyTorch's gelu(approximate='tanh').")
def gelu_exact(evidence: Evidence):
    """GELU by erf, where PyTorch takes the tanh approximation."""
    yield from changed_calls(
        evidence,
        ("gelu",),
        lambda call: call.but(approximate="none"),
        when=lambda call: call.get("approximate", "none") == "tanh",
    )


@mistake("Give epsilon: PyTorch's LayerNorm, GroupNorm and BatchNorm have 1e-5, Flax's 1e-6.")
def another_norm_epsilon(evidence: Evidence):
    """A norm has another epsilon; Flax's is 1e-6 by default, PyTorch's 1e-5."""
    for eps in (1e-6, 1e-5, 1e-3, 1e-12, 1e-8, 1e-4, 0.0):
        yield from changed_calls(
            evidence,
            NORMS,
            lambda call, eps=eps: call.but(eps=eps),
            f"eps={eps:g}",
            when=lambda call, eps=eps: bool(call.get("eps", 1e-5) != eps),
        )


@mistake("Use the activation that PyTorch's model has.")
def activation_exchanged(evidence: Evidence):
    """Another activation."""
    for other, function in ACTIVATIONS.items():
        yield from changed_calls(
            evidence,
            tuple(ACTIVATIONS),
            lambda call, function=function: call.of(function, call.args[0]),
            other,
            when=lambda call, other=other: call.name != other,
        )
    for slope in (0.2, 0.1, 0.3):
        yield from changed_calls(
            evidence,
            ("leaky_relu",),
            lambda call, slope=slope: call.of(F.leaky_relu, call.args[0], slope),
            f"negative_slope={slope}",
        )


@mistake("Call the activation that PyTorch's model calls here.")
def activation_missing(evidence: Evidence):
    """No activation."""
    yield from changed_calls(
        evidence, tuple(ACTIVATIONS), lambda call: call.of(torch.clone, call.args[0])
    )


@mistake("Call the norm that PyTorch's model calls here.")
def norm_missing(evidence: Evidence):
    """A norm is not applied."""
    yield from changed_calls(
        evidence, NORMS, lambda call: call.of(torch.clone, call.get("input"))
    )


@mistake("Transpose: PyTorch's Linear holds (out, in), Flax's kernel (in, out).")
def weight_not_transposed(evidence: Evidence):
    """A square weight is used as it is, where it should be transposed."""
    yield from changed_calls(
        evidence,
        ("linear",),
        lambda call: call.but(weight=call.get("weight").mT),
        when=lambda call: _is_square(call.get("weight")),
    )


def _is_square(weight: torch.Tensor) -> bool:
    return weight.ndim == 2 and weight.shape[0] == weight.shape[1]


@mistake("Add the bias: use_bias=True; PyTorch's LSTM and GRU have two.")
def bias_missing(evidence: Evidence):
    """A bias is not added."""
    yield from changed_calls(
        evidence,
        ("linear", "conv1d", "conv2d", "conv3d", *NORMS),
        lambda call: call.but(bias=None),
        when=lambda call: call.get("bias") is not None and bool(call.get("bias").any()),
    )
    for offset, said in ((2, "bias_ih"), (3, "bias_hh")):

        def without(call: Call, offset=offset) -> Call:
            params = [
                torch.zeros_like(p) if i % 4 == offset else p
                for i, p in enumerate(call.args[2])
            ]
            return call.of(call.function, *call.args[:2], params, *call.args[3:])

        yield from changed_calls(
            evidence, ("lstm", "gru"), without, said, when=lambda call: bool(call.args[3])
        )


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
    "boxed_max_pool2d": F.avg_pool2d,
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
        lambda call: call.of(torch.amax, call.args[0], call.get("dim")),
        "max",
        when=lambda call: call.get("dim") is not None,
    )
    yield from changed_calls(
        evidence,
        ("amax",),
        lambda call: call.of(torch.mean, call.args[0], call.get("dim")),
        "mean",
    )


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
    """Zeros around the image are missing on one side, or moved."""
    for pads in ((0, 2, 0, 2), (2, 0, 2, 0)):
        yield from changed_calls(
            evidence,
            ("conv2d",),
            lambda call, pads=pads: call.but(input=F.pad(call.get("input"), pads), padding=0),
            f"F.pad(x, {pads})",
            when=lambda call: bool(_each(call.get("padding", 0), 2) == (1, 1)),
        )


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

    def shifted(by: int):
        def embed(index, weight, *args, **kwargs):
            return F.embedding((index + by) % weight.shape[0], weight, *args, **kwargs)

        return lambda call: call.of(embed, *call.args, **call.kwargs)

    for by in (1, -1):
        yield from changed_calls(
            evidence,
            ("embedding",),
            shifted(by),
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

            yield from changed_calls(evidence, (name,), exchanged, said)
