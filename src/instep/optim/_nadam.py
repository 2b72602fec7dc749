"""NAdam: Adam with Nesterov momentum."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate_and_betas
from ._per_parameter import per_parameter
from ._scalars import bias_correction, lerp


def nadam(
    lr: Hyperparam = 2e-3,
    betas: tuple[Hyperparam, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """``torch.optim.NAdam``.

    .. math::
        \\mu_t &= \\beta_1 \\left(1 - \\tfrac12\\, 0.96^{\\,t \\psi}\\right), \\qquad
        \\Pi \\leftarrow \\Pi \\mu_t \\\\
        m &\\leftarrow \\beta_1 m + (1 - \\beta_1) g, \\qquad
        v \\leftarrow \\beta_2 v + (1 - \\beta_2) g^2 \\\\
        p &\\leftarrow p - \\gamma\\,\\frac{
            \\frac{1 - \\mu_t}{1 - \\Pi}\\, g + \\frac{\\mu_{t+1}}{1 - \\Pi \\mu_{t+1}}\\, m
            }{\\sqrt{v / (1 - \\beta_2^t)} + \\epsilon}

    ``optax.nadam`` has no :math:`\\mu_t`: it takes :math:`\\beta_1` for all of them.

    Args:
      lr: learning rate :math:`\\gamma`, a float or ``schedule(count)``.
      betas: :math:`(\\beta_1, \\beta_2)`, each in [0, 1); the first may be a schedule.
      eps: :math:`\\epsilon`, added to the root.
      weight_decay: :math:`\\lambda`, added to the gradient (L2).
      momentum_decay: :math:`\\psi`.
      decoupled_weight_decay: shrink the parameter by :math:`1 - \\gamma\\lambda` instead.
      maximize: ascend: negate the gradient, before weight decay.

    Returns:
      A transformation with the slots ``step`` (int32), ``mu_product`` :math:`\\Pi` (shape
      ()), ``exp_avg`` and ``exp_avg_sq``.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Dozat, `Incorporating Nesterov Momentum into Adam
      <https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ>`_, 2016.
    """
    lr, beta1, beta2 = learning_rate_and_betas(lr, betas)
    eps = fixed("eps", eps, "[0, inf)")
    weight_decay = fixed("weight_decay", weight_decay, "[0, inf)")
    momentum_decay = fixed("momentum_decay", momentum_decay, "[0, inf)")

    def init(p):
        return {
            "step": jnp.zeros((), jnp.int32),
            "mu_product": jnp.ones((), jnp.result_type(float)),
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

        def momentum_at(t):
            return beta1 * (1.0 - 0.5 * 0.96 ** (t.astype(p.dtype) * momentum_decay))

        mu, mu_next = momentum_at(t), momentum_at(t + 1)
        mu_product = slots["mu_product"] * mu
        exp_avg = lerp(slots["exp_avg"], g, 1.0 - beta1)
        exp_avg_sq = beta2 * slots["exp_avg_sq"] + (1.0 - beta2) * g * g

        root = jnp.sqrt(exp_avg_sq / bias_correction(beta2, t).astype(p.dtype)) + eps
        p = p - lr * (1.0 - mu) / (1.0 - mu_product) * g / root
        p = p - lr * mu_next / (1.0 - mu_product * mu_next) * exp_avg / root
        return p, {
            "step": t,
            "mu_product": mu_product,
            "exp_avg": exp_avg,
            "exp_avg_sq": exp_avg_sq,
        }

    return per_parameter(init, update, {"lr": lr, "beta1": beta1})
