"""Stochastic gradient descent, with PyTorch's momentum."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate_and_momentum
from ._per_parameter import per_parameter


def sgd(
    lr: Hyperparam = 1e-3,
    momentum: Hyperparam = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """``torch.optim.SGD``.

    .. math::
        g &\\leftarrow g + \\lambda p \\\\
        b &\\leftarrow \\begin{cases} g & \\text{first step} \\\\
                       \\mu b + (1 - \\tau) g & \\text{after} \\end{cases} \\\\
        p &\\leftarrow p - \\gamma \\,(g + \\mu b \\text{ if nesterov else } b)

    The first momentum buffer is the gradient itself: dampening acts from the second step
    on. ``optax.sgd`` has neither dampening nor weight decay.

    Args:
      lr: learning rate :math:`\\gamma`, a float or ``schedule(count)``.
      momentum: :math:`\\mu`, a float or ``schedule(count)``.
      dampening: :math:`\\tau`.
      weight_decay: :math:`\\lambda`, added to the gradient.
      nesterov: Nesterov momentum; needs momentum and zero dampening.
      maximize: ascend: negate the gradient, before weight decay.

    Returns:
      A transformation with the slot ``momentum_buffer`` (with momentum only).

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Sutskever et al., `On the importance of initialization and momentum in deep learning
      <https://proceedings.mlr.press/v28/sutskever13.html>`_, 2013; PyTorch's rule differs
      from theirs in where the learning rate stands.
    """
    lr, momentum = learning_rate_and_momentum(lr, momentum)
    dampening = fixed("dampening", dampening)
    weight_decay = fixed("weight_decay", weight_decay, "[0, inf)")
    if nesterov and (momentum == 0.0 or dampening != 0):
        raise ValueError(
            f"Nesterov momentum needs momentum > 0 and dampening = 0; got {momentum=}, "
            f"{dampening=}."
        )

    def init(p):
        slots = {}
        if momentum:
            slots["momentum_buffer"] = jnp.zeros_like(p)
        if momentum and dampening:
            slots["started"] = jnp.zeros((), bool)  # PyTorch: momentum_buffer is not None
        return slots

    def update(p, g, slots, hyper):
        slots = dict(slots)
        if maximize:
            g = -g
        if weight_decay:
            g = g + weight_decay * p
        if momentum:
            mu = hyper["momentum"]
            buf = mu * slots["momentum_buffer"] + (1.0 - dampening) * g
            if dampening:
                buf = jnp.where(slots["started"], buf, g)
                slots["started"] = jnp.ones((), bool)
            slots["momentum_buffer"] = buf
            g = g + mu * buf if nesterov else buf
        return p - hyper["lr"] * g, slots

    given = {"lr": lr} | ({"momentum": momentum} if momentum else {})
    return per_parameter(init, update, given)
