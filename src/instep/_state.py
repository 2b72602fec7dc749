"""The records of a training step. Data only: pytrees whose every field is a leaf or a tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax


if TYPE_CHECKING:
    from ._scaler import GradScaler

PyTree = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything one optimizer step hands to the next.

    ``train_step: (TrainState, batch) -> (TrainState, Metrics)`` is a pure function of it;
    what PyTorch keeps inside ``model``, ``optimizer`` and ``scheduler``, and saves by their
    ``state_dict`` (``model.state_dict()``), is all here.
    """

    step: jax.Array  # shape=(), int32: optimizer steps taken
    params: PyTree  # what is differentiated; any pytree of floating arrays
    buffers: PyTree = None  # tree of what the forward pass rewrites (BatchNorm statistics)
    opt_state: PyTree = None  # the tree that tx.init(params) makes
    rng: jax.Array | None = (
        None  # shape=(), root key; a microbatch draws from fold_in(fold_in(rng, step), i)
    )
    scaler: GradScaler | None = None  # what the loss is multiplied by, and when it changes


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Accumulator:
    """``torch.Tensor.grad``, made visible: the sums that ``backward`` adds to."""

    # like params, at least float32: sum of d total / d params; None: not differentiated
    grads: PyTree
    loss: jax.Array  # shape=(): sum of totals
    weight: jax.Array  # shape=(): sum of weights; what mean() divides by
    count: jax.Array  # shape=(), int32: microbatches added


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Loss:
    """What a ``loss_fn`` may return instead of a plain scalar.

    PyTorch: what ``loss.backward()`` is called on, and the number it is divided by before.
    The gradient is that of ``total``; ``mean`` divides the accumulated gradients by the
    accumulated ``weight``. Two accounts of the mean follow:

    * ``Loss(mean_loss)``: the weight is 1, k microbatches are divided by k. This is
      PyTorch's ``(loss / k).backward()``.
    * ``Loss(sum_loss, n)``: the weight is the number of terms, so ragged or masked
      microbatches add up to the mean over the whole batch, not to a mean of means.
    """

    total: jax.Array  # shape=(), floating: differentiated
    weight: Any = 1.0  # shape=(): not differentiated
    buffers: PyTree = None  # tree of buffers after this forward pass; None: unchanged
    metrics: PyTree = None  # any tree to look at; not differentiated


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Metrics:
    """What a step reports.

    With accumulation the leaves of ``aux`` have a leading axis of microbatches.
    """

    loss: jax.Array  # shape=(): total / weight over the step
    weight: jax.Array  # shape=(): sum of weights over the step
    grad_norm: jax.Array | None = None  # shape=(): before clipping; None without clip_grad_norm
    aux: PyTree = None  # the tree of Loss.metrics
    skipped: jax.Array | None = None  # shape=(), bool: a gradient was not finite; of a scaler


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hyperparams:
    """The counterpart of ``optimizer.param_groups[i]["lr"]`` and of ``scheduler.last_epoch``.

    ``values["lr"]`` is what the next update uses; after each update a scheduled value
    becomes ``schedule(count)``. The count is the scheduler's own: a step that a gradient
    scaler skips advances it while every parameter's ``step`` holds.
    """

    count: jax.Array  # shape=(), int32: updates so far
    values: dict[str, jax.Array]  # each shape=(), float64 under x64, else float32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PlateauState:
    """The attributes of ``torch.optim.lr_scheduler.ReduceLROnPlateau``, and the rate.

    A clock too: it goes on where a gradient scaler skips a step.
    """

    lr: jax.Array  # shape=() or (groups,), float64 under x64, else float32
    best: jax.Array  # shape=(), of the same dtype
    num_bad_epochs: jax.Array  # shape=(), int32
    cooldown_counter: jax.Array  # shape=(), int32
    last_epoch: jax.Array  # shape=(), int32: updates so far


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class View:
    """What one optimizer step lets an observer see, stage by stage; None: not visible."""

    loss: Any  # shape=(): mean loss of the step
    params: PyTree  # the tree after the step
    buffers: PyTree = None  # the tree after the step
    opt_state: PyTree = None  # the tree after the step
    grads: PyTree = None  # like params: accumulated, unscaled and averaged, before clipping
    clipped_grads: PyTree = None  # like params, as the optimizer receives them
    grad_norm: Any = None  # shape=(): before clipping
    scaler: PyTree = None  # tree after the step: a GradScaler, or its scale and tracker
    skipped: Any = None  # shape=(): whether the scaler skipped the step
