"""The training step: zero_grad, forward, loss, backward, step, as one pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._accumulate import backward, mean, zero_grad
from ._clip import clip_grad_norm as _clip_grad_norm, clip_grad_value as _clip_grad_value
from ._loss_fn import LossFn, canonical
from ._precision import at_precision
from ._scaler import GradScaler
from ._select import Selector
from ._state import Accumulator, Metrics, PyTree, TrainState, View
from ._trees import check_like, named_leaves
from ._update import hold, update


TrainStep = Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]


@dataclass(frozen=True)
class StepOptions:
    """The options of ``make_train_step``, as one record."""

    accumulate: int = 1
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    matmul_precision: str | None = None
    trainable: Selector | None = None


def step(
    tx: optax.GradientTransformation,
    state: TrainState,
    acc: Accumulator,
    buffers: PyTree = None,
    found_inf: jax.Array | None = None,
) -> TrainState:
    """Apply the accumulated gradients, as they are.

    PyTorch: ``optimizer.step(); scheduler.step()``. Nothing is divided or cleared here:
    without ``mean`` the optimizer receives the sum.

    Args:
      tx: the transformation whose ``init`` made ``state.opt_state``.
      state: the state before; not modified.
      acc: gradients like ``state.params``; they are cast to the dtypes of the parameters.
      buffers: the buffers after the last microbatch; None keeps ``state.buffers``.
      found_inf: from ``scaler.unscale``. Where it is true the step is skipped: parameters
        and optimizer state hold, while schedules, buffers and ``state.step`` go on, as in a
        PyTorch loop. None never skips.

    Raises:
      ValueError: the gradients do not match ``state.params``; or a leaf has no gradient,
        and ``tx``, which is not of ``instep.optim``, cannot pass over it.
    """
    check_like("acc.grads", acc.grads, "state.params", state.params)
    grads = jax.tree.map(
        lambda p, g: None if g is None else g.astype(p.dtype), state.params, acc.grads
    )
    params, opt_state = update(tx, grads, state.params, state.opt_state)
    if found_inf is not None:
        params = hold(found_inf, state.params, params)
        opt_state = hold(found_inf, state.opt_state, opt_state)
    return replace(
        state,
        step=state.step + 1,
        params=params,
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
    trainable: Selector | None = None,
    donate: bool = True,
) -> TrainStep:
    """Fuse zero_grad, k times (forward, loss, backward), mean, clip and step into one call.

    PyTorch::

        optimizer.zero_grad()
        for microbatch in window:
            scaler.scale(loss_fn(model, microbatch) / accumulate).backward()
        scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), clip_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()

    The lines of the scaler are those of ``state.scaler``; without one they are
    ``loss.backward()`` and ``optimizer.step()``.

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
      trainable: the leaves of ``params`` that are trained: a regular expression on their
        names, a callable ``(name, leaf) -> bool`` or a mask of bools. The others are not
        differentiated, not in the norm and not touched by ``tx``, as after
        ``requires_grad_(False)``; a ``tx`` from optax needs ``optax.masked`` then.
      donate: reuse the memory of the state that is passed in, which is then consumed.

    Returns:
      A jitted ``train_step(state, batch) -> (state, metrics)``, traced once per shape and
      dtype. It never touches ``batch``.

    Raises:
      TypeError: ``loss_fn`` has another signature.
      ValueError: ``accumulate`` is below 1; and, when called, the leading axis of a leaf of
        the batch is not ``accumulate``.
    """
    options = StepOptions(
        accumulate, clip_grad_norm, clip_grad_value, matmul_precision, trainable
    )
    observed = make_observed_step(loss_fn, tx, options)

    def train_step(state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        state, metrics, _ = observed(state, batch)
        return state, metrics

    return jax.jit(train_step, donate_argnums=(0,) if donate else ())


def make_observed_step(
    loss_fn: LossFn, tx: optax.GradientTransformation, options: StepOptions
) -> Callable[[TrainState, PyTree], tuple[TrainState, Metrics, View]]:
    """The step itself, not jitted, which also shows what happened inside.

    ``make_train_step`` is this function without the ``View``; the compiler removes what
    only the view needs.
    """
    canonical(loss_fn)  # a wrong signature is an error here, not at the first step
    if options.accumulate < 1:
        raise ValueError(f"accumulate must be at least 1; got {options.accumulate}.")

    def train_step(state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics, View]:
        total, buffers, aux = _backward_window(loss_fn, state, batch, options)
        acc, scaler, skipped = total, state.scaler, None
        if scaler is not None:
            acc, skipped = _unscaled(scaler, total, options.accumulate)
            scaler = scaler.update(skipped)
        acc = mean(acc)
        grads, norm = acc.grads, None
        if options.clip_grad_norm is not None:
            grads, norm = _clip_grad_norm(grads, options.clip_grad_norm)
        if options.clip_grad_value is not None:
            grads = _clip_grad_value(grads, options.clip_grad_value)
        state = step(tx, state, replace(acc, grads=grads), buffers, skipped)
        state = replace(state, scaler=scaler)

        metrics = Metrics(acc.loss, total.weight, norm, aux, skipped)
        view = View(
            loss=acc.loss,
            params=state.params,
            buffers=state.buffers,
            opt_state=state.opt_state,
            grads=acc.grads,
            clipped_grads=None if grads is acc.grads else grads,
            grad_norm=norm,
            scaler=scaler,
            skipped=skipped,
        )
        return state, metrics, view

    return at_precision(train_step, options.matmul_precision)


def _backward_window(
    loss_fn: LossFn, state: TrainState, batch: PyTree, options: StepOptions
) -> tuple[Accumulator, PyTree, PyTree]:
    """zero_grad, then k times (forward, loss, backward), the buffers passed on in order."""

    k = options.accumulate
    scale = None if state.scaler is None else state.scaler.scale / k

    def forward_loss_backward(carry, inputs):
        acc, buffers = carry
        index, microbatch = inputs
        rng = _microbatch_rng(state, index)
        acc, out = backward(loss_fn, acc, state.params, buffers, microbatch, rng, scale=scale)
        return (acc, out.buffers), out.metrics

    carry = zero_grad(state.params, options.trainable), state.buffers
    if k == 1:
        (acc, buffers), aux = forward_loss_backward(carry, (0, batch))
    else:
        _check_leading_axis(batch, k)
        inputs = jnp.arange(k), batch
        (acc, buffers), aux = jax.lax.scan(forward_loss_backward, carry, inputs)
    return acc, buffers, aux


def _unscaled(scaler: GradScaler, total: Accumulator, k: int) -> tuple[Accumulator, jax.Array]:
    """Undo the scale; of the ``/ k`` in it, loss and weight get their share."""
    grads, found_inf = scaler.unscale(total.grads)
    acc = replace(total, grads=grads, loss=total.loss / k, weight=total.weight / k)
    return acc, found_inf


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
