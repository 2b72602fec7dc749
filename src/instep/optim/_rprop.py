"""Rprop: a step size of its own for every element, from the sign of the gradient alone."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate
from ._per_parameter import per_parameter


def rprop(
    lr: Hyperparam = 1e-2,
    etas: tuple[float, float] = (0.5, 1.2),
    step_sizes: tuple[float, float] = (1e-6, 50.0),
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """``torch.optim.Rprop``.

    .. math::
        s &\\leftarrow \\operatorname{clamp}(s \\cdot \\eta), \\qquad
        \\eta = \\eta^+, 1, \\eta^- \\text{ as } g g_{prev} >, =, < 0 \\\\
        g &\\leftarrow 0 \\text{ where } g g_{prev} < 0 \\\\
        p &\\leftarrow p - \\operatorname{sign}(g)\\, s, \\qquad g_{prev} \\leftarrow g

    ``optax.rprop`` 0.2.8 returns the update of the step before.

    Args:
      lr: the step size :math:`s` of the first step, a float or ``schedule(count)``; later
        rates have no effect, as in PyTorch.
      etas: :math:`(\\eta^-, \\eta^+)`, with 0 < first < 1 < second.
      step_sizes: smallest and largest :math:`s`.
      maximize: ascend: negate the gradient.

    Returns:
      A transformation with the slots ``step`` (int32), ``prev`` :math:`g_{prev}` and
      ``step_size`` :math:`s`.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Riedmiller and Braun, `A Direct Adaptive Method for Faster Backpropagation Learning
      <https://doi.org/10.1109/ICNN.1993.298623>`_, 1993.
    """
    lr = learning_rate(lr)
    eta_minus = fixed("etas[0]", etas[0], "(0, 1)")
    eta_plus = fixed("etas[1]", etas[1], "(1, inf)")
    smallest = fixed("step_sizes[0]", step_sizes[0])
    largest = fixed("step_sizes[1]", step_sizes[1])

    def init(p):
        return {
            "step": jnp.zeros((), jnp.int32),
            "prev": jnp.zeros_like(p),
            "step_size": jnp.zeros_like(p),
        }

    def update(p, g, slots, hyper):
        t = slots["step"] + 1
        if maximize:
            g = -g
        agreement = jnp.sign(g * slots["prev"])
        eta = jnp.where(agreement > 0, eta_plus, jnp.where(agreement < 0, eta_minus, 1.0))
        step_size = jnp.where(t == 1, hyper["lr"], slots["step_size"])
        step_size = jnp.clip(step_size * eta.astype(p.dtype), smallest, largest)
        g = jnp.where(agreement < 0, jnp.zeros_like(g), g)
        return p - jnp.sign(g) * step_size, {"step": t, "prev": g, "step_size": step_size}

    return per_parameter(init, update, {"lr": lr})
