"""Averaged stochastic gradient descent."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate
from ._per_parameter import per_parameter


def asgd(
    lr: Hyperparam = 1e-2,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """``torch.optim.ASGD``.

    .. math::
        g &\\leftarrow g + \\lambda p \\\\
        p &\\leftarrow (1 - \\ell \\eta)\\, p - \\eta g \\\\
        a &\\leftarrow \\begin{cases} p & \\mu = 1 \\\\ a + \\mu (p - a) & \\text{else}
             \\end{cases} \\\\
        \\eta &\\leftarrow \\frac{\\gamma}{(1 + \\ell \\gamma t)^\\alpha}, \\qquad
        \\mu \\leftarrow \\frac{1}{\\max(1,\\ t - t_0)}

    :math:`\\eta` and :math:`\\mu` act one step after they are computed. The average
    :math:`a` is state; the parameters are not replaced by it. optax has no such rule.

    Args:
      lr: learning rate :math:`\\gamma`, a float or ``schedule(count)``.
      lambd: decay term :math:`\\ell`.
      alpha: power :math:`\\alpha` of the decay of :math:`\\eta`.
      t0: step at which averaging starts.
      weight_decay: :math:`\\lambda`, added to the gradient (L2).
      maximize: ascend: negate the gradient, before weight decay.

    Returns:
      A transformation with the slots ``step`` (int32), ``eta``, ``mu`` (shape ()) and
      ``ax`` :math:`a`.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Polyak and Juditsky, `Acceleration of Stochastic Approximation by Averaging
      <https://doi.org/10.1137/0330046>`_, 1992.
    """
    lr = learning_rate(lr)
    lambd, alpha, t0 = fixed("lambd", lambd), fixed("alpha", alpha), fixed("t0", t0)
    weight_decay = fixed("weight_decay", weight_decay, "[0, inf)")

    def init(p):
        scalar = jnp.result_type(float)
        return {
            "step": jnp.zeros((), jnp.int32),
            "eta": jnp.zeros((), scalar),
            "mu": jnp.ones((), scalar),
            "ax": jnp.zeros_like(p),
        }

    def update(p, g, slots, hyper):
        lr, mu, t = hyper["lr"], slots["mu"], slots["step"] + 1
        if maximize:
            g = -g
        if weight_decay:
            g = g + weight_decay * p
        eta = jnp.where(t == 1, lr, slots["eta"])
        p = p * (1.0 - lambd * eta) - eta * g
        ax = jnp.where(mu == 1.0, p, slots["ax"] + mu * (p - slots["ax"]))
        steps = t.astype(p.dtype)
        return p, {
            "step": t,
            "eta": lr / (1.0 + lambd * lr * steps) ** alpha,
            "mu": 1.0 / jnp.maximum(1.0, steps - t0),
            "ax": ax,
        }

    return per_parameter(init, update, {"lr": lr})
