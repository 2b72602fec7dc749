"""Adadelta."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate
from ._per_parameter import per_parameter


def adadelta(
    lr: Hyperparam = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """``torch.optim.Adadelta``.

    .. math::
        g &\\leftarrow g + \\lambda p \\\\
        v &\\leftarrow \\rho v + (1 - \\rho) g^2 \\\\
        \\Delta &= \\frac{\\sqrt{u + \\epsilon}}{\\sqrt{v + \\epsilon}}\\, g, \\qquad
        u \\leftarrow \\rho u + (1 - \\rho) \\Delta^2 \\\\
        p &\\leftarrow p - \\gamma \\Delta

    ``optax.adadelta`` is the same rule; its rate has to be given.

    Args:
      lr: :math:`\\gamma`, a float or ``schedule(count)``.
      rho: :math:`\\rho`, in [0, 1].
      eps: :math:`\\epsilon`, added under both roots.
      weight_decay: :math:`\\lambda`, added to the gradient (L2).
      maximize: ascend: negate the gradient, before weight decay.

    Returns:
      A transformation with the slots ``step`` (int32), ``square_avg`` :math:`v` and
      ``acc_delta`` :math:`u`.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Zeiler, `ADADELTA: An Adaptive Learning Rate Method
      <https://arxiv.org/abs/1212.5701>`_, 2012.
    """
    lr = learning_rate(lr)
    rho = fixed("rho", rho, "[0, 1]")
    eps = fixed("eps", eps, "[0, inf)")
    weight_decay = fixed("weight_decay", weight_decay, "[0, inf)")

    def init(p):
        return {
            "step": jnp.zeros((), jnp.int32),
            "square_avg": jnp.zeros_like(p),
            "acc_delta": jnp.zeros_like(p),
        }

    def update(p, g, slots, hyper):
        if maximize:
            g = -g
        if weight_decay:
            g = g + weight_decay * p
        square_avg = rho * slots["square_avg"] + (1.0 - rho) * g * g
        delta = jnp.sqrt(slots["acc_delta"] + eps) / jnp.sqrt(square_avg + eps) * g
        acc_delta = rho * slots["acc_delta"] + (1.0 - rho) * delta * delta
        slots = {"step": slots["step"] + 1, "square_avg": square_avg, "acc_delta": acc_delta}
        return p - hyper["lr"] * delta, slots

    return per_parameter(init, update, {"lr": lr})
