"""Adagrad."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate
from ._per_parameter import per_parameter


def adagrad(
    lr: Hyperparam = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """``torch.optim.Adagrad``.

    .. math::
        g &\\leftarrow g + \\lambda p \\\\
        s &\\leftarrow s + g^2 \\\\
        p &\\leftarrow p - \\frac{\\gamma}{1 + (t - 1)\\,\\eta} \\frac{g}{\\sqrt s + \\epsilon}

    ``optax.adagrad`` adds :math:`\\epsilon` to :math:`s` under the root, starts :math:`s` at
    0.1 and has neither weight decay nor ``lr_decay``.

    Args:
      lr: learning rate :math:`\\gamma`, a float or ``schedule(count)``.
      lr_decay: :math:`\\eta`.
      weight_decay: :math:`\\lambda`, added to the gradient (L2).
      initial_accumulator_value: :math:`s` at the start.
      eps: :math:`\\epsilon`, added to the root.
      maximize: ascend: negate the gradient, before weight decay.

    Returns:
      A transformation with the slots ``step`` (int32) and ``sum``.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Duchi et al., `Adaptive Subgradient Methods for Online Learning and Stochastic
      Optimization <https://jmlr.org/papers/v12/duchi11a.html>`_, 2011.
    """
    lr = learning_rate(lr)
    lr_decay = fixed("lr_decay", lr_decay, "[0, inf)")
    weight_decay = fixed("weight_decay", weight_decay, "[0, inf)")
    start = fixed("initial_accumulator_value", initial_accumulator_value, "[0, inf)")
    eps = fixed("eps", eps, "[0, inf)")

    def init(p):
        return {"step": jnp.zeros((), jnp.int32), "sum": jnp.full_like(p, start)}

    def update(p, g, slots, hyper):
        t = slots["step"] + 1
        if maximize:
            g = -g
        if weight_decay:
            g = g + weight_decay * p
        step_size = hyper["lr"] / (1.0 + (t - 1).astype(p.dtype) * lr_decay)
        sum = slots["sum"] + g * g
        return p - step_size * g / (jnp.sqrt(sum) + eps), {"step": t, "sum": sum}

    return per_parameter(init, update, {"lr": lr})
