"""Mistakes inside layers: their constants, what is left out, what they are exchanged for."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .._evidence import Evidence
from .._mistake import mistake
from .._rewrite import Call
from ._cells import ACTIVATIONS, biases_missing, with_activations
from ._sites import changed_calls, dialled_calls


NORMS = ("layer_norm", "group_norm", "batch_norm", "rms_norm", "instance_norm")


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


@mistake(
    "Give epsilon: PyTorch's LayerNorm and GroupNorm have 1e-5, Flax's 1e-6; PyTorch's RMSNorm "
    "has that of its dtype unless it is told."
)
def another_norm_epsilon(evidence: Evidence):
    """A norm has another epsilon; that of Flax's LayerNorm is 1e-6, of PyTorch's 1e-5."""
    for eps in (1e-6, 1e-5, 1e-3, 1e-12, 1e-8, 1e-4, 0.0):
        yield from changed_calls(
            evidence,
            NORMS,
            lambda call, eps=eps: call.but(eps=eps),
            f"eps={eps:g}",
            when=lambda call, eps=eps: bool(call.get("eps", 1e-5) != eps),
        )
    yield from dialled_calls(
        evidence,
        NORMS,
        "eps",
        lambda call: call.get("eps") or 1e-5,
        lambda call, eps: call.but(eps=eps),
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
    yield from dialled_calls(
        evidence,
        ("leaky_relu",),
        "negative_slope",
        lambda call: call.get("negative_slope", 0.01),
        lambda call, slope: call.of(F.leaky_relu, call.args[0], slope),
    )
    for other, function in ACTIVATIONS.items():
        yield from with_activations(evidence, function, other)


@mistake("Call the activation that PyTorch's model calls here.")
def activation_missing(evidence: Evidence):
    """No activation."""
    yield from changed_calls(
        evidence, tuple(ACTIVATIONS), lambda call: call.of(torch.clone, call.args[0])
    )
    yield from with_activations(evidence, torch.clone)


@mistake("Give num_groups= as PyTorch has it: Flax's GroupNorm takes 32 by default.")
def another_number_of_groups(evidence: Evidence):
    """A GroupNorm has another number of groups."""
    for groups in (1, 2, 4, 8, 16, 32):
        yield from changed_calls(
            evidence,
            ("group_norm",),
            lambda call, n=groups: call.but(num_groups=n),
            f"num_groups={groups}",
            when=lambda call, n=groups: _divides(n, call),
        )


def _divides(groups: int, call: Call) -> bool:
    return call.get("num_groups") != groups and call.get("input").shape[1] % groups == 0


@mistake("Multiply by the scale of the norm: use_scale=True.")
def norm_scale_missing(evidence: Evidence):
    """What is normalised is not multiplied by its weight."""
    yield from changed_calls(
        evidence,
        NORMS,
        lambda call: call.but(weight=None),
        when=lambda call: call.get("weight") is not None,
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
    yield from biases_missing(evidence)
