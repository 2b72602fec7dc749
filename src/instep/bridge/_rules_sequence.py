"""Rules of attention and of recurrent layers. Arguments as in ``_rules``."""

from __future__ import annotations

from collections.abc import Iterable

from ._layout import (
    GRU_BIASES,
    LINEAR,
    SAME,
    SUM,
    heads_bias,
    heads_in,
    heads_out,
    rows,
    sum_rows,
)
from ._rule import Link, Names, Rule, Variant, layer_rule, pair


ONE_BIAS = (
    "PyTorch trains both biases of the cell, and the same gradient reaches both, so their sum "
    "moves twice as far as the one bias here: the cell computes the same but cannot train in "
    "step. Give it two biases, one for the inputs and one for the hidden state (in an "
    "nnx.OptimizedLSTMCell: `cell.dense_i = nnx.Linear(inputs, 4 * hidden, rngs=rngs)`)."
)
NO_B_HN = (
    "the cell has no place for b_hn, the last third of PyTorch's {bias_hh}, which the reset "
    "gate multiplies: n = tanh(W_in x + b_in + r * (W_hn h + b_hn)). Give dense_h a bias: "
    "`cell.dense_h = nnx.Linear(hidden, 3 * hidden, rngs=rngs)`."
)


def multihead_attention(
    torch: str, jax: str | None = None, *, heads: int | None, names: Names = None
) -> Rule:
    """``nn.MultiheadAttention`` and Flax ``MultiHeadAttention``.

    ``in_proj_weight`` (3E, E), or ``q_proj_weight`` (E, E), ``k_proj_weight`` (E, kdim) and
    ``v_proj_weight`` (E, vdim), are the query, key and value kernels (in, H, D);
    ``out_proj.weight`` (E, E) is the out kernel (H, D, E).

    Args:
      torch, jax, names: as for ``linear``.
      heads: H, PyTorch's ``num_heads``; None: the JAX kernels are plain (in, E), not cut
        into heads.

    Raises:
      ValueError: ``names`` renames a leaf that the layer does not have.
    """
    inner = LINEAR if heads is None else heads_in(heads)
    bias = SAME if heads is None else heads_bias(heads)
    outer = LINEAR if heads is None else heads_out(heads)
    parts = ("query", "key", "value")
    theirs = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    biases = pair("in_proj_bias", [f"{part}.bias" for part in parts], rows(3, bias))
    out = (
        pair("out_proj.weight", "out.kernel", outer),
        pair("out_proj.bias", "out.bias", SAME),
    )
    packed = pair("in_proj_weight", [f"{part}.kernel" for part in parts], rows(3, inner))
    separate = [pair(t, f"{part}.kernel", inner) for t, part in zip(theirs, parts, strict=True)]
    own = ("in_proj_weight", *theirs, "in_proj_bias", "out_proj.weight", "out_proj.bias")
    variants = (
        Variant((*separate, biases, *out)),
        Variant((packed, biases, *out)),
        Variant(tuple(pair(name, name, SAME) for name in own)),
    )
    return layer_rule("multihead_attention", torch, jax, names, variants)


def lstm(
    torch: str,
    jax: str | None = None,
    *,
    layer: int | None = 0,
    reverse: bool = False,
    names: Names = None,
) -> Rule:
    """One layer and direction of ``nn.LSTM`` and a Flax LSTM cell; gates i, f, g, o.

    ``weight_ih_l0`` (4H, I) and ``weight_hh_l0`` (4H, H) are the kernels of ``dense_i`` and
    ``dense_h`` (``nnx.OptimizedLSTMCell``), or of ``ii, if_, ig, io, hi, hf, hg, ho``. The
    biases (4H,) are exact where both dense layers have one. Flax's own cells have one bias,
    the sum: they compute the same but do not train in step.

    Args:
      torch, jax, names: as for ``linear``; ``jax`` is the cell, ``"rnn.cell"`` inside an
        ``nnx.RNN`` called ``rnn``.
      layer: of the ``nn.LSTM``; None for an ``nn.LSTMCell``.
      reverse: the other direction of a bidirectional layer.

    Raises:
      ValueError: ``names`` renames a leaf that the layer does not have.
    """
    w_ih, w_hh, b_ih, b_hh = own = _tensors(layer, reverse)
    exact, summed = [], []
    for gates_i in (("ii", "if_", "ig", "io"), ("ii", "if", "ig", "io")):
        gates_h = ("hi", "hf", "hg", "ho")
        kernels = _gates(w_ih, w_hh, gates_i, gates_h)
        exact.append(Variant((*kernels, *_gates(b_ih, b_hh, gates_i, gates_h, "bias"))))
        total = pair((b_ih, b_hh), _each(gates_h, "bias"), sum_rows(4), inexact=ONE_BIAS)
        summed.append(Variant((*kernels, total)))
    total = pair((b_ih, b_hh), "dense_h.bias", SUM, inexact=ONE_BIAS)
    variants = (
        Variant((*_dense_kernels(w_ih, w_hh), *_dense_biases(b_ih, b_hh))),
        *exact,
        *_own_names(own),
        Variant((*_dense_kernels(w_ih, w_hh), total)),
        *summed,
    )
    return layer_rule("lstm", torch, jax, names, variants)


def gru(
    torch: str,
    jax: str | None = None,
    *,
    layer: int | None = 0,
    reverse: bool = False,
    names: Names = None,
) -> Rule:
    """One layer and direction of ``nn.GRU`` and a Flax GRU cell; gates r, z, n.

    As ``lstm``, with 3H rows and the names ``ir, iz, in, hr, hz, hn``. Linen's ``GRUCell``
    has one bias for r and one for z, the sums. ``nnx.GRUCell`` has no b_hn, so it cannot
    hold a PyTorch layer with biases unless its ``dense_h`` is given a bias. Arguments and
    errors as for ``lstm``.
    """
    w_ih, w_hh, b_ih, b_hh = own = _tensors(layer, reverse)
    exact, summed = [], []
    for gates_i in (("ir", "iz", "in_"), ("ir", "iz", "in")):
        gates_h = ("hr", "hz", "hn")
        kernels = _gates(w_ih, w_hh, gates_i, gates_h)
        exact.append(Variant((*kernels, *_gates(b_ih, b_hh, gates_i, gates_h, "bias"))))
        four = _each((*gates_i, "hn"), "bias")
        total = pair((b_ih, b_hh), four, GRU_BIASES, inexact=ONE_BIAS)
        summed.append(Variant((*kernels, total)))
    lost = pair((b_ih, b_hh), "dense_i.bias", SUM, inexact=ONE_BIAS)
    variants = (
        Variant((*_dense_kernels(w_ih, w_hh), *_dense_biases(b_ih, b_hh))),
        *exact,
        *_own_names(own),
        *summed,
        Variant((*_dense_kernels(w_ih, w_hh), lost), NO_B_HN.format(bias_hh=b_hh)),
    )
    return layer_rule("gru", torch, jax, names, variants)


def _tensors(layer: int | None, reverse: bool) -> tuple[str, ...]:
    suffix = "" if layer is None else f"_l{layer}{'_reverse' if reverse else ''}"
    return tuple(f"{name}{suffix}" for name in _CELL)


_CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # of nn.LSTMCell and nn.GRUCell


def _dense_kernels(w_ih: str, w_hh: str) -> tuple[Link, Link]:
    return pair(w_ih, "dense_i.kernel", LINEAR), pair(w_hh, "dense_h.kernel", LINEAR)


def _dense_biases(b_ih: str, b_hh: str) -> tuple[Link, Link]:
    return pair(b_ih, "dense_i.bias", SAME), pair(b_hh, "dense_h.bias", SAME)


def _gates(
    torch_i: str,
    torch_h: str,
    gates_i: tuple[str, ...],
    gates_h: tuple[str, ...],
    leaf: str = "kernel",
) -> tuple[Link, Link]:
    """One leaf per gate for what PyTorch stacks."""
    layout = rows(len(gates_i), LINEAR if leaf == "kernel" else SAME)
    return pair(torch_i, _each(gates_i, leaf), layout), pair(
        torch_h, _each(gates_h, leaf), layout
    )


def _each(gates: Iterable[str], leaf: str) -> tuple[str, ...]:
    return tuple(f"{gate}.{leaf}" for gate in gates)


def _own_names(own: tuple[str, ...]) -> tuple[Variant, Variant]:
    """PyTorch's own names, with and without those of layer and direction."""
    return (
        Variant(tuple(pair(name, name, SAME) for name in own)),
        Variant(tuple(pair(t, j, SAME) for t, j in zip(own, _CELL, strict=True))),
    )
