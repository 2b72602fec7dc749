"""A JAX training loop, described: what the harness, the trainer and the benchmarks run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from ._init import init_state
from ._loss_fn import LossFn
from ._policy import Policy, policy_of
from ._scaler import GradScaler
from ._select import Selector
from ._state import PyTree, TrainState, View
from ._step import StepOptions, TrainStep, make_observed_step, make_train_step
from .sharding._sharding import Sharding


@dataclass(frozen=True)
class OpaqueLoop:
    """Somebody's own training step; see ``JaxLoop.opaque``."""

    step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
    state: PyTree | Callable[[], PyTree]
    view: Callable[[PyTree, PyTree], View]


@dataclass(frozen=True)
class JaxLoop:
    """A JAX loop in instep's terms; the fields are the arguments of ``make_train_step``.

    Args:
      loss_fn: ``(params, batch)`` or ``(params, buffers, batch, rng)``, returning a
        floating scalar or a ``Loss``.
      tx: an ``optax.GradientTransformation``.
      opt_state: pytree, where it stands at the start, or a callable without arguments that
        makes it, which a parity run calls in the precision of each walk: that of a PyTorch
        optimizer in mid-training is ``lambda: bridge.optimizer_from_torch(...)[1]``. None:
        ``tx.init``.
      params: pytree of floating arrays at the start.
      buffers: pytree of arrays that the forward pass rewrites, at the start.
      batches: iterable of batches, each a pytree as ``make_train_step`` takes it. Not used
        inside a ``parity.Pair``, where both sides get the batches of the PyTorch loop.
      accumulate, clip_grad_norm, clip_grad_value, policy, matmul_precision, trainable,
        drop_last, mesh, sharding: as for ``make_train_step``.
      rng: root key of ``jax.random``, shape (), if the model draws.
      scaler: at the start; None without.
      apply: ``(params, buffers, inputs) -> outputs``, the forward pass in evaluation.

    Raises:
      TypeError: ``policy`` is no ``Policy``, name or None.
      ValueError: no policy has that name.
    """

    loss_fn: LossFn
    tx: optax.GradientTransformation
    params: PyTree
    buffers: PyTree = None
    batches: Iterable[PyTree] | None = None
    accumulate: int = 1
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    matmul_precision: str | None = None
    trainable: Selector | None = None
    rng: jax.Array | None = None
    scaler: GradScaler | None = None
    apply: Callable[[PyTree, PyTree, Any], Any] | None = None
    opt_state: PyTree | Callable[[], PyTree] = None
    drop_last: bool = True
    policy: Policy | str | None = None
    mesh: Mesh | None = None
    sharding: Sharding | None = None

    def __post_init__(self):
        policy_of(self.policy)

    @staticmethod
    def opaque(
        step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
        state: PyTree | Callable[[], PyTree],
        view: Callable[[PyTree, PyTree], View],
    ) -> OpaqueLoop:
        """Describe a training step that somebody already has.

        Args:
          step: ``(state, batch) -> (state, metrics)`` that JAX can trace, jitted or not,
            donating or not.
          state: any pytree that holds the parameters, the buffers and the optimizer state, or
            a callable without arguments that makes it. The harness casts it to float64; made
            by a callable, a learning rate inside it is float64 from the start, not the
            float32 one that the cast would keep.
          view: ``(state, metrics) -> View``: where in them the loss, the parameters and,
            if they are there, the buffers, gradients and optimizer state are found. What
            it leaves None is not compared, and reported so.
        """
        return OpaqueLoop(step, state, view)


def initial_state(loop: JaxLoop) -> TrainState:
    """``init_state`` of what ``loop`` starts from, and its optimizer state if it has one.

    Raises:
      ValueError: ``loop.opt_state`` is not a state of ``loop.tx`` for these parameters.
    """
    opt_state = loop.opt_state() if callable(loop.opt_state) else loop.opt_state
    return init_state(
        loop.params, loop.tx, loop.buffers, loop.rng, loop.scaler, opt_state=opt_state
    )


def train_step(loop: JaxLoop) -> TrainStep:
    """``make_train_step`` of ``loop``."""
    return make_train_step(loop.loss_fn, loop.tx, **vars(step_options(loop)))


def observed_step(loop: JaxLoop) -> Callable:
    """The same step, not jitted, with its ``View``."""
    return make_observed_step(loop.loss_fn, loop.tx, step_options(loop))


def step_options(loop: JaxLoop) -> StepOptions:
    """The fields of ``loop`` that are options of its step."""
    return StepOptions(
        loop.accumulate,
        loop.clip_grad_norm,
        loop.clip_grad_value,
        loop.matmul_precision,
        loop.trainable,
        loop.drop_last,
        policy_of(loop.policy),
        loop.mesh,
        loop.sharding,
    )
