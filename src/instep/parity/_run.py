"""The walk: both loops side by side in float64, every leaf of every step compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import torch

from .._errors import ParityError
from .._loop import OpaqueLoop
from .._trees import named_leaves
from ..bridge._copy import copy_loop, to_dtype
from ..bridge._torch_loop import TorchLoop, windows
from ..bridge._weights import match, to_torch
from . import _jax_side, _torch_side
from ._floor import disturb, move_inputs
from ._jax_side import JaxWalk, batch_of
from ._judge import Ledger
from ._leaf import Observation
from ._pair import Pair
from ._report import Report, make_report
from ._tolerance import DRAWS


def run(pair: Pair, steps: int = 20, on_step: Callable[[int], None] = lambda n: None) -> Report:
    """Walk both halves of ``pair`` in float64, freely, from the same weights and batches.

    Compared at every step: the loss, every gradient before and after clipping, its norm,
    every optimizer state, update, parameter and buffer, and the learning rate.

    Args:
      pair: its objects are left as they are; batches are drawn from its PyTorch loop.
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
    with _double_precision():
        ledger, names = _walk(pair, steps, on_step)
    return make_report(ledger, steps, names)


def _walk(pair: Pair, steps: int, on_step) -> tuple[Ledger, dict[str, Any]]:
    reference = copy_loop(pair.torch, torch.float64)
    stream = _double_windows(pair.torch)
    with _blame("the batches of the PyTorch half", 1):
        first = next(stream)
    walk = _start_jax(pair, reference, first)
    moved = [copy_loop(reference) for _ in range(DRAWS)]
    generators = [torch.Generator().manual_seed(draw) for draw in range(DRAWS)]

    ledger = Ledger()
    ledger.judge(0, _torch_side.start(reference), [], walk.start())
    for n in range(1, steps + 1):
        with _blame("the batches of the PyTorch half", n):
            window = first if n == 1 else next(stream)
        with _blame("the PyTorch half", n):
            seen, seen_moved = _torch_step(reference, moved, generators, window, n)
        with _blame("Pair.batch", n):
            batch = batch_of(window, pair.batch)
        with _blame("the JAX half", n):
            seen_jax = walk.advance(batch)
        ledger.judge(n, seen, seen_moved, seen_jax)
        on_step(n)
    return ledger, {link.torch: link.jax for link in walk.links}


def _torch_step(
    reference: TorchLoop,
    moved: list[TorchLoop],
    generators: list[torch.Generator],
    window: list[Any],
    n: int,
) -> tuple[Observation, list[Observation]]:
    """Step ``n`` of the reference, and of the copies that are moved by one ulp.

    All draw the same random numbers, as dropout would.
    """
    rng = torch.get_rng_state()
    seen = _torch_side.step(reference, window, n)
    rng_after = torch.get_rng_state()
    seen_moved = []
    for loop, generator in zip(moved, generators, strict=True):
        torch.set_rng_state(rng)
        seen_moved.append(
            _torch_side.step(
                loop,
                move_inputs(window, generator),
                n,
                disturb=partial(disturb, loop, seen, generator),
            )
        )
    torch.set_rng_state(rng_after)
    return seen, seen_moved


def _start_jax(pair: Pair, reference: TorchLoop, window: list[Any]) -> JaxWalk:
    """Bring the weights across, in the direction that the kind of JAX loop asks for."""
    weights = _torch_side.weights(reference)
    if isinstance(pair.jax, OpaqueLoop):
        with _blame("Pair.batch", 1):
            batch = batch_of(window, pair.batch)
        with _blame("the JAX half", 1):
            walk = _jax_side.opaque(pair.jax, batch)
        view = walk.view
        walk.links = _match(pair, weights, view.params, view.buffers)
        arrays = to_torch(walk.links, view.params) | to_torch(walk.links, view.buffers)
        _torch_side.load(reference, arrays)
        return walk
    links = _match(pair, weights, pair.jax.params, pair.jax.buffers)
    with _blame("the JAX half", 1):
        return _jax_side.native(pair.jax, links, weights)


def _match(pair: Pair, weights, params, buffers):
    params, buffers = named_leaves(params), named_leaves(buffers)
    both = sorted(params.keys() & buffers.keys())
    if both:
        raise ParityError(
            f"leaves {both} are in params and in buffers of the JAX half. Name them apart."
        )
    try:
        return match(pair.weights, weights, params | buffers)
    except ValueError as error:
        raise ParityError(str(error)) from error


def _double_windows(loop: TorchLoop) -> Iterator[list[Any]]:
    return (to_dtype(window, torch.float64) for window in windows(loop))


@contextmanager
def _double_precision():
    """float64 on both sides; what is set is restored, PyTorch's random state too."""
    dtype, rng = torch.get_default_dtype(), torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with jax.enable_x64(True):
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_rng_state(rng)


@contextmanager
def _blame(half: str, n: int):
    """Say which half raised, and at which step."""
    try:
        yield
    except Exception as error:
        raise ParityError(
            f"{half} raised at step {n}: {type(error).__name__}: {error}{_remedy(error)}"
        ) from error


def _remedy(error: Exception) -> str:
    if isinstance(error, IndexError) and "out of bounds" in str(error):
        return (
            " Labels are class indices from 0 to the number of classes - 1, or "
            "ignore_index; look at the batch of this step."
        )
    return ""
