"""Muon: momentum, orthogonalised."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax

from ._arguments import Hyperparam, fixed, learning_rate_and_momentum
from ._per_parameter import per_parameter
from ._scalars import lerp, norm


def muon(
    lr: Hyperparam = 1e-3,
    weight_decay: float = 0.1,
    momentum: Hyperparam = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
) -> optax.GradientTransformation:
    """``torch.optim.Muon``, for matrices only.

    .. math::
        b &\\leftarrow \\mu b + (1 - \\mu) g, \\qquad
        u = \\mu b + (1 - \\mu) g \\text{ if nesterov else } b \\\\
        p &\\leftarrow (1 - \\gamma\\lambda)\\, p - \\gamma\\, r\\,
             \\operatorname{NewtonSchulz}(u)

    where r is :math:`\\sqrt{\\max(1, n / m)}` for a matrix of shape (n, m), PyTorch's
    (out, in): a kernel stored as (in, out) gives another r. The iteration runs in bfloat16,
    as PyTorch's does. ``optax.contrib.muon`` runs it in the dtype of the parameter, corrects
    the bias of the momentum, and hands vectors to AdamW.

    Args:
      lr: learning rate :math:`\\gamma`, a float or ``schedule(count)``.
      weight_decay: :math:`\\lambda`, decoupled.
      momentum: :math:`\\mu`, a float or ``schedule(count)``.
      nesterov: Nesterov momentum.
      ns_coefficients: of the polynomial of ``newton_schulz``.
      eps: smallest norm to divide by.
      ns_steps: iterations, below 100.
      adjust_lr_fn: r as above for ``"original"`` or None; :math:`0.2 \\sqrt{\\max(n, m)}` for
        ``"match_rms_adamw"``.

    Returns:
      A transformation with the slot ``momentum_buffer``.

    Raises:
      TypeError: a value is not a number, or a leaf of params is not real floating.
      ValueError: a value is out of range, or a leaf of params is not a matrix.

    References:
      Jordan et al., `Muon: An optimizer for hidden layers in neural networks
      <https://kellerjordan.github.io/posts/muon/>`_, 2024. Liu et al., `Muon is Scalable for
      LLM Training <https://arxiv.org/abs/2502.16982>`_, 2025.
    """
    lr, momentum = learning_rate_and_momentum(lr, momentum)
    weight_decay = fixed("weight_decay", weight_decay, "[0, inf)")
    eps = fixed("eps", eps)
    if len(ns_coefficients) != 3:
        raise ValueError(f"ns_coefficients are three numbers; got {ns_coefficients}.")
    if ns_steps not in range(100):
        raise ValueError(f"Invalid ns_steps: {ns_steps}. It must be an integer in [0, 100).")
    if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
        raise ValueError(
            f"adjust_lr_fn is None, 'original' or 'match_rms_adamw'; got {adjust_lr_fn!r}."
        )

    def init(p):
        if p.ndim != 2:
            raise ValueError(
                f"Muon takes matrices only; found a parameter of shape {p.shape}. Give the "
                f"others to another optimizer: instep.optim.param_groups."
            )
        return {"momentum_buffer": jnp.zeros_like(p)}

    def update(p, g, slots, hyper):
        lr, mu = hyper["lr"], hyper["momentum"]
        buf = lerp(slots["momentum_buffer"], g, 1.0 - mu)
        u = lerp(g, buf, mu) if nesterov else buf
        u = newton_schulz(u, ns_coefficients, ns_steps, eps).astype(p.dtype)
        n, m = p.shape
        ratio = (
            0.2 * math.sqrt(max(n, m))
            if adjust_lr_fn == "match_rms_adamw"
            else (math.sqrt(max(1.0, n / m)))
        )
        p = p * (1.0 - lr * weight_decay)
        return p - lr * ratio * u, {"momentum_buffer": buf}

    return per_parameter(init, update, {"lr": lr, "momentum": momentum})


def newton_schulz(
    matrix: jax.Array, coefficients: tuple[float, float, float], steps: int, eps: float
) -> jax.Array:
    """Move the singular values of a matrix close to 1.

    .. math:: X \\leftarrow a X + (b A + c A^2) X, \\qquad A = X X^T

    Each product is summed in float32 and rounded to bfloat16, as PyTorch's is.

    Args:
      matrix: shape (n, m).
      coefficients: (a, b, c).
      steps: iterations.
      eps: smallest norm to divide by.

    Returns:
      bfloat16, shape (n, m).
    """
    a, b, c = coefficients

    def rounded(x):  # a cast there and back is one that the compiler may leave out
        return jax.lax.reduce_precision(x.astype(jnp.float32), exponent_bits=8, mantissa_bits=7)

    def product(x, y):
        return jnp.matmul(x, y, precision="highest")

    x = rounded(matrix)
    if matrix.shape[0] > matrix.shape[1]:
        x = x.T
    x = rounded(x / jnp.maximum(rounded(norm(x)), eps))
    for _ in range(steps):
        gram = rounded(product(x, x.T))
        polynomial = rounded(b * gram + c * product(gram, gram))
        x = rounded(a * x + product(polynomial, x))
    if matrix.shape[0] > matrix.shape[1]:
        x = x.T
    return x.astype(jnp.bfloat16)
