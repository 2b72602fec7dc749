"""Train both halves of a workload to the end, each in its own precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import torch

from .._loop import JaxLoop, initial_state, train_step
from ..bridge._tensors import batch_of
from ..bridge._torch_loop import run_step, windows
from ..bridge._transfer import link, model_arrays, start_from
from ._metric import Metric
from ._workload import Workload


if TYPE_CHECKING:
    from ..parity import Pair


@dataclass(frozen=True)
class Trained:
    """The metric of each half on held-out data, after the same training."""

    steps: int
    torch: float
    jax: float


def train(workload: Workload, on_step: Callable[[int], None] = lambda n: None) -> Trained:
    """Train fresh halves of ``workload`` from the same weights on the same batches.

    PyTorch runs eagerly; JAX runs the fused, jitted, donated step. The weights are float32.

    Args:
      workload: its JAX half is a ``JaxLoop`` with ``apply``.
      on_step: called with the number of each step when both halves have taken it.
    """
    pair = workload.make_pair()
    assert isinstance(pair.jax, JaxLoop) and pair.jax.apply is not None
    links = link(pair.weights, pair.torch.model, pair.jax.params, pair.jax.buffers)
    half = start_from(model_arrays(pair.torch), links, pair.jax)
    state, step = initial_state(half), train_step(half)
    stream = islice(windows(pair.torch), workload.total_steps)
    for n, window in enumerate(stream, start=1):
        batch = batch_of(window, pair.batch, pair.torch.accumulate)
        run_step(pair.torch, window, n)
        state, _ = step(state, batch)
        on_step(n)

    pair.torch.model.eval()

    def torch_logits(microbatch: Any) -> np.ndarray:
        inputs, _ = microbatch
        bf16 = torch.autocast(
            inputs.device.type, torch.bfloat16, enabled=workload.precision == "bf16"
        )
        with torch.no_grad(), bf16:
            return pair.torch.model(inputs).float().numpy()

    return Trained(
        workload.total_steps,
        measured(workload.metric, torch_logits, workload.held_out()),
        jax_metric(workload, pair)(state.params, state.buffers),
    )


def jax_metric(workload: Workload, pair: Pair) -> Callable[[Any, Any], float]:
    """``(params, buffers) -> metric`` of the JAX half of ``pair`` on held-out data."""
    assert isinstance(pair.jax, JaxLoop) and pair.jax.apply is not None
    apply = jax.jit(pair.jax.apply)

    def metric(params: Any, buffers: Any) -> float:
        def logits(microbatch: Any) -> np.ndarray:
            inputs, _ = batch_of([microbatch], pair.batch, 1)
            return np.asarray(apply(params, buffers, inputs), np.float32)

        return measured(workload.metric, logits, workload.held_out())

    return metric


def measured(
    metric: Metric, logits_of: Callable[[Any], np.ndarray], microbatches: Iterable
) -> float:
    """The mean of ``metric`` over all labels."""
    each = [metric.each(logits_of(batch), batch[1].numpy()) for batch in microbatches]
    return float(np.mean(np.concatenate([values.ravel() for values in each])))
