"""The training step: zero_grad, forward, loss, backward, step, as one pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._accumulate import backward, mean, zero_grad
from ._clip import (
    clip_grad_norm as _clip_grad_norm,
    clip_grad_value as _clip_grad_value,
)
from ._dtypes import dtype_of
from ._loss_fn import LossFn, canonical
from ._state import Accumulator, Loss, Metrics, PyTree, TrainState, View
from ._trees import check_like, check_params, named_leaves


TrainStep = Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]


def init_state(
    params: PyTree,
    tx: optax.GradientTransformation,
    buffers: PyTree = None,
    rng: jax.Array | None = None,
) -> TrainState:
    """The state before the first step.

    Every leaf is copied and no two leaves share memory, so the state may be donated while
    the caller keeps ``params`` and ``buffers``.

    Args:
      params: pytree of floating arrays.
      tx: an ``optax.GradientTransformation``.
      buffers: pytree of arrays that the forward pass rewrites.
      rng: root key, ``jax.random.key(seed)``, if the model draws.

    Raises:
      ValueError: ``params`` has no leaves.
      TypeError: a leaf of ``params`` is not real floating.
    """
    check_params(params)
    params, buffers = _copy(params), _copy(buffers)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        buffers=buffers,
        opt_state=_copy(tx.init(params)),
        rng=_copy(rng),
    )


def step(
    tx: optax.GradientTransformation,
    state: TrainState,
    acc: Accumulator,
    buffers: PyTree = None,
) -> TrainState:
    """Apply the accumulated gradients, as they are.

    PyTorch: ``optimizer.step(); scheduler.step()``. Nothing is divided or cleared here:
    without ``mean`` the optimizer receives the sum.

    Args:
      tx: the transformation whose ``init`` made ``state.opt_state``.
      state: the state before; not modified.
      acc: gradients like ``state.params``; they are cast to the dtypes of the parameters.
      buffers: the buffers after the last microbatch; None keeps ``state.buffers``.

    Raises:
      ValueError: the gradients do not match ``state.params``.
    """
    check_like("acc.grads", acc.grads, "state.params", state.params)
    grads = jax.tree.map(
        lambda p, g: None if g is None else g.astype(p.dtype), state.params, acc.grads
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    return replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        buffers=state.buffers if buffers is None else buffers,
        opt_state=opt_state,
    )


def make_train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    clip_grad_norm: float | None = None,
    clip_grad_value: float | None = None,
    matmul_precision: str | None = None,
    donate: bool = True,
) -> TrainStep:
    """Fuse zero_grad, k times (forward, loss, backward), mean, clip and step into one call.

    PyTorch::

        optimizer.zero_grad()
        for microbatch in window:
            (loss_fn(model, microbatch) / accumulate).backward()
        clip_grad_norm_(model.parameters(), clip_grad_norm)
        optimizer.step()
        scheduler.step()

    Args:
      loss_fn: ``(params, batch)`` or ``(params, buffers, batch, rng)``, returning a
        floating scalar or a ``Loss``.
      tx: an ``optax.GradientTransformation``; schedules live inside it.
      accumulate: microbatches per optimizer step, k. With k > 1 every leaf of the batch has
        shape ``(k, b, ...)``: see ``split`` and ``stack``. Buffers pass through the
        microbatches in order.
      clip_grad_norm: ``max_norm`` of ``clip_grad_norm``, applied to the averaged gradients;
        ``math.inf`` only measures.
      clip_grad_value: ``value`` of ``clip_grad_value``, applied after ``clip_grad_norm``.
      matmul_precision: ``jax.default_matmul_precision`` for the step, for example
        ``"highest"`` or ``"tensorfloat32"``.
      donate: reuse the memory of the state that is passed in, which is then consumed.

    Returns:
      A jitted ``train_step(state, batch) -> (state, metrics)``, traced once per shape and
      dtype. It never touches ``batch``.

    Raises:
      TypeError: ``loss_fn`` has another signature.
      ValueError: ``accumulate`` is below 1; and, when called, the leading axis of a leaf of
        the batch is not ``accumulate``.
    """
    observed = make_observed_step(
        loss_fn,
        tx,
        accumulate=accumulate,
        clip_grad_norm=clip_grad_norm,
        clip_grad_value=clip_grad_value,
        matmul_precision=matmul_precision,
    )

    def train_step(state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        state, metrics, _ = observed(state, batch)
        return state, metrics

    return jax.jit(train_step, donate_argnums=(0,) if donate else ())


def make_observed_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    clip_grad_norm: float | None = None,
    clip_grad_value: float | None = None,
    matmul_precision: str | None = None,
) -> Callable[[TrainState, PyTree], tuple[TrainState, Metrics, View]]:
    """The step itself, not jitted, which also shows what happened inside.

    ``make_train_step`` is this function without the ``View``; the compiler removes what
    only the view needs.
    """
    canonical(loss_fn)  # a wrong signature is an error here, not at the first step
    if accumulate < 1:
        raise ValueError(f"accumulate must be at least 1; got {accumulate=}.")

    def train_step(state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics, View]:
        acc, buffers, aux = _backward_window(loss_fn, state, batch, accumulate)
        acc = mean(acc)
        grads, norm = acc.grads, None
        if clip_grad_norm is not None:
            grads, norm = _clip_grad_norm(grads, clip_grad_norm)
        if clip_grad_value is not None:
            grads = _clip_grad_value(grads, clip_grad_value)
        state = step(tx, state, replace(acc, grads=grads), buffers)

        metrics = Metrics(acc.loss, acc.weight, norm, aux)
        view = View(
            loss=acc.loss,
            params=state.params,
            buffers=state.buffers,
            opt_state=state.opt_state,
            grads=acc.grads,
            clipped_grads=None if grads is acc.grads else grads,
            grad_norm=norm,
        )
        return state, metrics, view

    return _at_precision(train_step, matmul_precision)


def make_eval_step(
    loss_fn: LossFn, *, matmul_precision: str | None = None
) -> Callable[[TrainState, PyTree], Loss]:
    """Forward and loss only: no gradient, and the buffers stay as they are.

    PyTorch: ``with torch.no_grad(): loss_fn(model, batch)``. Whether layers behave as in
    training is decided inside ``loss_fn``, as ``model.eval()`` does there.

    Args:
      loss_fn: as for ``make_train_step``; it receives ``rng=None``, so a model that draws in
        evaluation is an error.
      matmul_precision: as for ``make_train_step``.

    Returns:
      A jitted ``eval_step(state, batch) -> Loss``. Sum ``total`` and ``weight`` over the
      batches and divide once: exact also when the last batch is smaller.
    """
    call = canonical(loss_fn)

    def eval_step(state: TrainState, batch: PyTree) -> Loss:
        out = call(state.params, state.buffers, batch, None)
        return Loss(jnp.asarray(out.total), jnp.asarray(out.weight), metrics=out.metrics)

    return jax.jit(_at_precision(eval_step, matmul_precision))


def _backward_window(
    loss_fn: LossFn, state: TrainState, batch: PyTree, k: int
) -> tuple[Accumulator, PyTree, PyTree]:
    """zero_grad, then k times (forward, loss, backward), the buffers passed on in order."""

    def forward_loss_backward(carry, inputs):
        acc, buffers = carry
        index, microbatch = inputs
        rng = _microbatch_rng(state, index)
        acc, out = backward(loss_fn, acc, state.params, buffers, microbatch, rng)
        return (acc, out.buffers), out.metrics

    carry = zero_grad(state.params), state.buffers
    if k == 1:
        (acc, buffers), aux = forward_loss_backward(carry, (0, batch))
    else:
        _check_leading_axis(batch, k)
        inputs = jnp.arange(k), batch
        (acc, buffers), aux = jax.lax.scan(forward_loss_backward, carry, inputs)
    return acc, buffers, aux


def _microbatch_rng(state: TrainState, index) -> jax.Array | None:
    """A function of (root key, step, index) alone, so that a resumed run draws the same."""
    if state.rng is None:
        return None
    return jax.random.fold_in(jax.random.fold_in(state.rng, state.step), index)


def _check_leading_axis(batch: PyTree, accumulate: int) -> None:
    shapes = {name: np.shape(leaf) for name, leaf in named_leaves(batch).items()}
    wrong = {name: s for name, s in shapes.items() if s[:1] != (accumulate,)}
    if wrong or not shapes:
        raise ValueError(
            f"with {accumulate=} every leaf of the batch has shape ({accumulate}, b, ...); "
            f"found {wrong or 'no leaves'}. Make it with instep.split(batch, {accumulate}) "
            f"or instep.stack(microbatches)."
        )


def _at_precision(fn, matmul_precision: str | None):
    if matmul_precision is None:
        return fn

    def at_precision(*args):
        with jax.default_matmul_precision(matmul_precision):
            return fn(*args)

    return at_precision


def _copy(tree: PyTree) -> PyTree:
    """Fresh, strongly typed device arrays: a weakly typed leaf would be traced twice."""

    def copy(x):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jnp.array(x, copy=True)
        return jnp.array(x, dtype=dtype_of(x), copy=True)

    return jax.tree.map(copy, tree)
