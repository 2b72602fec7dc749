"""RAdam: Adam with a rectified variance."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate_and_betas
from ._per_parameter import per_parameter
from ._scalars import bias_correction, lerp


def radam(
    lr: Hyperparam = 1e-3,
    betas: tuple[Hyperparam, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """``torch.optim.RAdam``.

    .. math::
        m &\\leftarrow \\beta_1 m + (1 - \\beta_1) g, \\qquad
        v \\leftarrow \\beta_2 v + (1 - \\beta_2) g^2 \\\\
        r_t &= \\sqrt{\\frac{(\\rho_t - 4)(\\rho_t - 2)\\,\\rho_\\infty}
                           {(\\rho_\\infty - 4)(\\rho_\\infty - 2)\\,\\rho_t}} \\\\
        p &\\leftarrow p - \\gamma\\,\\frac{m}{1 - \\beta_1^t} \\cdot \\begin{cases}
             r_t \\dfrac{\\sqrt{1 - \\beta_2^t}}{\\sqrt v + \\epsilon} & \\rho_t > 5 \\\\
             1 & \\text{else} \\end{cases}

    with :math:`\\rho_t` of ``sma_length``. ``optax.radam`` adds :math:`\\epsilon` to
    :math:`\\sqrt{v / (1 - \\beta_2^t)}` and has no weight decay.

    Args:
      lr: learning rate :math:`\\gamma`, a float or ``schedule(count)``.
      betas: :math:`(\\beta_1, \\beta_2)`, each in [0, 1); the first may be a schedule.
      eps: :math:`\\epsilon`, added to the root before the bias correction.
      weight_decay: :math:`\\lambda`, added to the gradient (L2).
      decoupled_weight_decay: shrink the parameter by :math:`1 - \\gamma\\lambda` instead.
      maximize: ascend: negate the gradient, before weight decay.

    Returns:
      A transformation with the slots ``step`` (int32), ``exp_avg`` and ``exp_avg_sq``.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Liu et al., `On the Variance of the Adaptive Learning Rate and Beyond
      <https://arxiv.org/abs/1908.03265>`_, 2019.
    """
    lr, beta1, beta2 = learning_rate_and_betas(lr, betas)
    eps = fixed("eps", eps, "[0, inf)")
    weight_decay = fixed("weight_decay", weight_decay, "[0, inf)")

    def init(p):
        return {
            "step": jnp.zeros((), jnp.int32),
            "exp_avg": jnp.zeros_like(p),
            "exp_avg_sq": jnp.zeros_like(p),
        }

    def update(p, g, slots, hyper):
        lr, beta1, t = hyper["lr"], hyper["beta1"], slots["step"] + 1
        if maximize:
            g = -g
        if weight_decay and decoupled_weight_decay:
            p = p * (1.0 - lr * weight_decay)
        elif weight_decay:
            g = g + weight_decay * p

        exp_avg = lerp(slots["exp_avg"], g, 1.0 - beta1)
        exp_avg_sq = beta2 * slots["exp_avg_sq"] + (1.0 - beta2) * g * g

        correction2 = bias_correction(beta2, t)
        rectified = (jnp.sqrt(correction2) * rectification(beta2, t)).astype(p.dtype)
        unbiased = exp_avg / bias_correction(beta1, t).astype(p.dtype)
        adaptive = unbiased * lr * rectified / (jnp.sqrt(exp_avg_sq) + eps)
        p = p - jnp.where(sma_length(beta2, t) > 5.0, adaptive, unbiased * lr)
        return p, {"step": t, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}

    return per_parameter(init, update, {"lr": lr, "beta1": beta1})


def rectification(beta2: float, t: jax.Array) -> jax.Array:
    """:math:`r_t`; where :math:`\\rho_t \\le 4` it is not defined and 0 here."""
    longest = 2.0 / (1.0 - beta2) - 1.0
    rho = jnp.maximum(sma_length(beta2, t), 4.0)
    return jnp.sqrt(
        (rho - 4.0) * (rho - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * rho)
    )


def sma_length(beta2: float, t: jax.Array) -> jax.Array:
    """Length of the simple moving average that the exponential one stands for.

    .. math:: \\rho_t = \\rho_\\infty - \\frac{2 t \\beta_2^t}{1 - \\beta_2^t}, \\qquad
              \\rho_\\infty = \\frac{2}{1 - \\beta_2} - 1

    In float64 as PyTorch has it on the host. In float32 both terms are near 2000 and their
    difference near t, so there it is written with :math:`L = -\\log \\beta_2` and
    :math:`F(x) = x \\coth x - 1` as :math:`t - \\frac2L (F(\\tfrac{tL}2) - F(\\tfrac L2))`,
    which is the same number.
    """
    dtype = jnp.result_type(float)
    steps = t.astype(dtype)
    if dtype == jnp.float64 or beta2 == 0.0:
        power = beta2**steps
        return 2.0 / (1.0 - beta2) - 1.0 - 2.0 * steps * power / bias_correction(beta2, t)
    decay = -math.log(beta2)
    offset = decay / 2.0 / math.tanh(decay / 2.0) - 1.0
    return steps - 2.0 / decay * (_x_coth_x_minus_1(steps * (decay / 2.0)) - offset)


def _x_coth_x_minus_1(x: jax.Array) -> jax.Array:
    squared = x * x
    series = squared / 3.0 * (1.0 - squared / 15.0 * (1.0 - 2.0 * squared / 21.0))
    return jnp.where(x < 0.3, series, x / jnp.tanh(x) - 1.0)
