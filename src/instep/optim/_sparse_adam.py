"""SparseAdam: Adam on the rows that a step touches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate_and_betas
from ._per_parameter import per_parameter
from ._scalars import bias_correction


def sparse_adam(
    lr: Hyperparam = 1e-3,
    betas: tuple[Hyperparam, float] = (0.9, 0.999),
    eps: float = 1e-8,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """``torch.optim.SparseAdam``: rows that are not touched keep moments and values.

    .. math::
        m &\\leftarrow m + (1 - \\beta_1)(g - m), \\qquad
        v \\leftarrow v + (1 - \\beta_2)(g^2 - v) \\\\
        p &\\leftarrow p - \\gamma\\,\\frac{\\sqrt{1 - \\beta_2^t}}{1 - \\beta_1^t}
             \\frac{m}{\\sqrt v + \\epsilon}

    in the touched rows only; :math:`\\epsilon` is added before the bias correction, and t
    counts all steps. PyTorch knows the rows from the indices of a sparse gradient, whatever
    its values. JAX's gradients are dense, so the rows are given::

        updates, opt_state = tx.update(grads, opt_state, params, touched={"weight": mask})

    **Without** ``touched`` the rows whose gradient is not zero are taken, which differs from
    PyTorch for a row that was looked up and received a gradient of exactly zero. So it is in
    ``make_train_step``; ``step`` takes ``extra={"touched": ...}``.
    optax has no such rule.

    Args:
      lr: learning rate :math:`\\gamma`, above 0, a float or ``schedule(count)``.
      betas: :math:`(\\beta_1, \\beta_2)`, each in [0, 1); the first may be a schedule.
      eps: :math:`\\epsilon`, above 0.
      maximize: ascend: negate the gradient.

    Returns:
      A transformation with the slots ``step`` (int32), ``exp_avg`` and ``exp_avg_sq``. Its
      ``update`` takes ``touched``: a tree like params of boolean arrays, each with the
      leading axes of its parameter, or None.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range.

    References:
      Kingma and Ba, `Adam: A Method for Stochastic Optimization
      <https://arxiv.org/abs/1412.6980>`_, 2014.
    """
    lr, beta1, beta2 = learning_rate_and_betas(lr, betas, "(0, inf)")
    eps = fixed("eps", eps, "(0, inf)")

    def init(p):
        return {
            "step": jnp.zeros((), jnp.int32),
            "exp_avg": jnp.zeros_like(p),
            "exp_avg_sq": jnp.zeros_like(p),
        }

    def update(p, g, slots, hyper, touched=None):
        beta1, t = hyper["beta1"], slots["step"] + 1
        rows = _rows(g, touched)
        if maximize:
            g = -g
        m, v = slots["exp_avg"], slots["exp_avg_sq"]
        exp_avg = jnp.where(rows, m + (1.0 - beta1) * (g - m), m)
        exp_avg_sq = jnp.where(rows, v + (1.0 - beta2) * (g * g - v), v)
        root = jnp.sqrt(bias_correction(beta2, t)).astype(p.dtype)
        step_size = hyper["lr"] * root / bias_correction(beta1, t).astype(p.dtype)
        p = jnp.where(rows, p - step_size * (exp_avg / (jnp.sqrt(exp_avg_sq) + eps)), p)
        return p, {"step": t, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}

    return per_parameter(init, update, {"lr": lr, "beta1": beta1}, extra=("touched",))


def _rows(g: jax.Array, touched: jax.Array | None) -> jax.Array:
    """A mask that broadcasts over ``g``."""
    if touched is None:
        trailing = tuple(range(1, g.ndim))
        return jnp.any(g != 0.0, axis=trailing, keepdims=True)
    if touched.shape != g.shape[: touched.ndim]:
        raise ValueError(
            f"touched has shape {touched.shape} for a parameter of shape {g.shape}; it has "
            f"the leading axes of its parameter, for example {g.shape[:1]}."
        )
    return touched.reshape(touched.shape + (1,) * (g.ndim - touched.ndim))
