"""The training step with what a person who watches it wants to see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import jax

from .._clip import clip_grad_norm
from .._loop import JaxLoop, initial_state, observed_step
from .._state import Hyperparams, Metrics, PyTree, TrainState
from .._step import TrainStep
from ..optim import AveragedModel, averaged_model, ema_avg_fn, update_parameters
from ..sharding import place
from ..sharding._layout import layout
from ..sharding._sharded_step import ShardedStep


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Seen(Metrics):
    """``Metrics`` whose ``grad_norm`` is always there, and the rates that the step used."""

    lr: tuple[jax.Array, ...] = ()  # each shape=(): one for every group


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WithAverage:
    """The buffers of a training that also averages its weights."""

    buffers: PyTree  # of the loop
    average: AveragedModel


def seen_step(loop: JaxLoop, ema: float | None = None) -> TrainStep:
    """``train_step`` of ``loop``, jitted and donated, with ``Seen`` for its metrics.

    What it does to the state is what ``train_step`` does, on the mesh of ``loop`` too.

    Args:
      loop: as for ``instep.train``.
      ema: decay of an average of the weights, which is taken after every step, as by
        ``torch.optim.swa_utils.get_ema_multi_avg_fn``; None: no average.

    Raises:
      TypeError, ValueError: as ``instep.make_train_step``; or ``ema`` is not in [0, 1].
    """
    observed = observed_step(loop)
    average = None if ema is None else ema_avg_fn(ema)

    def step(state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        kept = state.buffers
        if average is not None:
            state = replace(state, buffers=kept.buffers)
        rates = learning_rates(state.opt_state)
        state, metrics, view = observed(state, batch)
        norm = metrics.grad_norm
        if norm is None:
            norm = clip_grad_norm(view.grads, math.inf)[1]
        if average is not None:
            now = update_parameters(kept.average, state.params, state.buffers, average)
            state = replace(state, buffers=WithAverage(state.buffers, now))
        known = {f.name: getattr(metrics, f.name) for f in fields(metrics)}
        return state, Seen(**known | {"grad_norm": norm, "lr": rates})

    if loop.mesh is not None:
        where = layout(loop.mesh, loop.sharding)
        return ShardedStep(step, where, loop.accumulate, donate=True)
    return jax.jit(step, donate_argnums=0)


def seen_state(loop: JaxLoop, ema: float | None = None) -> TrainState:
    """The first state of ``seen_step(loop, ema)``, on the mesh of ``loop``.

    Args:
      loop, ema: as for ``seen_step``.
    """
    state = initial_state(loop)
    if ema is not None:
        average = averaged_model(state.params, state.buffers)
        state = replace(state, buffers=WithAverage(state.buffers, average))
    return state if loop.mesh is None else place(state, loop.mesh, loop.sharding)


def evaluated(state: TrainState) -> tuple[PyTree, PyTree]:
    """``(params, buffers)`` to evaluate: the averaged ones where there is an average.

    Args:
      state: of ``seen_state``, or after any number of steps.
    """
    if isinstance(state.buffers, WithAverage):
        return state.buffers.average.params, state.buffers.average.buffers
    return state.params, state.buffers


def learning_rates(opt_state: PyTree) -> tuple[jax.Array, ...]:
    """The rates that the next update uses, group by group; those that are data."""
    found = jax.tree.leaves(opt_state, is_leaf=_has_rate)
    return tuple(_rate(x) for x in found if _has_rate(x))


def _has_rate(x: Any) -> bool:
    if isinstance(x, Hyperparams):
        return "lr" in x.values
    injected = getattr(x, "hyperparams", None)  # of optax.inject_hyperparams
    return isinstance(injected, Mapping) and "learning_rate" in injected


def _rate(x: Any) -> jax.Array:
    return x.values["lr"] if isinstance(x, Hyperparams) else x.hyperparams["learning_rate"]
