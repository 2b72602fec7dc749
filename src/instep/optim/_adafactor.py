"""Adafactor: a second moment stored as one row and one column."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate
from ._per_parameter import per_parameter
from ._scalars import lerp, rms


def adafactor(
    lr: Hyperparam = 1e-2,
    beta2_decay: float = -0.8,
    eps: tuple[float | None, float] = (None, 1e-3),
    d: float = 1.0,
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """``torch.optim.Adafactor``.

    .. math::
        \\beta &= t^\\tau, \\qquad
        \\alpha = \\max(\\epsilon_2, \\operatorname{rms}(p)) \\min(\\gamma, 1 / \\sqrt t) \\\\
        p &\\leftarrow (1 - \\gamma\\lambda)\\, p \\\\
        R &\\leftarrow R + \\beta\\,(\\operatorname{mean}_{-1}(g^2) - R), \\qquad
        C \\leftarrow C + \\beta\\,(\\operatorname{mean}_{-2}(g^2) - C) \\\\
        V &= \\frac{R C}{\\max(\\operatorname{mean}_{-2}(R), \\epsilon_1)}, \\qquad
        U = \\frac{g}{\\sqrt{\\max(V, \\epsilon_1^2)}} \\\\
        p &\\leftarrow p - \\frac{\\alpha}{\\max(1, \\operatorname{rms}(U) / d)}\\, U

    Scalars and vectors keep :math:`V` whole. The *last two* axes are factored, as PyTorch
    does: a convolution kernel in another layout than PyTorch's gives other numbers.
    ``optax.adafactor`` factors the two largest axes if both have 128 or more, adds its
    epsilon to :math:`g^2`, does not multiply the weight decay by the rate, and computes
    :math:`t^\\tau` in float32.

    Args:
      lr: learning rate :math:`\\gamma`, a float or ``schedule(count)``.
      beta2_decay: :math:`\\tau`, at most 0.
      eps: :math:`(\\epsilon_1, \\epsilon_2)`; None is ``finfo(dtype of the parameter).eps``.
      d: largest root mean square of an update, at least 1.
      weight_decay: :math:`\\lambda`, decoupled.
      maximize: ascend: negate the gradient.

    Returns:
      A transformation with the slots ``step`` (int32) and, for two axes or more, ``row_var``
      :math:`R` (shape ``(..., n, 1)``) and ``col_var`` :math:`C` (shape ``(..., 1, m)``),
      else ``variance`` :math:`V`.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Shazeer and Stern, `Adafactor: Adaptive Learning Rates with Sublinear Memory Cost
      <https://arxiv.org/abs/1804.04235>`_, 2018.
    """
    lr = learning_rate(lr)
    beta2_decay = fixed("beta2_decay", beta2_decay, "(-inf, 0]")
    given_eps1 = None if eps[0] is None else fixed("eps[0]", eps[0], "[0, inf)")
    eps2 = fixed("eps[1]", eps[1], "[0, inf)")
    d = fixed("d", d, "[1, inf)")
    weight_decay = fixed("weight_decay", weight_decay, "[0, inf)")

    def init(p):
        if p.ndim > 1:
            row, column = (*p.shape[:-1], 1), (*p.shape[:-2], 1, p.shape[-1])
            second = {"row_var": jnp.zeros(row, p.dtype), "col_var": jnp.zeros(column, p.dtype)}
        else:
            second = {"variance": jnp.zeros_like(p)}
        return {"step": jnp.zeros((), jnp.int32)} | second

    def update(p, g, slots, hyper):
        lr, t = hyper["lr"], slots["step"] + 1
        eps1 = float(jnp.finfo(hyper["dtype"]).eps) if given_eps1 is None else given_eps1
        if maximize:
            g = -g
        steps = t.astype(p.dtype)
        weight = steps**beta2_decay
        step_size = jnp.maximum(eps2, rms(p)) * jnp.minimum(lr, 1.0 / jnp.sqrt(steps))
        if weight_decay:
            p = p * (1.0 - lr * weight_decay)

        squared = g * g
        if g.ndim > 1:
            row_var = lerp(slots["row_var"], squared.mean(-1, keepdims=True), weight)
            col_var = lerp(slots["col_var"], squared.mean(-2, keepdims=True), weight)
            second = {"row_var": row_var, "col_var": col_var}
            variance = row_var * col_var / jnp.maximum(row_var.mean(-2, keepdims=True), eps1)
        else:
            variance = lerp(slots["variance"], squared, weight)
            second = {"variance": variance}

        step = g / jnp.sqrt(jnp.maximum(variance, eps1 * eps1))
        p = p - step_size / jnp.maximum(1.0, rms(step) / d) * step
        return p, {"step": t} | second

    return per_parameter(init, update, {"lr": lr})
