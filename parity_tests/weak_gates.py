"""Gates that others stand guard with, rebuilt, each with a mistake that walks through it.

A gate is a function of a pair that asserts what its origin asserts. It gets the best
conditions there are: both halves in float64, from the same weights and batches, and the very
numbers that ``instep.parity`` judges; what makes it weak is where it looks. In ``GAPS`` a clean
pair and the same pair with a mistake both pass it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

import weak_pairs as pairs
from instep import Pair
from instep.bridge._copy import copy_loop
from instep.bridge._tensors import batch_of, to_dtype
from instep.bridge._torch_loop import windows
from instep.bridge._transfer import link, model_arrays, start_from
from instep.parity import _torch_side
from instep.parity._jax_side import steps_of
from instep.parity._leaf import Leaf, Observation
from instep.parity._records import Plan
from instep.parity._settings import precision, random_state_kept
from instep.parity._walker import begin


# What a gate can look at.


class Seen(NamedTuple):
    """Every leaf of one step on both sides, under the same names."""

    torch: Observation
    jax: Observation


def observed(pair: Pair, steps: int) -> list[Seen]:
    """Both halves, running freely in float64."""
    with precision("float64"), random_state_kept(pair.torch):
        stream = windows(pair.torch)
        window = to_dtype(next(stream), torch.float64)
        plan = Plan("float64", judged=False)
        walker = begin(plan, pair, window, steps_of(pair.jax))
        seen = []
        for n in range(1, steps + 1):
            batch = batch_of(window, pair.batch, pair.torch.accumulate)
            reference = _torch_side.step(walker.torch.reference, window, n)
            seen.append(Seen(reference, walker.jax.advance(batch)))
            window = to_dtype(next(stream), torch.float64)
    return seen


def outputs(pair: Pair, inputs: Any = None, dtype: torch.dtype = torch.float64):
    """Both forward passes in evaluation; PyTorch's in ``dtype``, JAX's in float64.

    Args:
      pair: its buffers start from the same values on both sides.
      inputs: of the models; None: those of the first microbatch.
      dtype: of the PyTorch model.
    """
    with precision("float64"), random_state_kept(pair.torch):
        loop = copy_loop(pair.torch, torch.float64)
        weights = link(pair.weights, loop.model, pair.jax.params, pair.jax.buffers)
        half = start_from(model_arrays(loop), weights, pair.jax)
        if inputs is None:
            inputs = next(iter(loop.batches))[0]
        (x,) = to_dtype((inputs,), torch.float64)
        ours = np.asarray(half.apply(half.params, half.buffers, jnp.asarray(x.numpy())))
    (x,) = to_dtype((inputs,), dtype)
    with torch.no_grad():
        return loop.model.eval().to(dtype)(x).double().numpy(), ours


def distance(theirs: np.ndarray, ours: np.ndarray) -> float:
    return float(np.abs(theirs - ours).max())


def gradient_norm(seen: Observation) -> float:
    squares = [(x**2).sum() for leaf, x in seen.items() if leaf.kind == "gradient"]
    return float(np.sqrt(sum(squares)))


LOSS = Leaf("loss", "loss")


# The gates.


def rtol_1_on_the_last_step(pair):
    """AlgoPerf's traindiffs: 10 steps of SGD, the assertion after the loop, and rtol = 1.

    https://github.com/mlcommons/algorithmic-efficiency/pull/649
    """
    last = observed(pair, 10)[-1]
    assert np.isclose(last.jax[LOSS], last.torch[LOSS], rtol=1)
    assert np.isclose(gradient_norm(last.jax), gradient_norm(last.torch), rtol=1)


def forward_in_evaluation(pair):
    """AlgoPerf's modeldiffs: evaluation mode, running statistics at their first values.

    Parameters are carried over, buffers are not, and the difference is printed; here it must
    be nothing. https://github.com/mlcommons/algorithmic-efficiency/pull/231
    """
    assert distance(*outputs(pair)) < 1e-12


def means_agree(pair):
    """PaDiff's default mode: the mean of an output, and of each gradient, to rtol 1e-7."""
    theirs, ours = outputs(pair)
    np.testing.assert_allclose(ours.mean(), theirs.mean(), rtol=1e-7)
    (first,) = observed(pair, 1)
    for leaf, gradient in first.torch.items():
        if leaf.kind == "gradient":
            np.testing.assert_allclose(first.jax[leaf].mean(), gradient.mean(), rtol=1e-7)


def backward_checked_by_the_forward_check(pair):
    """PaDiff's check_backward: below the top it calls check_forward once more."""
    assert distance(*outputs(pair)) < 1e-12
    assert distance(*outputs(pair)) < 1e-12  # "backward"


def first_step_only(pair):
    """PaDiff's get_all_valid_path: returns inside its loop, so only the first step is read."""
    for n, seen in enumerate(observed(pair, 2)):
        for leaf in seen.torch:
            np.testing.assert_allclose(seen.jax[leaf], seen.torch[leaf], rtol=1e-9, atol=1e-12)
        if n == 0:
            return


def transposed_until_it_fits(pair):
    """reprod_log: where shapes fit only transposed, transposes in silence; mean|d| <= 1e-6."""
    theirs, ours = outputs(pair)
    if ours.shape != theirs.shape:
        ours = ours.T
    assert np.abs(theirs - ours).mean() <= 1e-6


def short_prompt(pair):
    """MaxText's check of the logits: max KL 3e-3, raised from 2e-3, on a prompt of 3 tokens.

    Its PR 2958; that a partial rotation is not seen on 3 or 4 tokens is a note in its source.
    """
    theirs, ours = outputs(pair, torch.tensor([[1, 2, 3]]))
    p, q = (jax.nn.log_softmax(jnp.asarray(x)) for x in (theirs, ours))
    assert (jnp.exp(p) * (p - q)).sum(-1).max() <= 3e-3


def reference_in_bfloat16(pair):
    """MaxText: the reference was loaded in bfloat16 by mistake, so the bound was bfloat16's.

    Its PR 4310: a lowercase key was missed. 2e-2 is its bound for bfloat16.
    """
    theirs, ours = outputs(pair, dtype=torch.bfloat16)
    np.testing.assert_allclose(ours, theirs, rtol=2e-2, atol=2e-2)


def signed_sum(pair):
    """Hugging Face in 2020: (a - b).sum() <= 5e-4 of the last hidden state.

    https://github.com/huggingface/transformers/pull/8829
    """
    theirs, ours = outputs(pair)
    assert (theirs - ours).sum() <= 5e-4


def absolute_4e_2(pair):
    """Hugging Face until 2022: max|d| <= 4e-2, whatever the scale.

    https://github.com/huggingface/transformers/pull/14060 asks why 4e-2.
    """
    assert distance(*outputs(pair)) <= 4e-2


def shapes_agree(pair):
    """Keras: a transposed convolution of the right shape, off by one pixel.

    https://github.com/keras-team/keras/pull/22876
    """
    theirs, ours = outputs(pair)
    assert ours.shape == theirs.shape
    for seen in observed(pair, 1):
        assert {leaf: x.shape for leaf, x in seen.torch.items()} == {
            leaf: seen.jax[leaf].shape for leaf in seen.torch
        }


def losses_printed(pair):
    """torchax's train test: prints the losses, and asserts nothing; the forward was right.

    The gradient of padding_idx was wrong (torchax#11). Here the first loss must agree.
    """
    seen = observed(pair, 2)
    print([(float(step.torch[LOSS]), float(step.jax[LOSS])) for step in seen])
    assert abs(seen[0].torch[LOSS] - seen[0].jax[LOSS]) < 1e-12


def six_times_the_spread_of_reruns(pair):
    """firefly: 6 times the spread of repeated runs. On a CPU that is 0, so reruns shuffle."""
    data = list(pair.torch.batches)
    reruns = [reference_run(pair, data[n:] + data[:n]) for n in (1, 2, 3)]
    (*_, last) = observed(pair, 2)
    for leaf, theirs in reference_run(pair, data).items():
        spread = max(distance(theirs, rerun[leaf]) for rerun in reruns)
        assert distance(theirs, last.jax[leaf]) <= 6 * spread


def reference_run(pair: Pair, batches: list[Any], steps: int = 2) -> Observation:
    """The parameters of PyTorch alone after ``steps`` steps over ``batches``, in float64."""
    with precision("float64"), random_state_kept(pair.torch):
        loop = replace(copy_loop(pair.torch, torch.float64), batches=batches)
        stream = windows(loop)
        for n in range(1, steps + 1):
            seen = _torch_side.step(loop, to_dtype(next(stream), torch.float64), n)
    return {leaf: x for leaf, x in seen.items() if leaf.kind == "parameter"}


def parameters_after_adam(pair):
    """Trajectory tests under Adam: only parameters are compared, and only after it.

    Xopt#450; marin#4755 for the first step, which is lr times a sign.
    """
    (*_, last) = observed(pair, 2)
    for leaf, theirs in last.torch.items():
        if leaf.kind == "parameter":
            np.testing.assert_allclose(last.jax[leaf], theirs, rtol=1e-5, atol=1e-6)


# What each lets through, and the stage that is found to diverge first.


class Gap(NamedTuple):
    entry: int  # of the list of weak gates
    gate: Callable[[Pair], None]
    clean: Callable[[], Pair]
    mistake: Callable[[], Pair]
    stage: str
    step: int = 1


GAPS = [
    Gap(1, rtol_1_on_the_last_step, pairs.net, pairs.rate_half_again, "schedule", 0),
    Gap(2, forward_in_evaluation, pairs.batch_norm, pairs.momentum_of_flax, "buffers"),
    Gap(3, means_agree, pairs.box, pairs.coordinates_swapped, "loss"),
    Gap(3, backward_checked_by_the_forward_check, pairs.net, pairs.detached, "gradient"),
    Gap(3, first_step_only, pairs.momentum, pairs.momentum_forgotten, "optimizer", 2),
    Gap(4, transposed_until_it_fits, pairs.net, pairs.softmax_over_the_batch, "loss"),
    Gap(5, short_prompt, pairs.rope, pairs.another_rope_base, "loss"),
    Gap(5, reference_in_bfloat16, pairs.net, pairs.gelu_by_tanh, "loss"),
    Gap(6, signed_sum, pairs.net, pairs.relu_for_gelu, "loss"),
    Gap(6, absolute_4e_2, pairs.net, pairs.epsilon_of_flax, "loss"),
    Gap(7, shapes_agree, pairs.upsampled, pairs.off_by_one_pixel, "loss"),
    Gap(8, losses_printed, pairs.padded, pairs.gradient_of_the_padding, "gradient"),
    Gap(9, six_times_the_spread_of_reruns, pairs.net, pairs.decay_forgotten, "optimizer"),
    Gap(10, parameters_after_adam, pairs.adam, pairs.sum_instead_of_mean, "gradient"),
]
