"""What a walk sets for both frameworks, and restores whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch

from ..bridge._torch_loop import TorchLoop
from ._jax_side import jax_precision
from ._lift_torch import LiftTorch


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """The surroundings of a step in ``dtype``.

    Float64: it is PyTorch's default dtype, ``jax_enable_x64`` is on, and PyTorch's casts to
    fewer bits are lifted. Lower: float32 is the default dtype, as where people train. Matrix
    products are not shortened to TF32 on either side, unless a loop asks for it, and cuDNN
    is deterministic.
    """
    double = dtype == "float64"
    cudnn = torch.backends.cudnn
    default, tf32 = torch.get_default_dtype(), torch.backends.cuda.matmul.allow_tf32
    torch.set_default_dtype(torch.float64 if double else torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with ExitStack() as stack:
            stack.enter_context(
                cudnn.flags(cudnn.enabled, deterministic=True, allow_tf32=False)
            )
            stack.enter_context(torch.enable_grad())
            stack.enter_context(jax_precision(dtype))
            if double:
                stack.enter_context(LiftTorch())
            yield
    finally:
        torch.set_default_dtype(default)
        torch.backends.cuda.matmul.allow_tf32 = tf32


def random_state() -> list[torch.Tensor]:
    """PyTorch's random state on the host and on every GPU in use."""
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *on_gpus]


def set_random_state(state: list[torch.Tensor]) -> None:
    """Undo what was drawn since ``random_state``."""
    host, *on_gpus = state
    torch.set_rng_state(host)
    if on_gpus:
        torch.cuda.set_rng_state_all(on_gpus)


def random_mark() -> Callable[[], None]:
    """What goes back to the random state of now."""
    return partial(set_random_state, random_state())


@contextmanager
def random_state_kept(loop: TorchLoop) -> Iterator[None]:
    """Restore PyTorch's random state, and that of the generator of a ``DataLoader``."""
    owners = (loop.batches, getattr(loop.batches, "sampler", None))
    generators = [getattr(owner, "generator", None) for owner in owners]
    own = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
        for generator, kept in own:
            generator.set_state(kept)
