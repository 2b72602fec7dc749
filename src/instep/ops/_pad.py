"""Padding."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def pad(
    input: jax.Array,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> jax.Array:
    """``torch.nn.functional.pad``.

    Args:
      input: any shape.
      pad: elements before and after, the last axis first: ``(left, right, top, bottom, ...)``.
        Negative numbers crop.
      mode: "constant" for ``value``; "reflect" for the elements inside of the first and the
        last one; "replicate" for the first and the last one; "circular" for those of the other
        end.
      value: 0 if None.

    Returns:
      The dtype of ``input``.

    Raises:
      ValueError: the mode is none of these, ``pad`` is not one pair for each of the last axes,
        "reflect" would need an axis of more elements, or "circular" more than one round.
    """
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(f"{pad=} must be pairs, at most one for each of {input.ndim} axes.")
    last_first = zip(pad[::2], pad[1::2], strict=True)
    pairs = {input.ndim - 1 - i: pair for i, pair in enumerate(last_first)}
    if mode == "constant":
        fill = jnp.asarray(0 if value is None else value).astype(input.dtype)
        config = [(*pairs.get(axis, (0, 0)), 0) for axis in range(input.ndim)]
        return lax.pad(input, fill, config)
    if value:
        raise ValueError(f'{value=} is for mode "constant"; the mode is {mode!r}.')
    if mode not in ("reflect", "replicate", "circular"):
        raise ValueError(f"{mode=} must be 'constant', 'reflect', 'replicate' or 'circular'.")
    x = input
    for axis, (before, after) in pairs.items():
        if mode == "circular":  # goes round what is left after cropping
            x = _crop(x, axis, -min(before, 0), -min(after, 0))
        _check(mode, x.shape[axis], max(before, after), pad, input.shape)
        x = _PADDED[mode](x, axis, max(before, 0), max(after, 0))
        if mode != "circular":
            x = _crop(x, axis, -min(before, 0), -min(after, 0))
    return x


def _reflected(x, axis, before, after):
    n = x.shape[axis]
    first = lax.slice_in_dim(x, 1, 1 + before, axis=axis)
    last = lax.slice_in_dim(x, n - 1 - after, n - 1, axis=axis)
    return jnp.concatenate([jnp.flip(first, axis), x, jnp.flip(last, axis)], axis)


def _replicated(x, axis, before, after):
    first = lax.slice_in_dim(x, 0, 1, axis=axis)
    last = lax.slice_in_dim(x, x.shape[axis] - 1, None, axis=axis)
    return jnp.concatenate(
        [jnp.repeat(first, before, axis), x, jnp.repeat(last, after, axis)], axis
    )


def _wrapped(x, axis, before, after):
    n = x.shape[axis]
    first = lax.slice_in_dim(x, 0, after, axis=axis)
    last = lax.slice_in_dim(x, n - before, n, axis=axis)
    return jnp.concatenate([last, x, first], axis)


_PADDED = {"reflect": _reflected, "replicate": _replicated, "circular": _wrapped}


def _crop(x, axis, before, after):
    return lax.slice_in_dim(x, before, x.shape[axis] - after, axis=axis)


def _check(mode, length, most, pad, shape):
    room = {"reflect": length - 1, "replicate": most if length else 0, "circular": length}
    if most > room[mode]:
        raise ValueError(
            f"{mode=} pads an axis of length {length} by at most {room[mode]} elements; "
            f"{pad=} of shape {shape}."
        )
