"""The walk: both loops side by side in float64, every leaf of every step compared."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax
import torch

from .._errors import ParityError, where
from .._loop import OpaqueLoop
from ..bridge._copy import copy_loop
from ..bridge._tensors import batch_of, to_dtype
from ..bridge._torch_loop import TorchLoop, windows
from ..bridge._transfer import link, start_from, write_model
from ..bridge._weights import weights_to_torch
from . import _jax_side, _torch_side
from ._floor import OneUlp
from ._hint import hint
from ._jax_side import JaxWalk
from ._judge import Ledger
from ._leaf import Leaf, Observation
from ._pair import Pair
from ._report import Report
from ._summary import make_report
from ._tolerance import DRAWS


def run(pair: Pair, steps: int = 20, on_step: Callable[[int], None] = lambda n: None) -> Report:
    """Walk both halves of ``pair`` in float64, freely, from the same weights and batches.

    Compared at every step: the loss, every gradient before and after clipping, its norm,
    every optimizer state, update, parameter and buffer, and the learning rate.

    Args:
      pair: its model, optimizer, scheduler and arrays are left as they are, and so are
        PyTorch's random state and the generator of a ``DataLoader``.
      steps: optimizer steps, at least 1.
      on_step: called with the number of each step when it is done.

    Raises:
      TypeError: ``pair`` is not a ``Pair``.
      ValueError: ``steps`` is below 1.
      ParityError: a half raised, or weights, batches and halves do not fit together.
    """
    if not isinstance(pair, Pair):
        raise TypeError(
            f"parity.run takes an instep.Pair(torch=TorchLoop(...), jax=JaxLoop(...), "
            f"weights=[...]); got {type(pair).__name__}."
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps=}.")
    with _double_precision(), _random_state_kept(pair.torch):
        ledger, names = _walk(pair, steps, on_step)
    report = make_report(ledger, steps, names)
    return replace(report, hint=hint(report, pair.torch))


def _walk(
    pair: Pair, steps: int, on_step: Callable[[int], None]
) -> tuple[Ledger, dict[str, str]]:
    with _blame("copying the PyTorch half"):
        reference = copy_loop(pair.torch, torch.float64)
    stream = windows(pair.torch)
    with _blame("the batches of the PyTorch half", 1):
        first = to_dtype(next(stream), torch.float64)
    walk = _start_jax(pair, reference, first)
    copies = [(copy_loop(reference), OneUlp(seed)) for seed in range(DRAWS)]

    ledger = Ledger(scheduled=pair.torch.scheduler is not None, alone=walk.links.alone)
    ledger.judge(0, _torch_side.start(reference), [], walk.start())
    for n in range(1, steps + 1):
        with _blame("the batches of the PyTorch half", n):
            window = first if n == 1 else to_dtype(next(stream), torch.float64)
        with _blame("Pair.batch", n):
            batch = batch_of(window, pair.batch)  # before PyTorch may write into its inputs
        with _blame("the PyTorch half", n):
            seen, seen_moved = _torch_step(reference, copies, window, n)
        with _blame("the JAX half", n):
            seen_jax = walk.advance(batch)
        ledger.judge(n, seen, seen_moved, seen_jax)
        on_step(n)
        if not ledger.measurements[Leaf("loss", "loss")][-1].judged:
            break  # rounding decides the loss, or it is not finite: so it goes on
    return ledger, walk.links.names


def _torch_step(
    reference: TorchLoop,
    copies: list[tuple[TorchLoop, OneUlp]],
    window: list[Any],
    n: int,
) -> tuple[Observation, list[Observation]]:
    """Step ``n`` of the reference, and of the copies that random rounding moves.

    All draw the same random numbers, as dropout would, and each has inputs of its own.
    """
    rng = torch.get_rng_state()
    windows = [one_ulp.moved_window(window) for _, one_ulp in copies]
    seen = _torch_side.step(reference, window, n)
    rng_after = torch.get_rng_state()
    seen_moved = []
    for (loop, one_ulp), moved_window in zip(copies, windows, strict=True):
        torch.set_rng_state(rng)
        seen_moved.append(_torch_side.step(loop, moved_window, n, one_ulp, seen))
    torch.set_rng_state(rng_after)
    return seen, seen_moved


def _start_jax(pair: Pair, reference: TorchLoop, window: list[Any]) -> JaxWalk:
    """Bring the weights across, in the direction that the kind of JAX half asks for."""
    if isinstance(pair.jax, OpaqueLoop):
        with _blame("Pair.batch", 1):
            batch = batch_of(window, pair.batch)
        with _blame("the JAX half", 1):
            walk = _jax_side.opaque(pair.jax, batch)
        view = walk.view
        with _blame("Pair.weights"):
            links = link(pair.weights, reference, view.params, view.buffers)
            write_model(reference, weights_to_torch(links, view.params, view.buffers))
    else:
        with _blame("Pair.weights"):
            links = link(pair.weights, reference, pair.jax.params, pair.jax.buffers)
            half = start_from(reference, links, pair.jax)
        with _blame("the JAX half", 1):
            walk = _jax_side.native(half)
    walk.links = links
    walk.parameters = frozenset(name for name, _ in reference.model.named_parameters())
    return walk


@contextmanager
def _double_precision():
    """float64 on both sides; what is set is restored."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with jax.enable_x64(True):
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def _random_state_kept(loop: TorchLoop):
    """Restore PyTorch's random state, and that of the generator of a ``DataLoader``."""
    generators = [torch.default_generator]
    for owner in (loop.batches, getattr(loop.batches, "sampler", None)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            generators.append(generator)
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


@contextmanager
def _blame(half: str, n: int | None = None):
    """Say which half raised, at which step, and on which line of the user's."""
    try:
        yield
    except ParityError:
        raise
    except Exception as error:
        at = f" at step {n}" if n else ""
        raise ParityError(f"{half} raised{at}: {where(error)}{_remedy(error)}") from error


def _remedy(error: Exception) -> str:
    text = str(error)
    if isinstance(error, IndexError) and "out of bounds" in text:
        return (
            " Labels are class indices from 0 to the number of classes - 1, or "
            "ignore_index; look at the batch of this step."
        )
    if isinstance(error, RuntimeError) and "Float" in text and "Double" in text:
        return (
            " The walk is in float64: loss_fn must use the model it is given, make tensors in "
            "the dtype of its inputs, and keep weights of a criterion inside the model."
        )
    return ""
