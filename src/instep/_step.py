"""The training step: zero_grad, forward, loss, backward, step, as one pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from ._evaluate import StepOptions, evaluate
from ._loss_fn import LossFn, canonical
from ._policy import Policy, policy_of
from ._precision import at_precision
from ._select import Selector
from ._state import Accumulator, Metrics, PyTree, TrainState, View
from ._trees import check_like
from ._update import Closure, evaluations, hold, update
from .sharding._layout import layout
from .sharding._sharded_step import ShardedStep
from .sharding._sharding import Sharding


TrainStep = Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]


def step(
    tx: optax.GradientTransformation,
    state: TrainState,
    acc: Accumulator,
    buffers: PyTree = None,
    found_inf: jax.Array | None = None,
    closure: Closure | None = None,
    extra: Mapping[str, Any] | None = None,
) -> TrainState:
    """Apply the accumulated gradients, as they are.

    PyTorch: ``optimizer.step(); scheduler.step()``. Nothing is divided or cleared here:
    without ``mean`` the optimizer receives the sum.

    Args:
      tx: the transformation whose ``init`` made ``state.opt_state``.
      state: the state before; not modified.
      acc: gradients like ``state.params``; they are cast to the dtypes of the parameters.
      buffers: like ``state.buffers``, after the last microbatch; None keeps those.
      found_inf: bool, shape (), from ``scaler.unscale``. Where it is true the step is skipped:
        parameters and optimizer state hold, while schedules, buffers and ``state.step`` go on,
        as in a PyTorch loop. None never skips.
      closure: ``params -> (loss, grads)``, for a ``tx`` that evaluates the loss at other
        parameters too: ``instep.optim.lbfgs``, the line searches of optax.
      extra: further arguments of ``tx.update``: ``{"touched": ...}`` of ``sparse_adam``.

    Raises:
      ValueError: the gradients do not match ``state.params``; or a leaf has no gradient,
        and ``tx``, which is not of ``instep.optim``, cannot pass over it.
    """
    check_like("acc.grads", acc.grads, "state.params", state.params)
    grads = jax.tree.map(
        lambda p, g: None if g is None else g.astype(p.dtype), state.params, acc.grads
    )
    params, opt_state = update(
        tx,
        grads,
        state.params,
        state.opt_state,
        evaluations(acc.loss, grads, closure) | dict(extra or {}),
    )
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
    policy: Policy | str | None = None,
    matmul_precision: str | None = None,
    trainable: Selector | None = None,
    drop_last: bool = True,
    mesh: Mesh | None = None,
    sharding: Sharding | None = None,
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
      tx: an ``optax.GradientTransformation``; schedules live inside it. One that evaluates
        the loss again, ``instep.optim.lbfgs``, does so on the same batch with the same random
        key; the buffers are those after the first evaluation.
      accumulate: microbatches per optimizer step, k. With k > 1 every leaf of the batch has
        shape ``(k, b, ...)``: see ``split`` and ``stack``. Buffers pass through the
        microbatches in order.
      clip_grad_norm: ``max_norm`` of ``clip_grad_norm``, applied to the averaged gradients;
        ``math.inf`` only measures.
      clip_grad_value: ``value`` of ``clip_grad_value``, applied after ``clip_grad_norm``.
      policy: mixed precision: None leaves dtypes alone; ``"bf16"`` and ``"fp16"`` keep
        parameters, loss and gradients in float32 and give all of ``loss_fn`` its parameters
        and batch in bfloat16 or float16, without the lists of operators that
        ``torch.autocast`` has; or a ``Policy``.
      matmul_precision: ``jax.default_matmul_precision`` for the step, for example
        ``"highest"`` or ``"tensorfloat32"``.
      trainable: the leaves of ``params`` that are trained: a regular expression on their
        names, a callable ``(name, leaf) -> bool`` or a mask of bools. The others are not
        differentiated, not in the norm and not touched by ``tx``, as after
        ``requires_grad_(False)``; a ``tx`` from optax needs ``optax.masked`` then.
        Optimizer state for them is kept unless ``param_groups`` leaves them to None.
      drop_last: whether every window is full. With False one of fewer microbatches, the last
        of an epoch, is taken as well and divided by its own length; that is traced once more.
      mesh: devices to train on, of ``jax.make_mesh``; None: one device. The batch is then the
        global one, its examples split over the replicas (on axis 1 with k > 1), and
        ``metrics.aux`` has an axis of replicas (after that of microbatches).
      sharding: what the mesh is used for: ``instep.sharding.data_parallel``, ``fsdp`` or
        ``by_name``; None: data parallel over the whole mesh. See ``data_parallel`` for what
        differs from one device.
      donate: reuse the memory of the state that is passed in, which is then consumed.

    Returns:
      A jitted ``train_step(state, batch) -> (state, metrics)``, traced once per shape and
      dtype. It never touches ``batch``. With a mesh it puts on it what is not there yet.

    Raises:
      TypeError: ``loss_fn`` has another signature; and, when called, parameters are not in the
        dtype of the policy.
      ValueError: ``accumulate`` is below 1, no policy has that name, or ``sharding`` does not
        fit ``mesh``; and, when called, the leading axis of a leaf of the batch is not
        ``accumulate``, the replicas do not divide its examples, or the policy computes in
        float16 and the state has no scaler.
    """
    options = StepOptions(
        accumulate,
        clip_grad_norm,
        clip_grad_value,
        matmul_precision,
        trainable,
        drop_last,
        policy_of(policy),
        mesh,
        sharding,
    )
    observed = make_observed_step(loss_fn, tx, options)

    def train_step(state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        state, metrics, _ = observed(state, batch)
        return state, metrics

    if mesh is not None:
        return ShardedStep(train_step, layout(mesh, sharding), accumulate, donate)
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
    if options.mesh is not None:
        layout(options.mesh, options.sharding)  # what does not fit is an error here too
    elif options.sharding is not None:
        raise ValueError("sharding= needs mesh=, for example jax.make_mesh((8,), ('data',)).")

    def train_step(state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics, View]:
        def closure(params: PyTree) -> tuple[jax.Array, PyTree]:
            if state.scaler is not None:
                raise ValueError(
                    "tx evaluates the loss again, which a GradScaler does not support, as in "
                    "PyTorch. Use another optimizer, or no scaler."
                )
            again = evaluate(loss_fn, replace(state, params=params), batch, options)
            return again.acc.loss, again.clipped_grads

        seen = evaluate(loss_fn, state, batch, options)
        acc = replace(seen.acc, grads=seen.clipped_grads)
        state = step(tx, state, acc, seen.buffers, seen.found_inf, closure)
        state = replace(state, scaler=seen.scaler)

        metrics = Metrics(acc.loss, seen.weight, seen.grad_norm, seen.aux, seen.found_inf)
        clips = seen.clipped_grads is not seen.acc.grads
        view = View(
            loss=acc.loss,
            params=state.params,
            buffers=state.buffers,
            opt_state=state.opt_state,
            grads=seen.acc.grads,
            clipped_grads=seen.clipped_grads if clips else None,
            grad_norm=seen.grad_norm,
            scaler=seen.scaler,
            skipped=seen.found_inf,
        )
        return state, metrics, view

    return at_precision(train_step, options.matmul_precision)
