"""What a walk sets for both frameworks, and restores whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import torch

from ..bridge._torch_loop import TorchLoop


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """The surroundings of a step in ``dtype``.

    Float64: PyTorch's default dtype and ``jax_enable_x64`` are on. Lower: float32 is the
    default dtype, as where people train. Matrix products are not shortened to TF32 on either
    side, unless a loop asks for it, and cuDNN is deterministic.
    """
    double = dtype == "float64"
    default = torch.get_default_dtype()
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    flags = cuda.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    torch.set_default_dtype(torch.float64 if double else torch.float32)
    cuda.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
    cudnn.deterministic = True
    try:
        with jax.enable_x64(double), jax.default_matmul_precision("highest"):
            yield
    finally:
        torch.set_default_dtype(default)
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = flags


@contextmanager
def random_state_kept(loop: TorchLoop) -> Iterator[None]:
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
