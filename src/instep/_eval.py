"""The evaluation step."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ._loss_fn import LossFn
from ._policy import Policy, policy_of, under_policy
from ._precision import at_precision
from ._state import Loss, PyTree, TrainState


def make_eval_step(
    loss_fn: LossFn,
    *,
    policy: Policy | str | None = None,
    matmul_precision: str | None = None,
) -> Callable[[TrainState, PyTree], Loss]:
    """Forward and loss only: no gradient, and the buffers stay as they are.

    PyTorch: ``with torch.no_grad(): loss_fn(model, batch)``. Whether layers behave as in
    training is decided inside ``loss_fn``, as ``model.eval()`` does there.

    Args:
      loss_fn: as for ``make_train_step``; it receives ``rng=None``, so a model that draws in
        evaluation is an error.
      policy: as for ``make_train_step``; float16 needs no scaler here.
      matmul_precision: as for ``make_train_step``.

    Returns:
      A jitted ``eval_step(state, batch) -> Loss``. Sum ``total`` and ``weight`` over the
      batches and divide once. That is exact also when the last batch is smaller if
      ``loss_fn`` returns ``Loss(total, weight)``; of a scalar every batch counts 1.

    Raises:
      TypeError: ``loss_fn`` has another signature, ``policy`` is of another kind; and, when
        called, parameters are not in the dtype of the policy.
      ValueError: no policy has that name.
    """
    call = under_policy(loss_fn, policy_of(policy))

    def eval_step(state: TrainState, batch: PyTree) -> Loss:
        out = call(state.params, state.buffers, batch, None)
        return Loss(jnp.asarray(out.total), jnp.asarray(out.weight), metrics=out.metrics)

    return jax.jit(at_precision(eval_step, matmul_precision))
