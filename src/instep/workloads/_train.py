"""Train both halves of a workload to the end, each in its own precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import jax
import numpy as np
import torch

from .._loop import JaxLoop, initial_state, train_step
from ..bridge._tensors import batch_of
from ..bridge._torch_loop import run_step, windows
from ..bridge._transfer import link, model_arrays, start_from
from ._workload import Workload


@dataclass(frozen=True)
class Trained:
    """Share of the test set that each half gets right after the same training."""

    steps: int
    torch_accuracy: float
    jax_accuracy: float


def train(workload: Workload, on_step: Callable[[int], None] = lambda n: None) -> Trained:
    """Train fresh halves of ``workload`` from the same weights on the same batches.

    PyTorch runs eagerly; JAX runs the fused, jitted, donated step. Both in float32.

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

    inputs, labels = (torch.as_tensor(array) for array in workload.test_set())
    pair.torch.model.eval()
    with torch.no_grad():
        torch_logits = pair.torch.model(inputs).numpy()
    jax_inputs, _ = batch_of([(inputs, labels)], pair.batch, 1)
    jax_logits = jax.jit(pair.jax.apply)(state.params, state.buffers, jax_inputs)
    return Trained(
        workload.total_steps,
        _accuracy(torch_logits, labels.numpy()),
        _accuracy(np.asarray(jax_logits), labels.numpy()),
    )


def _accuracy(logits_NC: np.ndarray, labels_N: np.ndarray) -> float:
    return float(np.mean(logits_NC.argmax(1) == labels_N))
