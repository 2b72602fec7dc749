"""Connectionist temporal classification."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from .._dtypes import promoted
from ._checks import check_values, nan_unless
from ._reduce import check_reduction, reduce


def ctc_loss(
    log_probs: jax.Array,
    targets: jax.Array,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> jax.Array:
    """``torch.nn.functional.ctc_loss``.

    .. math:: \\ell_i = -\\log \\sum_{\\pi \\to y_i} \\prod_t p_{t, \\pi_t}

    over the paths :math:`\\pi` that are :math:`y_i` once repetitions and then blanks are
    dropped. PyTorch's gradient takes ``log_probs`` for the output of a log-softmax: it is
    :math:`p_{tc}` minus the share of the paths that are at :math:`c` at time :math:`t`, whose
    first term a normalised input cancels; ours has it too. It is NaN where a log probability
    is minus infinity, and everywhere in an example without a path.

    Args:
      log_probs: :math:`\\log p`, shape ``(T, N, C)`` or ``(T, C)``, floating.
      targets: labels :math:`y`, integers, shape ``(N, S)``, or one after the other,
        ``(sum(target_lengths),)``.
      input_lengths: steps of each example, at most T: integers, shape ``(N,)``, or ``()``
        without N.
      target_lengths: labels of each example, likewise.
      blank: class of the blank.
      reduction: ``"mean"`` divides each loss by the number of its labels, or 1, and their sum
        by :math:`N`; ``"sum"`` is not divided at all; ``"none"`` has shape ``(N,)`` or
        ``()``.
      zero_infinity: an example without any path, which has too many labels for its steps,
        has a loss and a gradient of 0, instead of infinity and NaN.

    Returns:
      Shape (), or ``(N,)`` for ``"none"``; the dtype of ``log_probs``. There is no second
      gradient, nor is there in PyTorch.

    Raises:
      TypeError: ``log_probs`` is not floating.
      ValueError: shapes do not fit, another ``reduction``, or ``blank``, a label or a length
        out of range, which PyTorch does not look for in labels; inside ``jax.jit`` the loss
        and its gradient are then NaN, see ``checked``.

    References:
      Graves et al., `Connectionist Temporal Classification
      <https://doi.org/10.1145/1143844.1143891>`_, 2006.
    """
    check_reduction(reduction)
    dtype, [logp] = promoted(log_probs=log_probs)
    if not (batched := logp.ndim == 3):
        logp = jnp.expand_dims(logp, 1)
    steps, batch, classes = logp.shape
    if not 0 <= blank < classes:
        raise ValueError(f"blank must be in [0, {classes}); got {blank}.")
    n_steps = _lengths("input_lengths", input_lengths, batch)
    n_labels = _lengths("target_lengths", target_lengths, batch)
    labels, most = _rows(targets, n_labels, batch)

    checks = (
        ("input_lengths", n_steps, lambda n: (n >= 0) & (n <= steps), f"0 to {steps}"),
        ("target_lengths", n_labels, lambda n: (n >= 0) & (n <= most), "of the targets"),
        ("targets", labels, lambda y: (y >= 0) & (y < classes), f"0 to {classes - 1}"),
    )
    valid = jnp.ones(batch, bool)
    for name, values, is_valid, interval in checks:
        check_values(name, values, is_valid, f"are out of the range {interval}.")
        valid &= jnp.all(is_valid(values).reshape(batch, -1), -1)

    blanks = jnp.full_like(labels, blank)
    path = jnp.stack([blanks, jnp.clip(labels, 0, classes - 1)], -1).reshape(batch, -1)
    path = jnp.concatenate([path, jnp.full_like(path, blank, shape=(batch, 1))], -1)
    losses = _negative_log_likelihood(
        zero_infinity, logp, path, jnp.asarray(n_steps), jnp.asarray(n_labels)
    )
    losses = losses * nan_unless(valid)
    if reduction == "mean":
        losses = losses / jnp.maximum(n_labels, 1).astype(losses.dtype)
    return reduce(losses if batched else losses[0], reduction, dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _negative_log_likelihood(zero_infinity: bool, logp, path, n_steps, n_labels):
    """Shape ``(N,)``.

    Args:
      logp: shape ``(T, N, C)``.
      path: the class of each state, blank, label, blank, ..., label, blank: ``(N, 2 S + 1)``.
      n_steps, n_labels: shape ``(N,)``.
    """
    return _forward(zero_infinity, logp, path, n_steps, n_labels)[0]


def _forward(zero_infinity, logp, path, n_steps, n_labels):
    before = _where_to_start(path, logp.dtype)

    def advance(before, logp_NC):
        after = _from_states_below(before, path) + jnp.take_along_axis(logp_NC, path, 1)
        return after, after

    _, alphas = lax.scan(advance, before, logp)
    alphas = jnp.concatenate([before[None], alphas])  # [t]: after t steps, (T + 1, N, L)
    at_end = jnp.take_along_axis(alphas, n_steps[None, :, None], 0)[0]
    nll = -_logsumexp(at_end + _where_to_end(path, n_labels, logp.dtype), 1)
    loss = jnp.where(nll == jnp.inf, 0, nll) if zero_infinity else nll
    return loss, (logp, path, n_steps, n_labels, alphas, nll)


def _backward(zero_infinity, residuals, g):
    logp, path, n_steps, n_labels, alphas, nll = residuals
    end = _where_to_end(path, n_labels, logp.dtype)
    rows = jnp.arange(path.shape[0])[:, None]

    def retreat(beta, now):
        """beta: log probability of the steps after this one, given the state."""
        t, logp_NC, alpha = now
        beta = jnp.where((t == n_steps - 1)[:, None], end, beta)
        share = jnp.exp(alpha + beta + nll[:, None])
        p = jnp.exp(logp_NC)
        grad = p - jnp.zeros_like(p).at[rows, path].add(share)
        grad = jnp.where(jnp.isneginf(logp_NC) | (nll == jnp.inf)[:, None], jnp.nan, grad)
        grad = jnp.where((t < n_steps)[:, None], grad * g[:, None], 0)
        emitted = beta + jnp.take_along_axis(logp_NC, path, 1)
        return _from_states_above(emitted, path), grad

    times = jnp.arange(logp.shape[0])
    _, grads = lax.scan(retreat, end, (times, logp, alphas[1:]), reverse=True)
    if zero_infinity:
        grads = jnp.where((nll == jnp.inf)[:, None], 0, grads)
    return grads, None, None, None


_negative_log_likelihood.defvjp(_forward, _backward)


def _where_to_start(path, dtype):
    """Log of 1 for the state before the first step, which leads to states 0 and 1."""
    return jnp.full(path.shape, -jnp.inf, dtype).at[:, 0].set(0)


def _where_to_end(path, n_labels, dtype):
    """Log of 1 for the states a path may end in: the last label and the blank after it."""
    state = jnp.arange(path.shape[1])
    last = 2 * n_labels[:, None]
    state = state[None]
    return jnp.where((state == last) | (state == last - 1), 0, -jnp.inf).astype(dtype)


def _from_states_below(alpha, path):
    """Log probability of stepping into each state: from it, the one below, or two below."""
    two = jnp.where(_skips(path), _shift(alpha, 2), -jnp.inf)
    return _logsumexp(jnp.stack([alpha, _shift(alpha, 1), two]), 0)


def _from_states_above(beta, path):
    two = jnp.where(_skips(path), beta, -jnp.inf)
    return _logsumexp(jnp.stack([beta, _shift(beta, -1), _shift(two, -2)]), 0)


def _skips(path):
    """Whether a state can be entered from two below: from another label over its blank."""
    return path != jnp.roll(path, 2, 1)


def _shift(states, by):
    """Move along the states, and fill with the logarithm of 0."""
    room = jnp.full_like(states[:, : abs(by)], -jnp.inf)
    if by > 0:
        return jnp.concatenate([room, states[:, :-by]], 1)
    return jnp.concatenate([states[:, -by:], room], 1)


def _logsumexp(x, axis):
    """``jax.nn.logsumexp`` without its care for signs and infinities above."""
    largest = jnp.max(x, axis, keepdims=True)
    largest = jnp.where(jnp.isneginf(largest), 0, largest)
    return jnp.log(jnp.sum(jnp.exp(x - largest), axis)) + jnp.squeeze(largest, axis)


def _lengths(name, lengths, batch):
    """Shape ``(N,)``; a NumPy array, unless it is traced."""
    lengths = lengths if isinstance(lengths, Tracer) else np.asarray(lengths)
    if lengths.ndim == 0 and batch == 1:
        lengths = lengths.reshape(1)
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"{name} are {batch} integers, one for each example; got {lengths.dtype} of shape "
            f"{lengths.shape}."
        )
    return lengths


def _rows(targets, n_labels, batch):
    """The labels, a row for each example and 0 behind its last, and how many it may have."""
    traced = any(isinstance(a, Tracer) for a in (targets, n_labels))
    np_ = jnp if traced else np
    targets = np_.asarray(targets)
    if targets.ndim == 2 and len(targets) == batch:
        rows, most = targets, targets.shape[1]
    elif targets.ndim == 1:  # one after the other
        size = targets.size
        start = np_.cumsum(n_labels) - n_labels
        most = size - start
        longest = size if isinstance(n_labels, Tracer) else max([0, *n_labels])
        index = start[:, None] + np_.arange(longest)[None]
        rows = np_.take(targets, np_.clip(index, 0, size - 1)) if size else 0 * index
    else:
        raise ValueError(
            f"targets have shape (N, S) or (sum(target_lengths),), with N={batch}; got "
            f"{targets.shape}."
        )
    used = np_.arange(rows.shape[1])[None] < n_labels[:, None]
    return np_.where(used, rows, 0), most
