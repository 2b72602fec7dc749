"""A PyTorch loop as one pure JAX training step, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import torch
from jax.sharding import Mesh

from .._loop import JaxLoop, initial_state, train_step
from .._policy import Policy, policy_of
from .._state import Metrics, TrainState
from .._step import TrainStep
from ..sharding._place import place
from ..sharding._sharding import Sharding
from ._arrays import array_to_tensor, tensor_to_array
from ._autocast import autocast
from ._optimizer import optimizer_from_torch, optimizer_to_torch
from ._scaler import scaler_from_torch, scaler_to_torch
from ._torch_loop import TorchLoop, windows
from .lower._loss import LoweredLoss
from .lower._lowered import Lowered, unwrapped


def from_torch(
    loop: TorchLoop,
    total_steps: int | None = None,
    *,
    policy: Policy | str | None = None,
    remat: str | Sequence[str] = (),
    mesh: Mesh | None = None,
    sharding: Sharding | None = None,
) -> tuple[TrainStep, TrainState]:
    """The training step of a PyTorch loop as one pure, jitted JAX function.

    Weights, buffers, optimizer, scheduler and scaler are taken as they are now; the loop is
    left untouched. ::

        train_step, state = instep.from_torch(loop)
        for batch in batches:                      # arrays; with accumulate, stacked
            state, metrics = train_step(state, batch)
        instep.to_torch(state, loop)

    Args:
      loop: the loss is traced with its first microbatch; what of that is no tensor becomes
        part of the step, as do the modules and tensors that ``loss_fn`` holds (a teacher, the
        weights of a criterion), as they are then. A batch of another shape is traced when it
        comes.
      total_steps: of the scheduler, where it must be tabulated; see ``scheduler_from_torch``.
      policy: ``"bf16"``, ``"fp16"`` or a ``Policy``: the loss is traced under
        ``torch.autocast``, whose lists for the device of the model say which operators run in
        ``policy.compute``; see ``bridge.autocast``. None: as ``loss_fn`` says, which may be
        under autocast itself.
      remat: modules that are computed again in the backward pass instead of keeping their
        activations, as regular expressions of their paths; see ``lower``. Those that
        ``torch.utils.checkpoint`` wraps are so by themselves.
      mesh, sharding: devices to train on, and what they are used for: as for
        ``make_train_step``. The state is placed there; a batch is the global one, and
        BatchNorm normalises the part of each replica, unless the sharding is of the
        ``whole_batch``.

    Returns:
      ``(train_step, state)``: ``state, metrics = train_step(state, batch)``; ``batch`` is what
      ``loop.batches`` yields with arrays for tensors, and with ``accumulate`` above 1
      ``instep.stack(microbatches)``. ``state.params`` and ``state.buffers`` are dicts by the
      names in ``state_dict``. A step that draws takes its key from ``torch.initial_seed()``.

    Raises:
      LoweringError: the forward pass or the loss cannot be made a JAX function.
      ValueError: the optimizer, its state or the scheduler has no counterpart; no policy has
        that name; it computes in float16 and the loop has no scaler; or ``sharding`` does not
        fit ``mesh``.
      TypeError: parameters are not in the dtype of the policy.
    """
    policy = policy_of(policy)
    loop = autocast(loop, policy)
    loss_fn = lowered_loss(loop, remat)
    jax_loop = replace(
        jax_loop_of(loop, loss_fn, total_steps, policy), mesh=mesh, sharding=sharding
    )
    jitted, start = train_step(jax_loop), initial_state(jax_loop)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        return jitted(state, [_as_array(x) for x in loss_fn.leaves(batch)])

    return step, start if mesh is None else place(start, mesh, sharding)


def to_torch(state: TrainState, loop: TorchLoop) -> None:
    """Write a state back into the loop it came from: training goes on in PyTorch.

    PyTorch: ``model.load_state_dict``, ``optimizer.load_state_dict`` and as many
    ``scheduler.step()`` as there were updates.

    Args:
      state: of ``from_torch``, after any number of steps.
      loop: its parameters, buffers, optimizer, scheduler and scaler are written in place.

    Raises:
      ValueError: names or shapes are not those of the loop.
    """
    model = unwrapped(loop.model)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    arrays: dict[str, Any] = {**state.params, **(state.buffers or {})}
    if tensors.keys() != arrays.keys():
        here, there = sorted(arrays.keys() - tensors), sorted(tensors.keys() - arrays)
        raise ValueError(
            f"the state is of another model: {here} are only in the state, {there} only in the "
            f"model."
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(array_to_tensor(jax.device_get(arrays[name])))
    optimizer_to_torch(
        state.opt_state,
        loop.optimizer,
        model,
        scheduler=loop.scheduler,
        scheduler_every=loop.scheduler_every,
    )
    if loop.scaler is not None and state.scaler is not None:
        scaler_to_torch(state.scaler, loop.scaler)


def lowered_loss(loop: TorchLoop, remat: str | Sequence[str] = ()) -> LoweredLoss:
    """The forward pass and loss of ``loop``, lowered for its first microbatch."""
    return LoweredLoss(loop.model, loop.loss_fn, next(windows(loop))[0], remat)


def jax_loop_of(
    loop: TorchLoop,
    loss_fn: LoweredLoss,
    total_steps: int | None = None,
    policy: Policy | None = None,
) -> JaxLoop:
    """The loop that ``from_torch`` makes a step of; its batches are lists of arrays.

    Of ``policy`` it has what the graph of ``loss_fn`` does not: the casts are in there.

    Raises:
      ValueError: the loss depends on no parameter; a gradient norm is clipped that PyTorch
        lets grow without end; or ``LBFGS`` would evaluate a forward pass that is another each
        time.
    """
    lowered = loss_fn.lowered
    if not lowered.reached:
        raise ValueError(
            "the loss has a gradient for no parameter of the model: it is detached or an "
            "integer, or loss_fn uses another model than the one it is given."
        )
    trained = {
        name for name, trains in lowered.trainable.items() if trains and name in lowered.reached
    }
    _check_cleared(loop, trained)
    if isinstance(loop.optimizer, torch.optim.LBFGS):
        _check_repeatable(lowered)

    def opt_state() -> Any:
        return _optimizer(loop, total_steps)[1]

    return JaxLoop(
        loss_fn,
        _optimizer(loop, total_steps)[0],
        lowered.params,
        lowered.buffers,
        accumulate=loop.accumulate,
        clip_grad_norm=loop.clip_grad_norm,
        clip_grad_value=loop.clip_grad_value,
        trainable={name: name in trained for name in lowered.params},
        rng=jax.random.key(torch.initial_seed() % 2**31) if lowered.draws else None,
        scaler=None if loop.scaler is None else scaler_from_torch(loop.scaler),
        opt_state=opt_state,
        drop_last=loop.drop_last,
        policy=None if policy is None else replace(policy, compute=None),
    )


def _optimizer(loop: TorchLoop, total_steps: int | None) -> tuple[Any, Any]:
    return optimizer_from_torch(
        loop.optimizer,
        unwrapped(loop.model),
        scheduler=loop.scheduler,
        scheduler_every=loop.scheduler_every,
        total_steps=total_steps,
        metric=loop.metric,
    )


def _as_array(x: Any) -> Any:
    if torch.is_tensor(x):
        return tensor_to_array(x)
    return x if isinstance(x, jax.Array) else np.asarray(x)


def _check_repeatable(lowered: Lowered) -> None:
    """``LBFGS`` evaluates the loss several times a step, and expects the same function."""
    if lowered.mutated:
        raise ValueError(
            f"LBFGS evaluates the loss several times a step, and each time PyTorch would "
            f"change {', '.join(lowered.mutated[:3])}; the JAX step changes buffers once. Put "
            f"the modules that own them in eval mode."
        )
    if lowered.draws:
        raise ValueError(
            "LBFGS evaluates the loss several times a step, and the forward pass draws at "
            "random each time, which is another function each time. Put dropout in eval mode."
        )


def _check_cleared(loop: TorchLoop, trained: set[str]) -> None:
    """``optimizer.zero_grad()`` clears the gradients of its own parameters alone."""
    own = {id(p) for group in loop.optimizer.param_groups for p in group["params"]}
    named = unwrapped(loop.model).named_parameters()
    stale = [name for name, p in named if name in trained and id(p) not in own]
    if stale and loop.clip_grad_norm is not None:
        raise ValueError(
            f"{stale} have gradients that no optimizer clears, and clip_grad_norm counts them: "
            f"in PyTorch they grow from step to step. Call requires_grad_(False) on them, or "
            f"give them to the optimizer."
        )
