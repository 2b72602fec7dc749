"""Recurrent nets: one ``lax.scan`` per layer and direction.

Shapes and dtypes: floating arrays of one dtype; ``w_ih`` ``(G, I)``, ``w_hh`` ``(G, H)``,
biases ``(G,)``. T time, B batch, I input, H hidden, G gates times hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._dropout import dropout as drop
from ._linear import linear
from ._packing import Packing
from ._recurrent_cells import Cell, State, Weights, next_gru, next_lstm, next_relu, next_tanh


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
    output, (h, c) = _stack(next_lstm, input, (h, c), params, projected=projected, **options)
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
    output, [h] = _stack(next_gru, input, (hx,), params, **options)
    return output, h


def rnn_tanh(
    input: jax.Array, hx: jax.Array, params: Sequence[jax.Array], **options: Any
) -> tuple[jax.Array, jax.Array]:
    """``torch.rnn_tanh``; arguments as for ``gru``."""
    output, [h] = _stack(next_tanh, input, (hx,), params, **options)
    return output, h


def rnn_relu(
    input: jax.Array, hx: jax.Array, params: Sequence[jax.Array], **options: Any
) -> tuple[jax.Array, jax.Array]:
    """``torch.rnn_relu``; arguments as for ``gru``."""
    output, [h] = _stack(next_relu, input, (hx,), params, **options)
    return output, h


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
