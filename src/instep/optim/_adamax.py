"""Adamax: Adam with the infinity norm."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate_and_betas
from ._per_parameter import per_parameter
from ._scalars import bias_correction, lerp


def adamax(
    lr: Hyperparam = 2e-3,
    betas: tuple[Hyperparam, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """``torch.optim.Adamax``.

    .. math::
        g &\\leftarrow g + \\lambda p \\\\
        m &\\leftarrow \\beta_1 m + (1 - \\beta_1) g, \\qquad
        u \\leftarrow \\max(\\beta_2 u,\\ |g| + \\epsilon) \\\\
        p &\\leftarrow p - \\frac{\\gamma}{1 - \\beta_1^t} \\frac{m}{u}

    ``optax.adamax`` is the same rule without weight decay.

    Args:
      lr: learning rate :math:`\\gamma`, a float or ``schedule(count)``.
      betas: :math:`(\\beta_1, \\beta_2)`, each in [0, 1); the first may be a schedule.
      eps: :math:`\\epsilon`, added to the magnitude of the gradient.
      weight_decay: :math:`\\lambda`, added to the gradient (L2).
      maximize: ascend: negate the gradient, before weight decay.

    Returns:
      A transformation with the slots ``step`` (int32), ``exp_avg`` and ``exp_inf``.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Kingma and Ba, `Adam: A Method for Stochastic Optimization
      <https://arxiv.org/abs/1412.6980>`_, 2014, section 7.1.
    """
    lr, beta1, beta2 = learning_rate_and_betas(lr, betas)
    eps = fixed("eps", eps, "[0, inf)")
    weight_decay = fixed("weight_decay", weight_decay, "[0, inf)")

    def init(p):
        return {
            "step": jnp.zeros((), jnp.int32),
            "exp_avg": jnp.zeros_like(p),
            "exp_inf": jnp.zeros_like(p),
        }

    def update(p, g, slots, hyper):
        beta1, t = hyper["beta1"], slots["step"] + 1
        if maximize:
            g = -g
        if weight_decay:
            g = g + weight_decay * p
        exp_avg = lerp(slots["exp_avg"], g, 1.0 - beta1)
        exp_inf = jnp.maximum(beta2 * slots["exp_inf"], jnp.abs(g) + eps)
        step_size = hyper["lr"] / bias_correction(beta1, t).astype(p.dtype)
        slots = {"step": t, "exp_avg": exp_avg, "exp_inf": exp_inf}
        return p - step_size * exp_avg / exp_inf, slots

    return per_parameter(init, update, {"lr": lr, "beta1": beta1})
