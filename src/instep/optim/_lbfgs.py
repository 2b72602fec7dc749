"""Limited-memory BFGS, with PyTorch's inner loop and line search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import index
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from .._dtypes import dtype_of, wide
from .._state import PyTree
from .._trees import check_params
from . import _hyperparams
from ._arguments import Hyperparam, fixed, learning_rate
from ._lbfgs_memory import LBFGSState, direction, dot, remember, scale, shift
from ._wolfe import Point, strong_wolfe


Closure = Callable[[PyTree], tuple[jax.Array, PyTree]]


class Walk(NamedTuple):
    """The inner loop under way: what lives as long as one ``.step(closure)``."""

    state: LBFGSState
    params: PyTree
    loss: jax.Array
    grad: PyTree
    n_iter: jax.Array  # int32: inner iterations of this step
    evals: jax.Array  # int32: evaluations of this step
    done: jax.Array  # bool


def lbfgs(
    lr: Hyperparam = 1,
    max_iter: int = 20,
    max_eval: int | None = None,
    tolerance_grad: float = 1e-7,
    tolerance_change: float = 1e-9,
    history_size: int = 100,
    line_search_fn: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``torch.optim.LBFGS``: one update is one ``optimizer.step(closure)``.

    Up to ``max_iter`` times, with :math:`s_i` the last moves, :math:`y_i` the changes of the
    gradient that they caused, and :math:`\\rho_i = 1 / y_i^T s_i`, newest pair :math:`k`:

    .. math::
        q &\\leftarrow -g, &
        \\alpha_i &= \\rho_i s_i^T q, &
        q &\\leftarrow q - \\alpha_i y_i & i &= k, \\ldots, 1 \\\\
        d &\\leftarrow \\frac{y_k^T s_k}{y_k^T y_k}\\, q, &
        \\beta_i &= \\rho_i y_i^T d, &
        d &\\leftarrow d + (\\alpha_i - \\beta_i) s_i & i &= 1, \\ldots, k \\\\
        p &\\leftarrow p + t d, &
        t &= \\begin{cases} \\gamma \\min(1, 1 / \\|g\\|_1) & \\text{first of all} \\\\
                            \\gamma & \\text{after} \\end{cases}

    or, with ``line_search_fn="strong_wolfe"``, :math:`t` found by a search that begins there.
    A pair with :math:`y^T s \\le 10^{-10}` is not remembered.

    It needs the loss and a closure, a pure function of the parameters::

        closure = jax.value_and_grad(loss_fn)
        loss, grads = closure(params)  # PyTorch's first call of the closure
        updates, state = tx.update(grads, state, params, value=loss, closure=closure)

    The first direction comes from ``grads``, those after it from what ``closure`` returns:
    in an ``optax.chain`` a transformation before this one sees the first alone.

    ``optax.lbfgs`` makes one iteration per update and has no tolerances; it remembers 10
    pairs where PyTorch has 100, and drops one only if :math:`y^T s = 0`; its first step is
    scaled by :math:`\\min(1, 1 / \\|g\\|_2)`; its line search is another.

    Args:
      lr: learning rate :math:`\\gamma`, a float or ``schedule(count)``, one count per update.
      max_iter: iterations per update, at most.
      max_eval: evaluations per update, ``value`` among them; no iteration begins when so
        many are done. ``max_iter * 5 // 4`` if None.
      tolerance_grad: end where no element of the gradient is larger.
      tolerance_change: end where no element moves further, where the loss changes by less,
        or where the slope :math:`g^T d` is flatter.
      history_size: pairs to remember; the memory is ``2 * history_size`` times params.
      line_search_fn: ``"strong_wolfe"``, or None for the fixed step length.

    Returns:
      A transformation whose state is an ``LBFGSState``. A gradient that is None counts as
      zeros, as a ``p.grad`` of None does: the parameter may move all the same, along the
      directions remembered.

    Raises:
      TypeError: a value other than ``lr`` is not a number, or a count is not an integer.
      ValueError: a value is out of range, or ``line_search_fn`` is unknown; from ``update``:
        params, value or closure is missing, or the closure's loss is not a scalar.

    References:
      Liu and Nocedal, `On the limited memory BFGS method for large scale optimization
      <https://doi.org/10.1007/BF01589116>`_, 1989. Nocedal and Wright, `Numerical
      Optimization <https://doi.org/10.1007/978-0-387-40065-5>`_, 2006, algorithms 7.4, 7.5.
    """
    given: Mapping[str, Any] = {"lr": learning_rate(lr)}
    max_iter = _integer("max_iter", max_iter)
    max_eval = max_iter * 5 // 4 if max_eval is None else _integer("max_eval", max_eval)
    tolerance_grad = fixed("tolerance_grad", tolerance_grad)
    tolerance_change = fixed("tolerance_change", tolerance_change)
    history_size = _integer("history_size", history_size)
    if line_search_fn not in (None, "strong_wolfe"):
        raise ValueError(
            f"line_search_fn must be 'strong_wolfe' or None; got {line_search_fn!r}."
        )
    if history_size < 1:
        raise ValueError(f"Invalid history_size: {history_size}. It must be at least 1.")
    if line_search_fn and max_iter > 0 and max_eval < 1:
        raise ValueError(
            f"Invalid max_eval: {max_eval}. A line search needs at least 1 evaluation."
        )

    def init_fn(params: PyTree) -> Any:
        check_params(params)
        dtype = _dtype(params)
        vector = jax.tree.map(lambda p: jnp.zeros(np.shape(p), dtype), params)
        rows = jax.tree.map(lambda p: jnp.zeros((history_size, *np.shape(p)), dtype), params)
        zero, none = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
        return LBFGSState(
            hyperparams=_hyperparams.init(given),
            func_evals=none,
            n_iter=none,
            d=vector,
            t=zero,
            old_dirs=rows,
            old_stps=rows,
            ro=jnp.zeros(history_size, dtype),
            num_old=none,
            H_diag=jnp.ones((), dtype),
            prev_flat_grad=vector,
            prev_loss=zero,
        )

    def update_fn(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        value: Any = None,
        closure: Closure | None = None,
        **_: Any,
    ) -> Any:
        _check_given(params, value, closure)
        params = jax.tree.map(jnp.asarray, params)
        dtype = _dtype(params)
        lr = state.hyperparams.values["lr"].astype(dtype)

        def read(loss: Any, grads: PyTree) -> tuple[jax.Array, PyTree]:
            shapes = jax.tree.map(jnp.shape, loss)
            if shapes != ():
                raise ValueError(
                    f"the loss must be a scalar; got shape {shapes}. closure(params) "
                    f"returns (loss, grads), as jax.value_and_grad(loss_fn) does."
                )
            return jnp.asarray(loss).astype(dtype), _dense(grads, params, dtype)

        def evaluate(params: PyTree) -> tuple[jax.Array, PyTree]:
            return read(*closure(params))  # pyright: ignore[reportOptionalCall]

        def iterate(walk: Walk) -> Walk:
            """One direction, and the move along it unless it is flat."""
            state = remember(walk.state, walk.grad)
            d = direction(state, walk.grad)
            gtd = dot(walk.grad, d)
            t = jnp.where(state.n_iter == 0, _first_length(walk.grad), 1.0) * lr
            state = replace(
                state,
                n_iter=state.n_iter + 1,
                d=d,
                t=t,
                prev_flat_grad=walk.grad,
                prev_loss=walk.loss,
            )
            walk = walk._replace(state=state, n_iter=walk.n_iter + 1)
            flat = gtd > -tolerance_change
            return lax.cond(flat, lambda w: w._replace(done=~w.done), move, walk)

        def move(walk: Walk) -> Walk:
            last = walk.n_iter >= max_iter
            step = search if line_search_fn else stride
            params, t, loss, grad, evals = step(walk, last)
            state = replace(walk.state, t=t, func_evals=walk.state.func_evals + evals)
            evals = walk.evals + evals
            still = _largest(scale(t, state.d)) <= tolerance_change
            level = jnp.abs(loss - state.prev_loss) < tolerance_change
            optimal = _largest(grad) <= tolerance_grad
            done = last | (evals >= max_eval) | optimal | still | level
            return Walk(state, params, loss, grad, walk.n_iter, evals, done)

        def stride(walk: Walk, last: jax.Array):
            """A step of fixed length; where the last one leads, the next update will see."""
            t = walk.state.t
            params = shift(walk.params, t, walk.state.d)
            loss, grad = lax.cond(
                last, lambda _: (walk.loss, walk.grad), lambda p: evaluate(p), params
            )
            return params, t, loss, grad, jnp.where(last, 0, 1)

        def search(walk: Walk, last: jax.Array):
            """A step whose length a line search finds, together with what is there."""
            x, d = walk.params, walk.state.d

            def at(t: jax.Array) -> Point:
                loss, grad = evaluate(shift(x, t, d))
                return Point(t, loss, grad, dot(grad, d))

            start = Point(jnp.zeros_like(lr), walk.loss, walk.grad, dot(walk.grad, d))
            best, evals = strong_wolfe(
                at, start, walk.state.t, _largest(d), max_eval - walk.evals
            )
            return shift(x, best.t, d), best.t, best.f, best.g, evals

        loss, grad = read(value, updates)
        state = replace(state, func_evals=state.func_evals + 1)
        done = _largest(grad) <= tolerance_grad
        none = jnp.zeros((), jnp.int32)
        walk = Walk(state, params, loss, grad, none, none + 1, done)
        walk = lax.while_loop(lambda w: ~w.done & (w.n_iter < max_iter), iterate, walk)
        moved = jax.tree.map(jnp.subtract, walk.params, params)
        hyper = _hyperparams.advance(walk.state.hyperparams, given)
        return moved, replace(walk.state, hyperparams=hyper)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _first_length(grad: PyTree) -> jax.Array:
    """``min(1, 1 / |g|_1)``; 1 where the norm is NaN, as Python's ``min`` has it."""
    inverse = 1.0 / sum(jnp.sum(jnp.abs(g)) for g in jax.tree.leaves(grad))
    return jnp.where(inverse < 1.0, inverse, 1.0)


def _largest(tree: PyTree) -> jax.Array:
    """The largest magnitude in a tree; NaN if there is one."""
    largest = [jnp.max(jnp.abs(x), initial=0.0) for x in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack(largest))


def _dtype(params: PyTree) -> Any:
    """The dtype of the state: the widest of the parameters', as a flat vector would have."""
    leaves = jax.tree.leaves(params)
    return max((wide(dtype_of(p)) for p in leaves), key=lambda d: d.itemsize)


def _dense(grads: PyTree, params: PyTree, dtype: Any) -> PyTree:
    """A tree like params, in ``dtype``; zeros where there is no gradient."""
    leaves, treedef = jax.tree.flatten(params)
    pairs = zip(treedef.flatten_up_to(grads), leaves, strict=True)
    return treedef.unflatten(
        [
            jnp.zeros_like(p, dtype) if g is None else jnp.asarray(g).astype(dtype)
            for g, p in pairs
        ]
    )


def _integer(name: str, value: Any) -> int:
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}.") from None


def _check_given(params: PyTree, value: Any, closure: Closure | None) -> None:
    arguments = {"params": params, "value": value, "closure": closure}
    missing = [name for name, given in arguments.items() if given is None]
    if missing:
        raise ValueError(
            f"LBFGS evaluates the loss at new parameters, so update needs {missing} too: with "
            f"closure = jax.value_and_grad(loss_fn) and loss, grads = closure(params), call "
            f"tx.update(grads, state, params, value=loss, closure=closure)."
        )
