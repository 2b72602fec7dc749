"""RMSprop."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate_and_momentum
from ._per_parameter import per_parameter
from ._scalars import lerp


def rmsprop(
    lr: Hyperparam = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: Hyperparam = 0.0,
    centered: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """``torch.optim.RMSprop``.

    .. math::
        g &\\leftarrow g + \\lambda p \\\\
        v &\\leftarrow \\alpha v + (1 - \\alpha) g^2, \\qquad
        a \\leftarrow \\alpha a + (1 - \\alpha) g \\\\
        r &= \\sqrt{v - a^2 \\text{ if centered else } v} + \\epsilon \\\\
        b &\\leftarrow \\mu b + g / r, \\qquad p \\leftarrow p - \\gamma b

    ``optax.rmsprop`` has :math:`\\epsilon` under the root and :math:`\\alpha = 0.9` by default,
    and with a schedule its momentum remembers old learning rates.

    Args:
      lr: learning rate :math:`\\gamma`, a float or ``schedule(count)``.
      alpha: :math:`\\alpha`, at least 0.
      eps: :math:`\\epsilon`, added to the root.
      weight_decay: :math:`\\lambda`, added to the gradient (L2).
      momentum: :math:`\\mu`, a float or ``schedule(count)``.
      centered: subtract the square of the mean gradient.
      maximize: ascend: negate the gradient, before weight decay.

    Returns:
      A transformation with the slots ``step`` (int32), ``square_avg`` and, where they are
      used, ``momentum_buffer`` and ``grad_avg``.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Hinton, `Neural Networks for Machine Learning, lecture 6e
      <https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf>`_, 2012.
      Graves, `Generating Sequences with Recurrent Neural Networks
      <https://arxiv.org/abs/1308.0850>`_, 2013 (centered).
    """
    lr, momentum = learning_rate_and_momentum(lr, momentum)
    alpha = fixed("alpha", alpha, "[0, inf)")
    eps = fixed("eps", eps, "[0, inf)")
    weight_decay = fixed("weight_decay", weight_decay, "[0, inf)")

    def init(p):
        used = {"square_avg": True, "momentum_buffer": bool(momentum), "grad_avg": centered}
        slots = {name: jnp.zeros_like(p) for name, wanted in used.items() if wanted}
        return {"step": jnp.zeros((), jnp.int32)} | slots

    def update(p, g, slots, hyper):
        slots = slots | {"step": slots["step"] + 1}
        if maximize:
            g = -g
        if weight_decay:
            g = g + weight_decay * p
        variance = slots["square_avg"] = alpha * slots["square_avg"] + (1.0 - alpha) * g * g
        if centered:
            slots["grad_avg"] = lerp(slots["grad_avg"], g, 1.0 - alpha)
            variance = variance - slots["grad_avg"] * slots["grad_avg"]
        root = jnp.sqrt(variance) + eps
        if not momentum:
            return p - hyper["lr"] * g / root, slots
        slots["momentum_buffer"] = hyper["momentum"] * slots["momentum_buffer"] + g / root
        return p - hyper["lr"] * slots["momentum_buffer"], slots

    given = {"lr": lr} | ({"momentum": momentum} if momentum else {})
    return per_parameter(init, update, given)
