"""What L-BFGS remembers, and the direction that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import lax

from .._state import Hyperparams, PyTree


FLAT_PAIR = 1e-10  # a pair with less curvature than this is not remembered


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LBFGSState:
    """The ``state`` of ``torch.optim.LBFGS``, by PyTorch's names; at first all zeros.

    A vector of PyTorch's is a tree like params here, so that layouts and shardings carry
    over; its dtype is the widest of the parameters' and at least float32.
    """

    hyperparams: Hyperparams  # the learning rate
    func_evals: jax.Array  # shape=(), int32: evaluations of the closure
    n_iter: jax.Array  # shape=(), int32: inner iterations
    d: PyTree  # like params: the last direction
    t: jax.Array  # shape=(): the last step length
    old_dirs: PyTree  # like params, (history_size, ...): changes of the gradient, oldest first
    old_stps: PyTree  # like params, (history_size, ...): the steps that caused them
    ro: jax.Array  # shape=(history_size,): 1 / (y . s)
    num_old: jax.Array  # shape=(), int32: rows in use; the others are zero
    H_diag: jax.Array  # shape=(): scale of the initial inverse Hessian
    prev_flat_grad: PyTree  # like params: the gradient before the last move
    prev_loss: jax.Array  # shape=(): the loss before the last move


def remember(state: LBFGSState, grad: PyTree) -> LBFGSState:
    """Append the pair (s, y) of the last move, if it curves upward; forget the oldest if full.

    Before the first move t is zero, so there is no pair, and the direction will be -g.
    """
    y = jax.tree.map(jnp.subtract, grad, state.prev_flat_grad)
    s = scale(state.t, state.d)
    ys = dot(y, s)

    def append(state: LBFGSState) -> LBFGSState:
        full = state.num_old == state.ro.size
        row = jnp.where(full, state.ro.size - 1, state.num_old)

        def add(rows: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.where(full, jnp.roll(rows, -1, axis=0), rows).at[row].set(new)

        return replace(
            state,
            old_dirs=jax.tree.map(add, state.old_dirs, y),
            old_stps=jax.tree.map(add, state.old_stps, s),
            ro=add(state.ro, 1.0 / ys),
            num_old=row + 1,
            H_diag=ys / dot(y, y),
        )

    return lax.cond(ys > FLAT_PAIR, append, lambda state: state, state)


def direction(state: LBFGSState, grad: PyTree) -> PyTree:
    """The two loops: minus the approximate inverse Hessian times the gradient."""
    y, s, ro, newest = state.old_dirs, state.old_stps, state.ro, state.num_old - 1

    def newest_to_oldest(j: jax.Array, carry: tuple) -> tuple:
        q, al = carry
        i = newest - j
        alpha = ro[i] * dot(_row(s, i), q)
        return shift(q, -alpha, _row(y, i)), al.at[i].set(alpha)

    def oldest_to_newest(i: jax.Array, r: PyTree) -> PyTree:
        beta = ro[i] * dot(_row(y, i), r)
        return shift(r, al[i] - beta, _row(s, i))

    q = jax.tree.map(jnp.negative, grad)
    q, al = lax.fori_loop(0, state.num_old, newest_to_oldest, (q, jnp.zeros_like(ro)))
    return lax.fori_loop(0, state.num_old, oldest_to_newest, scale(state.H_diag, q))


def dot(a: PyTree, b: PyTree) -> jax.Array:
    """The inner product of two trees. No matrix unit, whose float32 may not be one."""
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
    return sum(jax.tree.leaves(products))  # pyright: ignore[reportReturnType]


def scale(t: jax.Array, d: PyTree) -> PyTree:
    return jax.tree.map(lambda x: t * x, d)


def shift(x: PyTree, t: jax.Array, d: PyTree) -> PyTree:
    """``x + t d``, in the dtypes of x."""
    return jax.tree.map(lambda x, d: (x.astype(d.dtype) + t * d).astype(x.dtype), x, d)


def _row(rows: PyTree, i: jax.Array) -> PyTree:
    return jax.tree.map(lambda r: r[i], rows)
