"""Train both halves of a workload to the end, each in its own precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import jax
import numpy as np
import torch

from .._loop import JaxLoop, initial_state, train_step
from .._trees import named_leaves
from ..bridge import to_jax
from ..bridge._torch_loop import run_step, windows
from ..bridge._weights import match
from ..parity._jax_side import batch_of
from ..parity._torch_side import weights
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
    assert isinstance(pair.jax, JaxLoop)
    arrays = weights(pair.torch)
    leaves = named_leaves(pair.jax.params) | named_leaves(pair.jax.buffers)
    links = match(pair.weights, arrays, leaves)
    loop = replace(
        pair.jax,
        params=to_jax(links, arrays, pair.jax.params),
        buffers=to_jax(links, arrays, pair.jax.buffers),
    )
    state, step = initial_state(loop), train_step(loop)
    stream = islice(windows(pair.torch), workload.total_steps)
    for n, window in enumerate(stream, start=1):
        run_step(pair.torch, window, n)
        state, _ = step(state, batch_of(window, pair.batch))
        on_step(n)

    inputs, labels = workload.test_set()
    pair.torch.model.eval()
    with torch.no_grad():
        torch_logits = pair.torch.model(torch.as_tensor(inputs)).numpy()
    assert loop.apply is not None
    jax_inputs, _ = batch_of([(torch.as_tensor(inputs), torch.as_tensor(labels))], pair.batch)
    jax_logits = jax.jit(loop.apply)(state.params, state.buffers, jax_inputs)
    return Trained(
        workload.total_steps,
        _accuracy(torch_logits, labels),
        _accuracy(np.asarray(jax_logits), labels),
    )


def _accuracy(logits_NC: np.ndarray, labels_N: np.ndarray) -> float:
    return float(np.mean(logits_NC.argmax(1) == labels_N))
