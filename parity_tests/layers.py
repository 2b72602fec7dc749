"""Layers as PyTorch, Flax NNX and Flax Linen have them, with what each computes.

Letters: B batch, T time, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen, nnx
from torch import nn

from instep import bridge


def random_torch(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and floating buffer is drawn, so that none is zero or one."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                drawn = rng.uniform(0.5, 1.5, tensor.shape)
                if not name.endswith("running_var"):
                    drawn = drawn * rng.choice([-1.0, 1.0], tensor.shape)
                tensor.copy_(torch.as_tensor(drawn))
    return module


def random_tree(tree: Any, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.uniform(0.5, 1.5, np.shape(x)), tree)


@dataclass(frozen=True)
class Case:
    """One layer. ``nnx`` and ``linen`` make the Flax layers; ``call`` runs either."""

    rule: Callable[[], bridge.Rule]
    torch: Callable[[], nn.Module]
    x: tuple[int, ...]  # shape of the input, channels last
    nnx: Callable[[], nnx.Module] | None = None
    linen: Callable[[], linen.Module] | None = None
    spatial: bool = False  # PyTorch has channels first
    inputs: Callable[[np.ndarray], tuple] = lambda x: (x,)
    call: dict[str, Any] = field(default_factory=dict)
    exact: bool = True


F64 = {"param_dtype": float}
R = lambda: nnx.Rngs(0)  # noqa: E731


def integers(x):
    return (np.abs(x * 10).astype(int)[..., 0] % 5,)


def attention(query_BTHD, key_BTHD, value_BTHD, **options):
    """Attention in the dtype of its inputs: ``jax.nn``'s own softmax is always float32."""
    del options  # nothing is masked, dropped or sown
    scores = jnp.einsum("bqhd,bkhd->bhqk", query_BTHD, key_BTHD)
    scores = scores / np.sqrt(query_BTHD.shape[-1]).item()
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value_BTHD)


def self_attention(x):
    return x, x, x


def cross_attention(x):
    return x, x[..., :5] + 1.0, x[..., 1:] * 2.0


def _conv(dims: int, groups: int = 1) -> Case:
    k = (3, 2, 4)[:dims]
    return Case(
        lambda: bridge.conv(""),
        lambda: getattr(nn, f"Conv{dims}d")(4, 6, k, groups=groups),
        (2, *(5, 6, 7)[:dims], 4),
        lambda: nnx.Conv(4, 6, k, padding="VALID", feature_group_count=groups, rngs=R(), **F64),
        lambda: linen.Conv(6, k, padding="VALID", feature_group_count=groups, **F64),
        spatial=True,
    )


def _conv_transpose(dims, k=(3, 2, 4), stride=1, padding=0, extra=0, dilation=1, flag=False):
    """Flax pads by ``dilation * (k - 1) - padding``, and at the end by what is extra."""
    k = k[:dims]
    pads = [(dilation * (n - 1) - padding, dilation * (n - 1) - padding + extra) for n in k]
    flax: dict[str, Any] = {
        "strides": (stride,) * dims,
        "padding": "VALID" if padding == extra == 0 else pads,
        "kernel_dilation": (dilation,) * dims,
        "transpose_kernel": flag,
        **F64,
    }
    return Case(
        lambda: bridge.conv_transpose("", transpose_kernel=flag),
        lambda: getattr(nn, f"ConvTranspose{dims}d")(
            4, 4, k, stride, padding, extra, dilation=dilation
        ),
        (2, *(3, 4, 5)[:dims], 4),
        lambda: nnx.ConvTranspose(4, 4, k, rngs=R(), **flax),
        lambda: linen.ConvTranspose(4, k, **flax),
        spatial=True,
    )


def _attention(bias: bool = True, kdim: int | None = None) -> Case:
    options: dict[str, Any] = {"use_bias": bias, **F64}
    return Case(
        lambda: bridge.multihead_attention("", heads=2),
        lambda: nn.MultiheadAttention(6, 2, bias=bias, kdim=kdim, vdim=kdim, batch_first=True),
        (2, 3, 6),
        lambda: nnx.MultiHeadAttention(
            2,
            6,
            in_kv_features=kdim,
            attention_fn=attention,
            decode=False,
            rngs=R(),
            **options,
        ),
        lambda: linen.MultiHeadDotProductAttention(2, **options),
        inputs=cross_attention if kdim else self_attention,
    )


class NnxRNN(nnx.Module):
    """A cell over time, from a carry of zeros."""

    def __init__(self, cell: nnx.Module):
        self.cell = cell

    def __call__(self, x_BTC):
        return scan_cell(self.cell, x_BTC)


def scan_cell(cell, x_BTC):
    zeros = jnp.zeros((x_BTC.shape[0], 4))
    carry = zeros if isinstance(cell, nnx.GRUCell) else (zeros, zeros)
    outputs = []
    for t in range(x_BTC.shape[1]):
        carry, y = cell(carry, x_BTC[:, t])
        outputs.append(y)
    return jnp.stack(outputs, 1)


def two_biases(cell):
    """Flax's own cell, given the bias that it lacks."""
    linear = lambda i, o: nnx.Linear(i, o, rngs=R(), **F64)  # noqa: E731
    if isinstance(cell, nnx.GRUCell):
        cell.dense_h = linear(4, 12)
    elif isinstance(cell, nnx.OptimizedLSTMCell):
        cell.dense_i = linear(3, 16)
    else:
        for gate in ("ii", "if_", "ig", "io"):
            setattr(cell, gate, linear(3, 4))
    return cell


def _recurrent(kind: str, flax, linen_cell=None, exact: bool = True, **kw) -> Case:
    rule = getattr(bridge, kind)
    return Case(
        lambda: rule("", "cell", **kw),
        lambda: getattr(nn, kind.upper())(3, 4, batch_first=True),
        (2, 5, 3),
        None if flax is None else (lambda: NnxRNN(flax(nnx.Rngs(0)))),
        None if linen_cell is None else (lambda: linen.RNN(linen_cell(4, **F64))),
        exact=exact,
    )


def _without_bias(case: Case) -> Case:
    return replace(case, torch=lambda: nn.GRU(3, 4, bias=False, batch_first=True))


class GruNoBias(nnx.GRUCell):
    def __init__(self):
        super().__init__(3, 4, rngs=R(), **F64)
        self.dense_i = nnx.Linear(3, 12, use_bias=False, rngs=R(), **F64)


CASES: dict[str, Case] = {
    "linear": Case(
        lambda: bridge.linear(""),
        lambda: nn.Linear(4, 4),
        (2, 4),
        lambda: nnx.Linear(4, 4, rngs=R(), **F64),
        lambda: linen.Dense(4, **F64),
    ),
    "linear without bias": Case(
        lambda: bridge.linear(""),
        lambda: nn.Linear(4, 3, bias=False),
        (2, 4),
        lambda: nnx.Linear(4, 3, use_bias=False, rngs=R(), **F64),
        lambda: linen.Dense(3, use_bias=False, **F64),
    ),
    **{f"conv {d}d": _conv(d) for d in (1, 2, 3)},
    "conv 2d, groups": _conv(2, groups=2),
    **{f"conv transpose {d}d": _conv_transpose(d) for d in (1, 2, 3)},
    "conv transpose, stride": _conv_transpose(2, stride=2),
    "conv transpose, padding": _conv_transpose(2, stride=2, padding=1),
    "conv transpose, output padding": _conv_transpose(2, stride=3, padding=1, extra=1),
    "conv transpose, dilation": _conv_transpose(2, padding=1, dilation=2),
    "conv transpose, transpose_kernel": _conv_transpose(2, stride=2, flag=True),
    "batch norm": Case(
        lambda: bridge.batch_norm(""),
        lambda: nn.BatchNorm2d(4).eval(),
        (2, 3, 5, 4),
        lambda: nnx.BatchNorm(4, use_running_average=True, rngs=R(), **F64),
        lambda: linen.BatchNorm(use_running_average=True, **F64),
        spatial=True,
    ),
    "layer norm": Case(
        lambda: bridge.layer_norm(""),
        lambda: nn.LayerNorm(4),
        (2, 3, 4),
        lambda: nnx.LayerNorm(4, epsilon=1e-5, use_fast_variance=False, rngs=R(), **F64),
        lambda: linen.LayerNorm(1e-5, use_fast_variance=False, **F64),
    ),
    "layer norm without bias": Case(
        lambda: bridge.layer_norm(""),
        lambda: nn.LayerNorm(4, bias=False),
        (2, 3, 4),
        lambda: nnx.LayerNorm(
            4, epsilon=1e-5, use_bias=False, use_fast_variance=False, rngs=R(), **F64
        ),
        lambda: linen.LayerNorm(1e-5, use_bias=False, use_fast_variance=False, **F64),
    ),
    "group norm": Case(
        lambda: bridge.group_norm(""),
        lambda: nn.GroupNorm(2, 4),
        (2, 3, 5, 4),
        lambda: nnx.GroupNorm(4, 2, epsilon=1e-5, use_fast_variance=False, rngs=R(), **F64),
        lambda: linen.GroupNorm(2, epsilon=1e-5, use_fast_variance=False, **F64),
        spatial=True,
    ),
    "rms norm": Case(
        lambda: bridge.rms_norm(""),
        lambda: nn.RMSNorm(4, eps=1e-6),
        (2, 3, 4),
        lambda: nnx.RMSNorm(4, rngs=R(), **F64),
        lambda: linen.RMSNorm(**F64),
    ),
    "embedding": Case(
        lambda: bridge.embedding(""),
        lambda: nn.Embedding(5, 4),
        (2, 3, 1),
        lambda: nnx.Embed(5, 4, rngs=R(), **F64),
        lambda: linen.Embed(5, 4, **F64),
        inputs=integers,
    ),
    "attention": _attention(),
    "attention without bias": _attention(bias=False),
    "attention, kdim": _attention(kdim=5),
    "lstm, dense, two biases": _recurrent(
        "lstm", lambda r: two_biases(nnx.OptimizedLSTMCell(3, 4, rngs=r, **F64))
    ),
    "lstm, gates, two biases": _recurrent(
        "lstm", lambda r: two_biases(nnx.LSTMCell(3, 4, rngs=r, **F64))
    ),
    "lstm, dense, one bias": _recurrent(
        "lstm",
        lambda r: nnx.OptimizedLSTMCell(3, 4, rngs=r, **F64),
        linen.OptimizedLSTMCell,
        exact=False,
    ),
    "lstm, gates, one bias": _recurrent(
        "lstm", lambda r: nnx.LSTMCell(3, 4, rngs=r, **F64), linen.LSTMCell, exact=False
    ),
    "gru, dense, two biases": _recurrent(
        "gru", lambda r: two_biases(nnx.GRUCell(3, 4, rngs=r, **F64))
    ),
    "gru, dense, no bias": _without_bias(_recurrent("gru", lambda r: GruNoBias())),
    "gru, gates, four biases": _recurrent("gru", None, linen.GRUCell, exact=False),
}


def nnx_sides(case: Case):
    """``params, buffers, forward``; ``forward(params, buffers, *inputs)``."""
    assert case.nnx is not None
    graphdef, params, buffers, rest = nnx.split(case.nnx(), nnx.Param, nnx.BatchStat, ...)

    def forward(params, buffers, *inputs):
        return nnx.merge(graphdef, params, buffers, rest)(*inputs, **case.call)

    return params, buffers, forward


def linen_sides(case: Case):
    assert case.linen is not None
    module = case.linen()
    inputs = case.inputs(np.ones(case.x))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        variables = dict(module.init(jax.random.key(0), *inputs, **case.call))
    buffers = {"batch_stats": variables.pop("batch_stats")} if len(variables) > 1 else None

    def forward(params, buffers, *inputs):
        return module.apply({**params, **(buffers or {})}, *inputs, **case.call)

    return variables, buffers, forward


SIDES = {"nnx": nnx_sides, "linen": linen_sides}
MATRIX = [
    (name, flavour)
    for name, case in CASES.items()
    for flavour in SIDES
    if getattr(case, flavour) is not None
]
