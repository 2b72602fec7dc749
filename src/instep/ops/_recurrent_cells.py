"""Cells of recurrent nets: one step in time, gates in PyTorch's order.

Shapes and dtypes: ``input`` ``(B, I)``, ``hx`` ``(B, H)``, weights ``(G, I)`` and ``(G, H)``,
biases ``(G,)`` or None; floating, of one dtype. B batch, I input, H hidden, G gates times
hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ._activation import relu
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
    return next_lstm(linear(input, w_ih, b_ih), tuple(hx), weights)


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
    return next_gru(linear(input, w_ih, b_ih), (hx,), Weights(w_ih, w_hh, b_ih, b_hh))[0]


def rnn_tanh_cell(
    input: jax.Array,
    hx: jax.Array,
    w_ih: jax.Array,
    w_hh: jax.Array,
    b_ih: jax.Array | None = None,
    b_hh: jax.Array | None = None,
) -> jax.Array:
    """``torch.rnn_tanh_cell``: the next ``h``."""
    return next_tanh(linear(input, w_ih, b_ih), (hx,), Weights(w_ih, w_hh, b_ih, b_hh))[0]


def rnn_relu_cell(
    input: jax.Array,
    hx: jax.Array,
    w_ih: jax.Array,
    w_hh: jax.Array,
    b_ih: jax.Array | None = None,
    b_hh: jax.Array | None = None,
) -> jax.Array:
    """``torch.rnn_relu_cell``: the next ``h``."""
    return next_relu(linear(input, w_ih, b_ih), (hx,), Weights(w_ih, w_hh, b_ih, b_hh))[0]


# A cell takes ``linear(input, w_ih, b_ih)``, its state and weights, and returns its next state.
Cell = Callable[[jax.Array, State, Weights], State]


def next_lstm(x_BG, state, weights):
    h, c = state
    gates = x_BG + linear(h, weights.w_hh, weights.b_hh)
    i, f, g, o = jnp.split(gates, 4, -1)
    c = lax.logistic(f) * c + lax.logistic(i) * jnp.tanh(g)
    h = lax.logistic(o) * jnp.tanh(c)
    return h if weights.w_hr is None else linear(h, weights.w_hr), c


def next_gru(x_BG, state, weights):
    [h] = state
    x_r, x_z, x_n = jnp.split(x_BG, 3, -1)
    h_r, h_z, h_n = jnp.split(linear(h, weights.w_hh, weights.b_hh), 3, -1)
    n = jnp.tanh(x_n + lax.logistic(x_r + h_r) * h_n)
    return ((h - n) * lax.logistic(x_z + h_z) + n,)


def next_tanh(x_BG, state, weights):
    return (jnp.tanh(x_BG + linear(state[0], weights.w_hh, weights.b_hh)),)


def next_relu(x_BG, state, weights):
    return (relu(x_BG + linear(state[0], weights.w_hh, weights.b_hh)),)
