"""Recurrent nets: one ``lax.scan`` per layer and direction, gates in PyTorch's order.

Shapes: T time, B batch, I input, H hidden, G gates times hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import core, lax

from ._activation import relu
from ._dropout import dropout as drop
from ._linear import linear


State = tuple[jax.Array, ...]  # the first is the output


class Weights(NamedTuple):
    """Of one layer in one direction, as PyTorch lists them."""

    w_ih: jax.Array
    w_hh: jax.Array
    b_ih: jax.Array | None = None
    b_hh: jax.Array | None = None
    w_hr: jax.Array | None = None


def lstm_cell(
    input: jax.Array,
    hx: Sequence[jax.Array],
    w_ih: jax.Array,
    w_hh: jax.Array,
    b_ih: jax.Array | None = None,
    b_hh: jax.Array | None = None,
) -> State:
    """``torch.lstm_cell``: the next ``(h, c)``.

    .. math:: c' = \\sigma(f) c + \\sigma(i) \\tanh(g), \\qquad h' = \\sigma(o) \\tanh(c')

    Args:
      input: shape ``(B, I)``.
      hx: :math:`(h, c)`, shape ``(B, H)`` each.
      w_ih, w_hh: for the gates :math:`i, f, g, o`, shapes ``(4H, I)`` and ``(4H, H)``.
      b_ih, b_hh: shape ``(4H,)``, or None.

    References:
      Hochreiter and Schmidhuber, `Long Short-Term Memory
      <https://doi.org/10.1162/neco.1997.9.8.1735>`_, 1997.
    """
    weights = Weights(w_ih, w_hh, b_ih, b_hh)
    return _lstm(linear(input, w_ih, b_ih), tuple(hx), weights)


def gru_cell(
    input: jax.Array,
    hx: jax.Array,
    w_ih: jax.Array,
    w_hh: jax.Array,
    b_ih: jax.Array | None = None,
    b_hh: jax.Array | None = None,
) -> jax.Array:
    """``torch.gru_cell``: the next ``h``, of gates r, z, n.

    .. math:: n = \\tanh(W_n x + b_n + r (U_n h + c_n)), \\qquad h' = (1 - z) n + z h

    Args:
      input: shape ``(B, I)``.
      hx: :math:`h`, shape ``(B, H)``.
      w_ih, w_hh: shapes ``(3H, I)`` and ``(3H, H)``.
      b_ih, b_hh: shape ``(3H,)``, or None.

    References:
      Cho et al., `Learning Phrase Representations using RNN Encoder-Decoder
      <https://arxiv.org/abs/1406.1078>`_, 2014.
    """
    return _gru(linear(input, w_ih, b_ih), (hx,), Weights(w_ih, w_hh, b_ih, b_hh))[0]


def rnn_tanh_cell(
    input: jax.Array,
    hx: jax.Array,
    w_ih: jax.Array,
    w_hh: jax.Array,
    b_ih: jax.Array | None = None,
    b_hh: jax.Array | None = None,
) -> jax.Array:
    """``torch.rnn_tanh_cell``: the next ``h``."""
    return _rnn_tanh(linear(input, w_ih, b_ih), (hx,), Weights(w_ih, w_hh, b_ih, b_hh))[0]


def rnn_relu_cell(
    input: jax.Array,
    hx: jax.Array,
    w_ih: jax.Array,
    w_hh: jax.Array,
    b_ih: jax.Array | None = None,
    b_hh: jax.Array | None = None,
) -> jax.Array:
    """``torch.rnn_relu_cell``: the next ``h``."""
    return _rnn_relu(linear(input, w_ih, b_ih), (hx,), Weights(w_ih, w_hh, b_ih, b_hh))[0]


def lstm(
    input: jax.Array, hx: Sequence[jax.Array], params: Sequence[jax.Array], **options: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``torch.lstm``: ``gru`` with a cell state, and projections.

    Args:
      input: as for ``gru``.
      hx: :math:`(h, c)`, shapes ``(layers * directions, B, P)`` and
        ``(layers * directions, B, H)``; P is H without projections.
      params: as for ``gru``, each group with ``w_hr`` of shape ``(P, H)`` at its end if there
        are projections.
      options: as for ``gru``.

    Returns:
      ``(output, h, c)``.
    """
    h, c = hx
    projected = h.shape[-1] != c.shape[-1]
    output, (h, c) = _stack(_lstm, input, (h, c), params, projected=projected, **options)
    return output, h, c


def gru(
    input: jax.Array, hx: jax.Array, params: Sequence[jax.Array], **options: Any
) -> tuple[jax.Array, jax.Array]:
    """``torch.gru``.

    Args:
      input: shape ``(T, B, I)``; ``(B, T, I)`` with ``batch_first``; the ``data`` of a
        PackedSequence with ``batch_sizes``.
      hx: :math:`h`, shape ``(layers * directions, B, H)``.
      params: ``w_ih, w_hh, b_ih, b_hh`` of every layer and direction, the latter two only with
        ``has_biases``.
      options: ``has_biases=True``, ``num_layers=1``, ``bidirectional=False``,
        ``batch_first=False`` as PyTorch has them; ``batch_sizes=None``, integers that are
        known, of a PackedSequence; ``dropout=0.0`` with ``kept``, which elements of the output
        of each layer but the last it keeps, of the shape that PyTorch drops from: time first,
        or packed.

    Returns:
      ``(output, h)``.
    """
    output, [h] = _stack(_gru, input, (hx,), params, **options)
    return output, h


def rnn_tanh(
    input: jax.Array, hx: jax.Array, params: Sequence[jax.Array], **options: Any
) -> tuple[jax.Array, jax.Array]:
    """``torch.rnn_tanh``; arguments as for ``gru``."""
    output, [h] = _stack(_rnn_tanh, input, (hx,), params, **options)
    return output, h


def rnn_relu(
    input: jax.Array, hx: jax.Array, params: Sequence[jax.Array], **options: Any
) -> tuple[jax.Array, jax.Array]:
    """``torch.rnn_relu``; arguments as for ``gru``."""
    output, [h] = _stack(_rnn_relu, input, (hx,), params, **options)
    return output, h


# A cell takes ``linear(input, w_ih, b_ih)``, its state and weights, and returns its next state.
Cell = Callable[[jax.Array, State, Weights], State]


def _lstm(x_BG, state, weights):
    h, c = state
    gates = x_BG + linear(h, weights.w_hh, weights.b_hh)
    i, f, g, o = jnp.split(gates, 4, -1)
    c = lax.logistic(f) * c + lax.logistic(i) * jnp.tanh(g)
    h = lax.logistic(o) * jnp.tanh(c)
    return h if weights.w_hr is None else linear(h, weights.w_hr), c


def _gru(x_BG, state, weights):
    [h] = state
    x_r, x_z, x_n = jnp.split(x_BG, 3, -1)
    h_r, h_z, h_n = jnp.split(linear(h, weights.w_hh, weights.b_hh), 3, -1)
    n = jnp.tanh(x_n + lax.logistic(x_r + h_r) * h_n)
    return ((h - n) * lax.logistic(x_z + h_z) + n,)


def _rnn_tanh(x_BG, state, weights):
    return (jnp.tanh(x_BG + linear(state[0], weights.w_hh, weights.b_hh)),)


def _rnn_relu(x_BG, state, weights):
    return (relu(x_BG + linear(state[0], weights.w_hh, weights.b_hh)),)


def _stack(
    cell: Cell,
    x: jax.Array,
    states: State,
    params: Sequence[jax.Array],
    has_biases: bool = True,
    num_layers: int = 1,
    dropout: float = 0.0,
    bidirectional: bool = False,
    batch_first: bool = False,
    batch_sizes: Any = None,
    kept: Sequence[jax.Array] = (),
    projected: bool = False,
) -> tuple[jax.Array, State]:
    packing = None if batch_sizes is None else Packing.of(batch_sizes)
    if batch_first:
        x = jnp.swapaxes(x, 0, 1)
    weights = _grouped(params, has_biases, projected)
    directions = 2 if bidirectional else 1
    final = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            i = layer * directions + direction
            state = tuple(s[i] for s in states)
            last, output = _layer(cell, x, state, weights[i], direction == 1, packing)
            final.append(last)
            outputs.append(output)
        x = jnp.concatenate(outputs, -1)
        if dropout and layer < num_layers - 1:
            x = drop(x, kept[layer], dropout)
    if batch_first:
        x = jnp.swapaxes(x, 0, 1)
    return x, tuple(jnp.stack(s) for s in zip(*final, strict=True))


def _grouped(params, has_biases, projected) -> list[Weights]:
    size = 2 + 2 * has_biases + projected
    groups = [list(params[i : i + size]) for i in range(0, len(params), size)]
    w_hr = [group.pop() if projected else None for group in groups]
    return [Weights(*group)._replace(w_hr=w) for group, w in zip(groups, w_hr, strict=True)]


def _layer(cell, x, state, weights, reverse, packing):
    """The last state, and the outputs."""
    gates = linear(x, weights.w_ih, weights.b_ih)
    if packing is None:

        def step(state, x_BG):
            state = cell(x_BG, state, weights)
            return state, state[0]

        return lax.scan(step, state, gates, reverse=reverse)

    def step_packed(state, given):
        x_BG, goes_on_B1 = given
        new = cell(x_BG, state, weights)
        state = tuple(jnp.where(goes_on_B1, a, b) for a, b in zip(new, state, strict=True))
        return state, state[0]

    given = gates[packing.place_TB], jnp.asarray(packing.goes_on_TB)[..., None]
    last, output_TBH = lax.scan(step_packed, state, given, reverse=reverse)
    return last, output_TBH[packing.time, packing.sequence]


class Packing(NamedTuple):
    """Where the elements of a PackedSequence are in time and batch."""

    place_TB: np.ndarray  # in the data; anything where a sequence has ended
    goes_on_TB: np.ndarray
    time: np.ndarray
    sequence: np.ndarray

    @classmethod
    def of(cls, batch_sizes: Any) -> Packing:
        """Of the number of sequences that go on at each time."""
        if isinstance(batch_sizes, core.Tracer):
            raise NotImplementedError(
                "the batch_sizes of a PackedSequence must be constants of the program: they "
                "decide its shapes. Give padded sequences, or pack with lengths that are no "
                "input."
            )
        sizes_T = np.asarray(batch_sizes)
        goes_on_TB = np.arange(sizes_T[0]) < sizes_T[:, None]
        starts_T1 = np.cumsum(sizes_T)[:, None] - sizes_T[:, None]
        place_TB = np.where(goes_on_TB, starts_T1 + np.arange(sizes_T[0]), 0)
        return cls(place_TB, goes_on_TB, *np.nonzero(goes_on_TB))
