"""Fourier transforms, with the names of ``torch.fft`` after ``fft_``.

``n`` and ``s`` are the lengths to pad or cut to, ``dim`` the axes, ``norm`` where to divide by
the number of points: ``"backward"`` (None), ``"ortho"`` or ``"forward"``.

Shapes and dtypes: any shape; floating or complex, and integers as floating. The last axis of
``dim`` has n // 2 + 1 points on the complex side of the transforms with r and h in their name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ._promotion import as_floating


Sizes = int | Sequence[int] | None
SWAPPED = {None: "forward", "backward": "forward", "forward": "backward", "ortho": "ortho"}


def _over_one(name: str, function: Callable[..., jax.Array]):
    def call(
        input: jax.Array, n: int | None = None, dim: int = -1, norm: str | None = None
    ) -> jax.Array:
        return function(input.astype(as_floating(input.dtype)), n, dim, norm)

    return _named(call, name)


def _over_many(name: str, function: Callable[..., jax.Array], default: Sizes = None):
    def call(
        input: jax.Array, s: Sizes = None, dim: Sizes = default, norm: str | None = None
    ) -> jax.Array:
        x = input.astype(as_floating(input.dtype))
        return function(x, *_sizes_and_axes(x, s, dim, function), norm)

    return _named(call, name)


def _named(call, name):
    call.__name__ = call.__qualname__ = f"fft_{name}"
    call.__doc__ = f"``torch.fft.{name}``."
    return call


def _sizes_and_axes(x, s, dim, function):
    s = [s] if isinstance(s, int) else s
    if dim is None:
        dim = range(x.ndim) if s is None else range(x.ndim - len(s), x.ndim)
    dim = [dim] if isinstance(dim, int) else list(dim)
    if s is None:
        return None, dim
    halved = function in (jnp.fft.irfftn, _hfftn)
    whole = [x.shape[d] for d in dim]
    if halved and whole:
        whole[-1] = 2 * (whole[-1] - 1)
    return [w if n == -1 else n for n, w in zip(s, whole, strict=True)], dim


def _hfftn(x, s, dim, norm):
    return jnp.fft.irfftn(jnp.conj(x), s, dim, SWAPPED[norm])


def _ihfftn(x, s, dim, norm):
    return jnp.conj(jnp.fft.rfftn(x, s, dim, SWAPPED[norm]))


TWO = (-2, -1)

fft_fft = _over_one("fft", jnp.fft.fft)
fft_ifft = _over_one("ifft", jnp.fft.ifft)
fft_rfft = _over_one("rfft", jnp.fft.rfft)
fft_irfft = _over_one("irfft", jnp.fft.irfft)
fft_hfft = _over_one("hfft", jnp.fft.hfft)
fft_ihfft = _over_one("ihfft", jnp.fft.ihfft)
fft_fft2 = _over_many("fft2", jnp.fft.fftn, TWO)
fft_ifft2 = _over_many("ifft2", jnp.fft.ifftn, TWO)
fft_rfft2 = _over_many("rfft2", jnp.fft.rfftn, TWO)
fft_irfft2 = _over_many("irfft2", jnp.fft.irfftn, TWO)
fft_hfft2 = _over_many("hfft2", _hfftn, TWO)
fft_ihfft2 = _over_many("ihfft2", _ihfftn, TWO)
fft_fftn = _over_many("fftn", jnp.fft.fftn)
fft_ifftn = _over_many("ifftn", jnp.fft.ifftn)
fft_rfftn = _over_many("rfftn", jnp.fft.rfftn)
fft_irfftn = _over_many("irfftn", jnp.fft.irfftn)
fft_hfftn = _over_many("hfftn", _hfftn)
fft_ihfftn = _over_many("ihfftn", _ihfftn)


def fft_fftshift(input: jax.Array, dim: Sizes = None) -> jax.Array:
    """``torch.fft.fftshift``."""
    return jnp.fft.fftshift(input, dim)


def fft_ifftshift(input: jax.Array, dim: Sizes = None) -> jax.Array:
    """``torch.fft.ifftshift``."""
    return jnp.fft.ifftshift(input, dim)
