"""Activation functions, with PyTorch's derivatives at kinks.

Each is written so that the branch that ``where`` takes at a kink is the one whose slope PyTorch
takes there, and that no branch it leaves is infinite.

Shapes and dtypes: any shape, floating; so is the result, of which ``glu`` halves one axis.

References:
  ``elu``: Clevert et al., <https://arxiv.org/abs/1511.07289>, 2015. ``celu``: Barron,
  <https://arxiv.org/abs/1704.07483>, 2017. ``selu``: Klambauer et al.,
  <https://arxiv.org/abs/1706.02515>, 2017. ``silu``: Elfwing et al.,
  <https://arxiv.org/abs/1702.03118>, 2017. ``mish``: Misra, <https://arxiv.org/abs/1908.08681>,
  2019. ``prelu``: He et al., <https://arxiv.org/abs/1502.01852>, 2015. ``rrelu``: Xu et al.,
  <https://arxiv.org/abs/1505.00853>, 2015. ``glu``: Dauphin et al.,
  <https://arxiv.org/abs/1612.08083>, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._dtypes import wide
from ._elementwise import sloped
from ._promotion import as_floating


def relu(input: jax.Array) -> jax.Array:
    """``torch.relu``: slope 0 at zero."""
    return threshold(input, 0, 0)


def relu6(input: jax.Array) -> jax.Array:
    """``torch.nn.functional.relu6``: slope 0 at 0 and 6."""
    return hardtanh(input, 0, 6)


def hardtanh(input: jax.Array, min_val: float = -1.0, max_val: float = 1.0) -> jax.Array:
    """``torch.nn.functional.hardtanh``: slope 0 at the bounds; NaN stays NaN."""
    low, high = (jnp.asarray(v, input.dtype) for v in (min_val, max_val))
    return jnp.where(input <= low, low, jnp.where(input >= high, high, input))


def threshold(input: jax.Array, threshold: float, value: float) -> jax.Array:
    """``torch.nn.functional.threshold``: ``value`` at and below ``threshold``."""
    low, filler = (jnp.asarray(v, input.dtype) for v in (threshold, value))
    return jnp.where(input <= low, filler, input)


def leaky_relu(input: jax.Array, negative_slope: float = 0.01) -> jax.Array:
    """``torch.nn.functional.leaky_relu``: slope ``negative_slope`` at zero."""
    return jnp.where(input > 0, input, input * negative_slope)


@jax.custom_jvp
def prelu(input: jax.Array, weight: jax.Array) -> jax.Array:
    """``torch.nn.functional.prelu``: slope ``weight`` at zero.

    Args:
      input: shape ``(N, C, ...)``, or any with one weight.
      weight: one slope, or one per channel, shape ``(C,)``; the dtype of ``input``.
    """
    return jnp.where(input > 0, input, _per_channel(weight, input) * input)


@prelu.defjvp
def _(primals, tangents):
    (x, w), (dx, dw) = primals, tangents
    slope, d_slope = _per_channel(w, x), _per_channel(dw, x)
    slope = jnp.where(x == 0, lax.stop_gradient(slope), slope)  # second derivative 0 at 0
    d = slope * dx + d_slope * jnp.where(x < 0, x, 0)
    return prelu(x, w), jnp.where(x > 0, dx, d)


def rrelu(input: jax.Array, slope: jax.Array) -> jax.Array:
    """``torch.nn.functional.rrelu`` in training, with slopes that were drawn.

    Args:
      input: any shape, floating.
      slope: uniform between PyTorch's ``lower`` and ``upper``, the shape of ``input``.
    """
    return jnp.where(input > 0, input, input * slope)


def hardshrink(input: jax.Array, lambd: float = 0.5) -> jax.Array:
    """``torch.nn.functional.hardshrink``: 0, and slope 0, from ``-lambd`` to ``lambd``."""
    return jnp.where((input >= -lambd) & (input <= lambd), 0, input)


def softshrink(input: jax.Array, lambd: float = 0.5) -> jax.Array:
    """``torch.nn.functional.softshrink``: 0, and slope 0, from ``-lambd`` to ``lambd``."""
    shrunk = jnp.where(input > lambd, input - lambd, input + lambd)
    return jnp.where((input >= -lambd) & (input <= lambd), 0, shrunk)


def elu(
    input: jax.Array, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> jax.Array:
    """``torch.nn.functional.elu``: at zero the slope from the left.

    .. math:: y = \\text{scale} \\cdot \\begin{cases} x & x > 0 \\\\
              \\alpha (e^{\\text{input\\_scale} \\, x} - 1) & \\text{else} \\end{cases}

    ``scale`` and ``input_scale`` are those of ``torch.ops.aten.elu``.
    """

    return _in_wide(lambda x: _elu(x, alpha, scale, input_scale, input_scale), input)


def celu(input: jax.Array, alpha: float = 1.0) -> jax.Array:
    """``torch.nn.functional.celu``; its slope is that of ``alpha`` rounded to float32."""
    rounded = 1 / float(np.float32(alpha))
    return _in_wide(lambda x: _elu(x, alpha, 1.0, 1 / alpha, rounded), input)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _elu(x, alpha, scale, input_scale, slope_scale):
    del slope_scale
    exp = jnp.expm1(jnp.where(x <= 0, x, 0) * input_scale)
    return jnp.where(x <= 0, exp * (alpha * scale), x * scale)


@_elu.defjvp
def _(alpha, scale, input_scale, slope_scale, primals, tangents):
    ([x], [dx]) = primals, tangents
    exp = jnp.exp(jnp.where(x < 0, x, 0) * slope_scale)  # of second derivative 0 at 0
    slope = jnp.where(x <= 0, exp * (alpha * scale * slope_scale), scale)
    return _elu(x, alpha, scale, input_scale, slope_scale), slope * dx


def selu(input: jax.Array) -> jax.Array:
    """``torch.nn.functional.selu``: at zero the slope from the left."""
    return elu(input, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def gelu(input: jax.Array, approximate: str = "none") -> jax.Array:
    """``torch.nn.functional.gelu``.

    Args:
      input: any shape, floating.
      approximate: ``"none"``, or ``"tanh"`` for the approximation of the error function.

    Raises:
      ValueError: another ``approximate``.

    References:
      Hendrycks and Gimpel, `Gaussian Error Linear Units <https://arxiv.org/abs/1606.08415>`_,
      2016.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"{approximate=} must be 'none' or 'tanh'.")

    def of_wide(x):
        if approximate == "tanh":
            inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
            return 0.5 * x * (1 + jnp.tanh(inner))
        return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))

    return _in_wide(of_wide, input)


def silu(input: jax.Array) -> jax.Array:
    """``torch.nn.functional.silu``."""
    return _in_wide(lambda x: x * lax.logistic(x), input)


def mish(input: jax.Array) -> jax.Array:
    """``torch.nn.functional.mish``."""
    return _in_wide(lambda x: x * jnp.tanh(jnp.logaddexp(x, 0.0)), input)


def softplus(input: jax.Array, beta: float = 1.0, threshold: float = 20.0) -> jax.Array:
    """``torch.nn.functional.softplus``: ``input`` itself where it is above the threshold.

    .. math:: y = \\log(1 + e^{\\beta x}) / \\beta
    """

    def of_wide(x):
        above = x * beta > threshold
        return jnp.where(above, x, jnp.log1p(jnp.exp(jnp.where(above, 0, x * beta))) / beta)

    return _in_wide(of_wide, input)


def log_sigmoid(input: jax.Array) -> jax.Array:
    """``torch.nn.functional.logsigmoid`` of ``input``."""
    return _in_wide(jax.nn.log_sigmoid, input)


def sigmoid(input: jax.Array) -> jax.Array:
    """``torch.sigmoid``; integers become floating."""
    return _in_wide(lax.logistic, input.astype(as_floating(input.dtype)))


def tanh(input: jax.Array) -> jax.Array:
    """``torch.tanh``; integers become floating."""
    return _in_wide(jnp.tanh, input.astype(as_floating(input.dtype)))


def hardsigmoid(input: jax.Array) -> jax.Array:
    """``torch.nn.functional.hardsigmoid``: slope 0 at -3 and 3.

    In between it is 1/6 rounded to float32, as PyTorch has it for all dtypes.
    """
    return _in_wide(_hardsigmoid, input)


@jax.custom_jvp
def _hardsigmoid(x):
    return jnp.clip(x + 3, 0, 6) / 6


@_hardsigmoid.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    sixth = float(np.float32(1 / 6))
    return _hardsigmoid(x), jnp.where((x > -3) & (x < 3), dx * sixth, 0)


def hardswish(input: jax.Array) -> jax.Array:
    """``torch.nn.functional.hardswish``: slope 0 at -3 and 1 at 3."""
    return _in_wide(_hardswish, input)


@jax.custom_jvp
def _hardswish(x):
    return x * jnp.clip(x + 3, 0, 6) / 6


@_hardswish.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    slope = jnp.where(x >= 3, 1, x / 3 + 0.5)
    return _hardswish(x), sloped(dx, slope, x <= -3)


def glu(input: jax.Array, dim: int = -1) -> jax.Array:
    """``torch.nn.functional.glu``: the first half times the sigmoid of the second.

    Raises:
      ValueError: the axis ``dim`` is of odd length.
    """
    if input.shape[dim] % 2:
        raise ValueError(f"axis {dim} of shape {list(input.shape)} must be of even length.")
    a, b = jnp.split(input, 2, dim)
    return _in_wide(lambda a: a * lax.logistic(b.astype(a.dtype)), a)


def logit(input: jax.Array, eps: float | None = None) -> jax.Array:
    """``torch.logit``; integers become floating.

    .. math:: y = \\log \\frac{x}{1 - x}

    Args:
      input: :math:`x`, any shape.
      eps: ``input`` is clamped to ``eps`` and ``1 - eps``, with slope 0 outside; None leaves
        NaN outside of 0 to 1.
    """
    return _in_wide(partial(_logit, eps=eps), input.astype(as_floating(input.dtype)))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _logit(x, eps):
    z = x if eps is None else jnp.clip(x, eps, 1 - eps)
    return jnp.log(z / (1 - z))


@_logit.defjvp
def _(eps, primals, tangents):
    ([x], [dx]) = primals, tangents
    low, high = (0, 1) if eps is None else (eps, 1 - eps)
    inside = (x >= low) & (x <= high)
    z = jnp.where(inside, x, 0.5)
    slope = jnp.where(inside, 1 / (z * (1 - z)), jnp.nan if eps is None else 0)
    return _logit(x, eps), slope * dx


def _in_wide(function: Callable[[jax.Array], jax.Array], input: jax.Array) -> jax.Array:
    return function(input.astype(wide(input.dtype))).astype(input.dtype)


def _per_channel(weight, input):
    if weight.size == 1:
        return weight.reshape((1,) * input.ndim)
    return jnp.expand_dims(weight, tuple(i for i in range(input.ndim) if i != 1))
