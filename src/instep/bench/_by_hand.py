"""The step as somebody writes it by hand in jax and optax, in one call or with MultiSteps.

Nothing of instep but the two dialects that PyTorch's numbers need: what it adds to the norm
when it clips, and a loss that brings its own weight.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._loop import JaxLoop, initial_state
from .._loss_fn import canonical
from .._precision import at_precision
from .._select import selected
from .._state import PyTree
from ._contender import Contender, refuse
from ._jax_side import JaxSide, Step, contender, jax_side
from ._problem import Problem


CLIP_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_ divides by norm + 1e-6; optax does not


def plain(problem: Problem, option: str) -> Contender:
    """One jitted, donated call: scan over the microbatches, average, clip, update."""
    del option
    side = jax_side(problem)
    check(side.loop, "jax-plain")
    tx, opt_state, note = optimizer(side)
    params, buffers = side.start()
    state = (params, buffers, tx.init(params) if opt_state is None else opt_state)
    step = side.jit(step_by_hand(side.loop, tx))
    return contender(
        side, state, step, lambda state: state[:2], {"optimizer": note}, side.batches
    )


def multi_steps(problem: Problem, option: str) -> Contender:
    """``optax.MultiSteps``: a jitted, donated call for every microbatch."""
    del option
    side = jax_side(problem)
    loop, k = side.loop, side.loop.accumulate
    check(loop, "multisteps")
    if k == 1:
        refuse("multisteps", "it accumulates over 1 microbatch, where MultiSteps does nothing")
    inner, opt_state, note = optimizer(side)
    if opt_state is not None:
        refuse("multisteps", "its optimizer has a state at the start")
    params, buffers = side.start()
    tx = accumulated(loop, inner)
    micro = side.jit(one_microbatch(loop, tx))

    def step(state: Any, microbatches: list[Any]) -> tuple[Any, Any]:
        total = 0.0
        for microbatch in microbatches:
            state, loss = micro(state, microbatch)
            total = total + loss
        return state, total / k

    state = (params, buffers, tx.init(params))
    return contender(
        side, state, step, lambda s: s[:2], {"optimizer": note}, side.microbatches()
    )


def step_by_hand(loop: JaxLoop, tx: optax.GradientTransformation) -> Step:
    """``(params, buffers, opt_state), batch -> the same, loss``."""
    loss_and_grads = _loss_and_grads(loop)
    clipped = clip(loop)

    def step(state: Any, batch: PyTree) -> tuple[Any, Any]:
        params, buffers, opt_state = state

        def microstep(carry: Any, microbatch: PyTree) -> tuple[Any, None]:
            grads, total, weight, buffers = carry
            out, g = loss_and_grads(params, buffers, microbatch)
            grads = jax.tree.map(jnp.add, grads, g)
            return (grads, total + out[0], weight + out[1], out[2]), None

        if loop.accumulate == 1:
            (total, weight, buffers), grads = loss_and_grads(params, buffers, batch)
        else:
            zeros = jax.tree.map(jnp.zeros_like, params)
            (grads, total, weight, buffers), _ = jax.lax.scan(
                microstep, (zeros, jnp.zeros(()), jnp.zeros(()), buffers), batch
            )
        grads = jax.tree.map(lambda g: g / weight, grads)
        grads, _ = clipped.update(grads, clipped.init(params))
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), buffers, opt_state), total / weight

    return at_precision(step, loop.matmul_precision)


def one_microbatch(loop: JaxLoop, tx: optax.MultiSteps) -> Step:
    """The same for one microbatch; ``tx`` holds on until it has seen k of them."""
    loss_and_grads = _loss_and_grads(loop)

    def step(state: Any, microbatch: PyTree) -> tuple[Any, Any]:
        params, buffers, opt_state = state
        (total, weight, buffers), grads = loss_and_grads(params, buffers, microbatch)
        grads = jax.tree.map(lambda g: g / weight, grads)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), buffers, opt_state), total / weight

    return at_precision(step, loop.matmul_precision)


def accumulated(loop: JaxLoop, tx: optax.GradientTransformation) -> optax.MultiSteps:
    """``tx`` of the mean of as many gradients as the loop accumulates, clipped as it says."""
    dtype = jax.tree.leaves(loop.params)[0].dtype
    return optax.MultiSteps(
        optax.chain(clip(loop), tx), loop.accumulate, accumulator_dtype=dtype
    )


def clip(loop: JaxLoop) -> optax.GradientTransformation:
    """PyTorch's clipping by norm and then by value, as a transformation without state."""

    def clipped(grads: PyTree, params: PyTree) -> PyTree:
        del params
        if loop.clip_grad_norm is not None:
            norm = optax.tree.norm(grads)
            scale = jnp.minimum(1.0, loop.clip_grad_norm / (norm + CLIP_EPS))
            grads = jax.tree.map(lambda g: g * scale, grads)
        if loop.clip_grad_value is not None:
            most = loop.clip_grad_value
            grads = jax.tree.map(lambda g: jnp.clip(g, -most, most), grads)
        return grads

    return optax.stateless(clipped)


def optimizer(side: JaxSide) -> tuple[optax.GradientTransformation, PyTree, str]:
    """The optimizer of optax that does the same, its state unless it is new, and its name.

    Where optax has none, or the PyTorch half is in mid-training, it is the loop's own: what
    is then compared is the step around it.
    """
    loop = side.loop
    if side.torch is not None and side.weights is not None:
        from ._optax import optax_of

        tx, note = optax_of(side.torch, side.weights)
        if tx is not None:
            return tx, None, note
        note, new = f"the loop's own: {note}", not side.torch.optimizer.state
    else:
        note, new = "the loop's own", loop.opt_state is None
    return loop.tx, None if new else initial_state(loop).opt_state, note


def check(loop: JaxLoop, name: str) -> None:
    """Refuse what the steps above leave out."""
    if loop.scaler is not None:
        refuse(name, "it scales the loss")
    if loop.mesh is not None:
        refuse(name, "it trains on a mesh")
    if loop.policy is not None:
        refuse(name, "it has a policy, and a step by hand casts nothing")
    if loop.trainable is not None and not all(
        jax.tree.leaves(selected(loop.trainable, loop.params))
    ):
        refuse(name, "it freezes parameters")


def _loss_and_grads(loop: JaxLoop) -> Any:
    loss_fn = canonical(loop.loss_fn)

    def loss(params: PyTree, buffers: PyTree, microbatch: PyTree) -> Any:
        own = jax.tree.map(lambda x: x, buffers)  # Flax writes into those it is given
        out = loss_fn(params, own, microbatch, loop.rng)
        after = buffers if out.buffers is None else out.buffers
        return out.total, (out.total, jnp.asarray(out.weight, out.total.dtype), after)

    grad = jax.grad(loss, has_aux=True)

    def loss_and_grads(params: PyTree, buffers: PyTree, microbatch: PyTree) -> Any:
        grads, seen = grad(params, buffers, microbatch)
        return seen, grads

    return loss_and_grads
