"""The probability of a labelling: the sum over the paths that spell it, by a scan over time.

States are the labels with a blank before, between and after them. A path starts in the first
blank or label, ends in the last label or blank, and steps from a state to itself, to the next,
or over a blank to another label. Logarithms of probabilities throughout, shape (N, 2 S + 1).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def negative_log_likelihood(
    zero_infinity: bool,
    logp: jax.Array,
    path: jax.Array,
    n_steps: jax.Array,
    n_labels: jax.Array,
) -> jax.Array:
    """Minus the log probability of all paths, shape ``(N,)``; infinity if there is none.

    Args:
      zero_infinity: then 0 instead, with a gradient of 0 instead of NaN.
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
    nll = -jax.nn.logsumexp(at_end + _where_to_end(path, n_labels, logp.dtype), 1)
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


negative_log_likelihood.defvjp(_forward, _backward)


def _where_to_start(path, dtype):
    """Log of 1 for the state before the first step, which leads to states 0 and 1."""
    return jnp.full(path.shape, -jnp.inf, dtype).at[:, 0].set(0)


def _where_to_end(path, n_labels, dtype):
    """Log of 1 for the states a path may end in: the last label and the blank after it."""
    state = jnp.arange(path.shape[1])[None]
    last = 2 * n_labels[:, None]
    return jnp.where((state == last) | (state == last - 1), 0, -jnp.inf).astype(dtype)


def _from_states_below(alpha, path):
    """Log probability of stepping into each state: from it, the one below, or two below."""
    two = jnp.where(_skips(path), _shift(alpha, 2), -jnp.inf)
    return jax.nn.logsumexp(jnp.stack([alpha, _shift(alpha, 1), two]), 0)


def _from_states_above(beta, path):
    two = jnp.where(_skips(path), beta, -jnp.inf)
    return jax.nn.logsumexp(jnp.stack([beta, _shift(beta, -1), _shift(two, -2)]), 0)


def _skips(path):
    """Whether a state can be entered from two below: from another label over its blank."""
    return path != jnp.roll(path, 2, 1)


def _shift(states, by):
    """Move along the states, and fill with the logarithm of 0."""
    room = jnp.full_like(states[:, : abs(by)], -jnp.inf)
    if by > 0:
        return jnp.concatenate([room, states[:, :-by]], 1)
    return jnp.concatenate([states[:, -by:], room], 1)
