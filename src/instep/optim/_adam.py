"""Adam and AdamW."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate_and_betas
from ._per_parameter import per_parameter
from ._scalars import bias_correction, lerp


def adam(
    lr: Hyperparam = 1e-3,
    betas: tuple[Hyperparam, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> optax.GradientTransformation:
    """``torch.optim.Adam``.

    .. math::
        g &\\leftarrow g + \\lambda p \\\\
        m &\\leftarrow \\beta_1 m + (1 - \\beta_1) g, \\qquad
        v \\leftarrow \\beta_2 v + (1 - \\beta_2) g^2 \\\\
        p &\\leftarrow p - \\frac{\\gamma}{1 - \\beta_1^t}
             \\frac{m}{\\sqrt{\\hat v} / \\sqrt{1 - \\beta_2^t} + \\epsilon}, \\qquad
        \\hat v = \\begin{cases} \\max(\\hat v, v) & \\text{amsgrad} \\\\ v \\end{cases}

    ``optax.adam`` has no weight decay, and ``optax.amsgrad`` takes the maximum of the
    bias-corrected :math:`v` where PyTorch takes it of the raw one.

    Args:
      lr: learning rate :math:`\\gamma`, a float or ``schedule(count)``.
      betas: :math:`(\\beta_1, \\beta_2)`, each in [0, 1); the first may be a schedule.
      eps: :math:`\\epsilon`, added to the root.
      weight_decay: :math:`\\lambda`, added to the gradient (L2).
      amsgrad: keep the largest second moment.
      maximize: ascend: negate the gradient, before weight decay.
      decoupled_weight_decay: shrink the parameter by :math:`1 - \\gamma\\lambda` instead of
        adding to the gradient: AdamW.

    Returns:
      A transformation with the slots ``step`` (int32), ``exp_avg``, ``exp_avg_sq`` and,
      with amsgrad, ``max_exp_avg_sq``.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Kingma and Ba, `Adam: A Method for Stochastic Optimization
      <https://arxiv.org/abs/1412.6980>`_, 2014. Reddi et al., `On the Convergence of Adam
      and Beyond <https://openreview.net/forum?id=ryQu7f-RZ>`_, 2018.
    """
    lr, beta1, beta2 = learning_rate_and_betas(lr, betas)
    eps = fixed("eps", eps, "[0, inf)")
    weight_decay = fixed("weight_decay", weight_decay, "[0, inf)")

    def init(p):
        slots = {
            "step": jnp.zeros((), jnp.int32),
            "exp_avg": jnp.zeros_like(p),
            "exp_avg_sq": jnp.zeros_like(p),
        }
        if amsgrad:
            slots["max_exp_avg_sq"] = jnp.zeros_like(p)
        return slots

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
        slots = {"step": t, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq} | (
            {"max_exp_avg_sq": jnp.maximum(slots["max_exp_avg_sq"], exp_avg_sq)}
            if amsgrad
            else {}
        )
        step_size = lr / bias_correction(beta1, t).astype(p.dtype)
        root = jnp.sqrt(bias_correction(beta2, t)).astype(p.dtype)
        second_moment = slots["max_exp_avg_sq"] if amsgrad else exp_avg_sq
        return p - step_size * exp_avg / (jnp.sqrt(second_moment) / root + eps), slots

    return per_parameter(init, update, {"lr": lr, "beta1": beta1})


def adamw(
    lr: Hyperparam = 1e-3,
    betas: tuple[Hyperparam, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """``torch.optim.AdamW``: Adam whose weight decay does not pass through the moments.

    .. math::
        p \\leftarrow (1 - \\gamma\\lambda)\\, p, \\qquad
        \\text{then Adam with } \\lambda = 0

    ``optax.adamw`` is the same rule with another default: its ``weight_decay`` is 1e-4,
    PyTorch's is 1e-2.

    Args:
      lr, betas, eps, amsgrad, maximize: as for ``adam``.
      weight_decay: :math:`\\lambda`.

    Returns:
      A transformation with the slots of ``adam``.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Loshchilov and Hutter, `Decoupled Weight Decay Regularization
      <https://arxiv.org/abs/1711.05101>`_, 2017.
    """
    return adam(
        lr,
        betas,
        eps,
        weight_decay,
        amsgrad,
        maximize=maximize,
        decoupled_weight_decay=True,
    )
