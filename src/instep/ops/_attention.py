"""Attention."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from .._dtypes import wide
from ._dropout import dropout
from ._softmax import safe_softmax


MIN_QUERIES = 64  # in a block of causal attention on a CPU
MAX_BLOCKS = 8


def scaled_dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    attn_mask: jax.Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    kept: jax.Array | None = None,
) -> jax.Array:
    """``torch.nn.functional.scaled_dot_product_attention``.

    .. math:: \\operatorname{softmax}(s\\, Q K^T + M)\\, V

    A query that may see no key has an output of 0 and no gradient, not NaN.

    Args:
      query: :math:`Q`, shape ``(..., H, L, E)``.
      key, value: :math:`K, V`, shapes ``(..., H, S, E)`` and ``(..., H, S, D)``.
      attn_mask: broadcasts to ``(..., H, L, S)``: added to the scores, or booleans that are
        true where a query may see a key.
      dropout_p: probability of an attention weight to become zero.
      is_causal: query i sees keys 0 to i.
      scale: :math:`s`, by default :math:`1 / \\sqrt{E}`.
      enable_gqa: every group of heads of ``query`` shares one head of ``key`` and ``value``.
      kept: the weights that dropout keeps, booleans of shape ``(..., H, L, S)``; None with a
        ``dropout_p`` of 0.

    Returns:
      Shape ``(..., H, L, D)``; the dtype of ``query``, softmax in at least float32.

    Raises:
      ValueError: both ``is_causal`` and ``attn_mask``; ``dropout_p`` without ``kept``; heads
        that are no multiple.

    References:
      Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_, 2017.
      Ainslie et al., `GQA <https://arxiv.org/abs/2305.13245>`_, 2023.
    """
    if is_causal and attn_mask is not None:
        raise ValueError("is_causal=True needs attn_mask=None; write the causal mask into it.")
    if dropout_p and kept is None:
        raise ValueError(f"{dropout_p=} needs kept, the attention weights that it keeps.")
    if enable_gqa:
        query, key, value = _grouped(query, key, value)
    ndim = max(query.ndim, key.ndim, value.ndim)
    query, key, value = (_with_axes(x, ndim) for x in (query, key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if not is_causal:
        return _attend(query, key, value, attn_mask, scale, dropout_p, kept, enable_gqa)
    L, S = query.shape[-2], key.shape[-2]
    blocks = _blocks(L)
    if kept is not None:
        kept = jnp.broadcast_to(kept, jnp.broadcast_shapes(kept.shape, (L, S)))
    outputs = []
    for first, last in blocks:
        seen = S if len(blocks) == 1 else min(last, S)
        mask = jnp.tri(last - first, seen, first, dtype=bool)
        kept_here = None if kept is None else kept[..., first:last, :seen]
        x, keys, values = query[..., first:last, :], key[..., :seen, :], value[..., :seen, :]
        outputs.append(_attend(x, keys, values, mask, scale, dropout_p, kept_here, enable_gqa))
    return jnp.concatenate(outputs, axis=-2)


def _blocks(L: int) -> list[tuple[int, int]]:
    """The first query of every block, and the one after its last.

    The keys after the last query of a block are not looked at. On a CPU that is worth more
    than what the products lose by being smaller (benchmarks/NOTES.md).
    """
    is_known = isinstance(L, int)
    if not is_known or L < 2 * MIN_QUERIES or jax.default_backend() != "cpu":
        return [(0, L)]
    size = -(-L // min(MAX_BLOCKS, L // MIN_QUERIES))
    return [(first, min(first + size, L)) for first in range(0, L, size)]


def _attend(query, key, value, mask, scale, dropout_p, kept, enable_gqa):
    """Attention of these queries to all of these keys, but where ``mask`` says otherwise."""
    L, S = query.shape[-2], key.shape[-2]
    real = wide(query.dtype)
    scores = jnp.matmul(query, key.mT, preferred_element_type=real) * scale
    batch = scores.shape[:-2]
    if enable_gqa:
        scores = scores.reshape(*batch[:-2], batch[-2] * batch[-1], L, S)
    if mask is not None:
        scores = _masked(scores, mask)
    weights = safe_softmax(scores, -1)
    if dropout_p and kept is not None:
        weights = dropout(weights, kept, dropout_p)
    weights = weights.astype(query.dtype)
    if not enable_gqa:
        return jnp.matmul(weights, value)
    output = jnp.matmul(weights.reshape(*batch, L, S), value)
    return output.reshape(*batch[:-2], batch[-2] * batch[-1], L, value.shape[-1])


def _grouped(query, key, value):
    """Heads of ``query`` as (heads of ``key``, heads in a group)."""
    *batch, H, L, E = query.shape
    H_key = key.shape[-3]
    if H % H_key or value.shape[-3] != H_key:
        raise ValueError(
            f"{H} heads of query must be a multiple of the heads of key and value, which have "
            f"{H_key} and {value.shape[-3]}."
        )
    query = query.reshape(*batch, H_key, H // H_key, L, E)
    return query, jnp.expand_dims(key, -3), jnp.expand_dims(value, -3)


def _masked(scores, mask):
    ndim = max(scores.ndim, mask.ndim)
    scores, mask = _with_axes(scores, ndim), _with_axes(mask, ndim)
    if mask.dtype == bool:
        return jnp.where(mask, scores, -jnp.inf)
    return scores + mask.astype(scores.dtype)


def _with_axes(x, ndim):
    return x.reshape((1,) * (ndim - x.ndim) + x.shape)
