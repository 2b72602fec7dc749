"""From a batch to the gradients that the optimizer receives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ._accumulate import backward, mean, zero_grad
from ._clip import clip_grad_norm, clip_grad_value
from ._loss_fn import LossFn
from ._policy import Policy, check_scaled, under_policy
from ._scaler import GradScaler
from ._select import Selector
from ._state import Accumulator, PyTree, TrainState
from ._trees import named_leaves
from .sharding._layout import layout
from .sharding._replicas import on_mesh
from .sharding._sharding import Sharding


@dataclass(frozen=True)
class StepOptions:
    """The options of ``make_train_step``, as one record."""

    accumulate: int = 1
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    matmul_precision: str | None = None
    trainable: Selector | None = None
    drop_last: bool = True
    policy: Policy | None = None
    mesh: Mesh | None = None
    sharding: Sharding | None = None


class Evaluation(NamedTuple):
    """What zero_grad, forward, loss, backward, unscale, mean and clip leave behind."""

    acc: Accumulator  # averaged, before clipping
    clipped_grads: PyTree  # as the optimizer receives them; those of acc without a clip
    grad_norm: jax.Array | None  # shape=(): before clipping
    weight: jax.Array  # shape=(): sum of weights
    buffers: PyTree
    aux: PyTree  # Loss.metrics
    found_inf: jax.Array | None  # shape=(), bool; None without a scaler
    scaler: GradScaler | None  # for the next step


def evaluate(
    loss_fn: LossFn, state: TrainState, batch: PyTree, options: StepOptions
) -> Evaluation:
    """zero_grad, k times (forward, loss, backward), unscale, mean, clip."""
    check_scaled(options.policy, state.scaler)
    k = 1 if options.accumulate == 1 else _length(batch, options)
    window = _backward_window
    if options.mesh is not None:
        window = on_mesh(window, layout(options.mesh, options.sharding))
    total, buffers, aux = window(loss_fn, state, batch, options, k)
    acc, scaler, found_inf = total, state.scaler, None
    if scaler is not None:
        acc, found_inf = _unscaled(scaler, total, k)
        scaler = scaler.update(found_inf)
    acc = mean(acc)
    grads, norm = acc.grads, None
    if options.clip_grad_norm is not None:
        grads, norm = clip_grad_norm(grads, options.clip_grad_norm)
    if options.clip_grad_value is not None:
        grads = clip_grad_value(grads, options.clip_grad_value)
    return Evaluation(acc, grads, norm, total.weight, buffers, aux, found_inf, scaler)


def _backward_window(
    loss_fn: LossFn, state: TrainState, batch: PyTree, options: StepOptions, k: int
) -> tuple[Accumulator, PyTree, PyTree]:
    """zero_grad, then k times (forward, loss, backward), the buffers passed on in order."""
    scale = None if state.scaler is None else state.scaler.scale / k
    loss_fn = under_policy(loss_fn, options.policy)
    accumulate = None if options.policy is None else options.policy.accumulate

    def forward_loss_backward(carry, inputs):
        acc, buffers = carry
        index, microbatch = inputs
        rng = _microbatch_rng(state, index)
        acc, out = backward(loss_fn, acc, state.params, buffers, microbatch, rng, scale=scale)
        return (acc, out.buffers), out.metrics

    carry = zero_grad(state.params, options.trainable, accumulate), state.buffers
    if options.accumulate == 1:
        (acc, buffers), aux = forward_loss_backward(carry, (0, batch))
    else:
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


def _length(batch: PyTree, options: StepOptions) -> int:
    """The number of microbatches in a window, which only a last one may fall short of."""
    most = options.accumulate
    shapes = {name: np.shape(leaf) for name, leaf in named_leaves(batch).items()}
    lengths = {shape[:1] for shape in shapes.values()}
    allowed = {(most,)} if options.drop_last else {(k,) for k in range(1, most + 1)}
    if len(lengths) != 1 or not lengths <= allowed:
        wrong = {name: s for name, s in shapes.items() if s[:1] != (most,)} or "no leaves"
        fewer = "" if options.drop_last else " (one number of them for all, 1 at least)"
        raise ValueError(
            f"with accumulate={most} every leaf of the batch has shape ({most}, b, ...)"
            f"{fewer}; found {wrong}. Make it with instep.split(batch, {most}) or "
            f"instep.stack(microbatches)."
        )
    return lengths.pop()[0]
