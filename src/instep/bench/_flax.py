"""The loop that Flax's own examples have: nnx.Optimizer, nnx.value_and_grad, nnx.jit."""

from __future__ import annotations

from typing import Any

import jax
import optax
from flax import nnx

from .._precision import at_precision
from ._by_hand import accumulated, check, clip, optimizer
from ._contender import Contender, refuse
from ._jax_side import JaxSide, contender, jax_side
from ._problem import Problem


def usual(problem: Problem, option: str) -> Contender:
    """One ``nnx.jit`` call for every microbatch; ``optax.MultiSteps`` where it accumulates."""
    del option
    if problem.flax is None:
        refuse("flax", "it has no Flax model to train in its usual loop; a workload has one")
    side = jax_side(problem)
    check(side.loop, "flax")
    inner, opt_state, note = optimizer(side)
    if opt_state is not None:
        refuse("flax", "its optimizer has a state at the start")
    model, loss_fn = problem.flax.model, problem.flax.loss_fn
    nnx.update(model, side.loop.params)
    if side.loop.buffers is not None:
        nnx.update(model, side.loop.buffers)
    trained = nnx.Optimizer(model, _transformation(side, inner), wrt=nnx.Param)

    def train_step(model: nnx.Module, optimizer: nnx.Optimizer, batch: Any) -> jax.Array:
        loss, grads = nnx.value_and_grad(loss_fn)(model, batch)
        optimizer.update(model, grads)
        return loss

    k, train_step = side.loop.accumulate, at_precision(train_step, side.loop.matmul_precision)
    batches = side.microbatches()
    if side.double:
        return _checked(side, (model, trained), train_step, batches, note)
    jitted = nnx.jit(train_step)

    def step(state: Any, microbatches: list[Any]) -> tuple[Any, Any]:
        losses = [jitted(model, trained, microbatch) for microbatch in microbatches]
        return state, sum(losses) / k if k > 1 else losses[0]

    def standing(state: Any) -> Any:
        del state
        return nnx.state(model, nnx.Param), _buffers(side, model)

    return contender(side, None, step, standing, {"optimizer": note}, batches)


def _transformation(side: JaxSide, tx: optax.GradientTransformation) -> Any:
    if side.loop.accumulate == 1:
        return optax.chain(clip(side.loop), tx)
    return accumulated(side.loop, tx).gradient_transformation()


def _checked(
    side: JaxSide, objects: Any, train_step: Any, batches: list[Any], note: str
) -> Contender:
    """The same ``train_step`` as a function of its state alone, which can be lifted."""
    graphdef, state = nnx.split(objects)

    def pure(state: Any, batch: Any) -> tuple[Any, Any]:
        model, optimizer = nnx.merge(graphdef, state, copy=True)
        loss = train_step(model, optimizer, batch)
        return nnx.state((model, optimizer)), loss

    micro = side.jit(pure)

    def step(state: Any, microbatches: list[Any]) -> tuple[Any, Any]:
        total = 0.0
        for microbatch in microbatches:
            state, loss = micro(state, microbatch)
            total = total + loss
        return state, total / len(microbatches)

    def standing(state: Any) -> Any:
        model, _ = nnx.merge(graphdef, state, copy=True)
        return nnx.state(model, nnx.Param), _buffers(side, model)

    return contender(side, state, step, standing, {"optimizer": note}, batches)


def _buffers(side: JaxSide, model: nnx.Module) -> Any:
    return None if side.loop.buffers is None else nnx.state(model, nnx.BatchStat)
