"""Fourier transforms of short windows of a signal, and the signal of these."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._cast import view_as_real
from ._pad import pad


def stft(
    input: jax.Array,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: jax.Array | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
) -> jax.Array:
    """``torch.stft``.

    Args:
      input: signals, shape ``(T,)`` or ``(B, T)``.
      n_fft: points of each transform.
      hop_length: from one window to the next; None: a quarter of ``n_fft``.
      win_length: of ``window``, which is padded on both sides; None: ``n_fft``.
      window: shape ``(win_length,)``; None: ones.
      center: pad the signal by half of ``n_fft`` on both sides.
      pad_mode: of ``pad``.
      normalized: divide by the root of ``n_fft``.
      onesided: frequencies up to the half; None: for a real signal and window.
      return_complex: else real and imaginary parts are a last axis.

    Returns:
      Shape ``(B, frequencies, windows)``.
    """
    hop = n_fft // 4 if hop_length is None else hop_length
    x = jnp.atleast_2d(input)
    if center:
        x = pad(x[:, None], (n_fft // 2, n_fft // 2), pad_mode)[:, 0]
    weights = _window(window, n_fft, win_length, x.dtype)
    if jnp.iscomplexobj(weights):
        x = x.astype(weights.dtype)
    count = (x.shape[-1] - n_fft) // hop + 1
    frames = x[:, _positions(count, hop, n_fft)] * weights[None, None]
    half = not jnp.iscomplexobj(frames) if onesided is None else onesided
    transform = jnp.fft.rfft if half else jnp.fft.fft
    made = transform(frames, axis=-1, norm="ortho" if normalized else None).mT
    made = made if input.ndim == 2 else made[0]
    return made if return_complex else view_as_real(made)


def istft(
    input: jax.Array,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: jax.Array | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> jax.Array:
    """``torch.istft``: the least squares estimate of the signal of ``stft``.

    Args:
      input: complex, shape ``(frequencies, windows)`` or with a batch before.
      n_fft, hop_length, win_length, window, center, normalized: as in ``stft``.
      onesided: None: if there are fewer frequencies than ``n_fft``.
      length: of the signal; None: as far as the windows reach.
      return_complex: a complex signal.

    Returns:
      Shape ``(T,)`` or ``(B, T)``; infinite or NaN where the windows sum up to 0 and PyTorch
      raises.

    Raises:
      ValueError: a complex signal of half of the frequencies.
    """
    hop = n_fft // 4 if hop_length is None else hop_length
    half = input.shape[-2] != n_fft if onesided is None else onesided
    if return_complex and half:
        raise ValueError("a complex signal needs all frequencies: onesided=False.")
    spectra = (input if input.ndim == 3 else input[None]).mT
    norm = "ortho" if normalized else None
    if return_complex:
        frames = jnp.fft.ifft(spectra, n_fft, -1, norm)
    else:
        frames = jnp.fft.irfft(spectra[..., : n_fft // 2 + 1], n_fft, -1, norm)
    weights = _window(window, n_fft, win_length, jnp.finfo(frames.dtype).dtype)
    count = frames.shape[-2]
    total = n_fft + hop * (count - 1)
    places = _positions(count, hop, n_fft)
    frames = frames * weights[None, None].astype(frames.dtype)
    signal = jnp.zeros((len(frames), total), frames.dtype).at[:, places].add(frames)
    squares = jnp.broadcast_to(weights**2, places.shape)
    envelope = jnp.zeros(total, weights.dtype).at[places].add(squares)
    start = n_fft // 2 if center else 0
    end = total - (n_fft // 2 if center else 0) if length is None else start + length
    made = signal[:, start:end] / envelope[None, start:end].astype(signal.dtype)
    made = jnp.pad(made, ((0, 0), (0, max(0, end - total))))
    return made if input.ndim == 3 else made[0]


def _positions(count: int, hop: int, n_fft: int) -> np.ndarray:
    return np.arange(count)[:, None] * hop + np.arange(n_fft)


def _window(window: Any, n_fft: int, win_length: int | None, dtype: Any) -> jax.Array:
    size = n_fft if win_length is None else win_length
    weights = jnp.ones(size, dtype) if window is None else window
    before = (n_fft - size) // 2
    return jnp.pad(weights, (before, n_fft - size - before))
