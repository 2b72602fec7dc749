"""PyTorch's contenders, as its own performance guide has them.

Gradients are set to None, the optimizer is fused where PyTorch has it, a convolutional network
is in channels_last where that is faster here, batches are on the device, and nothing is read
back between steps.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..bridge._tensors import map_tensors, tensors_in
from ..bridge._torch_loop import TorchLoop
from ..bridge._transfer import model_arrays
from ._contender import Contender, refuse
from ._problem import Problem, load
from ._settings import MATMUL
from ._torch_step import fuse, prepare, put, train_step


TRIAL_ROUNDS, TRIAL_STEPS = 5, 2  # of each memory format
DEFAULT = "default"  # mode of torch.compile
GRAPHED = ("reduce-overhead", "max-autotune")  # modes that replay CUDA graphs


def eager(problem: Problem, option: str) -> Contender:
    """Nothing is compiled."""
    del option
    return _contender("torch-eager", problem, None)


def compiled(problem: Problem, option: str) -> Contender:
    """``torch.compile`` of the model; the check is of the step, and does not compile."""
    mode = None if problem.double else option or DEFAULT
    return _contender("torch-compile", problem, mode)


def _contender(name: str, problem: Problem, mode: str | None) -> Contender:
    device = _device(problem)
    _set_matmul_precision(problem, device)
    loop, windows = problem.reference(), problem.windows()
    _check(name, loop)
    channels_last, notes = _memory_format(problem, loop, windows, device)
    windows = [map_tensors(lambda x: put(x, device, channels_last), w) for w in windows]
    prepare(loop, device, channels_last)
    fused = "fused " if fuse(loop.optimizer) else ""
    notes["optimizer"] = f"{fused}torch.optim.{type(loop.optimizer).__name__}"
    model = loop.model
    if mode is not None:
        notes["mode"] = mode
        model = torch.compile(model, mode=None if mode == DEFAULT else mode)
    step, last = train_step(loop, model, mode in GRAPHED), {}

    def take(n: int) -> None:
        last["loss"] = step(n, windows[n % len(windows)])
        if mode is not None and n == 0:
            notes["graphs"] = _graphs()

    cuda = device.type == "cuda"
    return Contender(
        take,
        torch.cuda.synchronize if cuda else lambda: None,
        lambda: _named(loop),
        lambda: float(last["loss"]),
        torch.cuda.get_device_name() if cuda else "cpu",
        notes,
        forget_peak=torch.cuda.reset_peak_memory_stats if cuda else lambda: None,
        peak=torch.cuda.max_memory_allocated if cuda else lambda: None,
    )


def _graphs() -> str:
    """What ``torch.compile`` made of the model: without a graph it ran eagerly."""
    count = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return f"{count} compiled" if count else "none compiled, PyTorch ran it eagerly"


def _memory_format(
    problem: Problem, loop: TorchLoop, windows: list[list[Any]], device: torch.device
) -> tuple[bool, dict[str, str]]:
    """Whether channels_last is faster here, and what is told of it; the check is contiguous."""
    if problem.double or not _convolutional(loop, windows):
        return False, {}
    last, (contiguous, other) = _faster_in_channels_last(problem, device)
    chosen = "channels_last" if last else "contiguous"
    told = f"{other * 1e3:.3g} ms in channels_last, {contiguous * 1e3:.3g} ms contiguous"
    return last, {"memory format": f"{chosen} ({told}, eagerly)"}


def _faster_in_channels_last(
    problem: Problem, device: torch.device
) -> tuple[bool, tuple[float, float]]:
    """Whether it is, and the seconds of an eager step (contiguous, channels_last)."""
    steps = []
    for channels_last in (False, True):
        fresh = load(problem.name, problem.settings)
        loop, windows = fresh.torch_loop, fresh.windows()
        assert loop is not None
        prepare(loop, device, channels_last)
        fuse(loop.optimizer)
        placed = [map_tensors(lambda x, c=channels_last: put(x, device, c), w) for w in windows]
        steps.append((train_step(loop, loop.model), placed))
    seconds: tuple[list[float], list[float]] = ([], [])
    for n in range(TRIAL_ROUNDS + 1):
        for which in (0, 1) if n % 2 else (1, 0):
            step, windows = steps[which]
            start = time.perf_counter()
            for i in range(TRIAL_STEPS):
                step(n * TRIAL_STEPS + i, windows[i % len(windows)])
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[which].append((time.perf_counter() - start) / TRIAL_STEPS)
    contiguous, last = (float(np.median(s[1:])) for s in seconds)
    return last < contiguous, (contiguous, last)


def _convolutional(loop: TorchLoop, windows: list[list[Any]]) -> bool:
    images = any(x.ndim == 4 for x in tensors_in(windows[0]))
    return images and any(isinstance(m, torch.nn.Conv2d) for m in loop.model.modules())


def _device(problem: Problem) -> torch.device:
    wanted = problem.settings.device
    if problem.double or wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def _set_matmul_precision(problem: Problem, device: torch.device) -> None:
    precision = "highest" if problem.double else problem.settings.matmul_precision
    torch.set_float32_matmul_precision(MATMUL[precision])
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = precision != "highest"


def _check(name: str, loop: TorchLoop) -> None:
    if isinstance(loop.optimizer, torch.optim.LBFGS):
        refuse(name, "LBFGS makes many steps of one")
    if isinstance(loop.scheduler, ReduceLROnPlateau):
        refuse(name, "its scheduler reads the loss back at every step")
    if loop.scaler is not None:
        refuse(name, "it scales the loss")


def _named(loop: TorchLoop) -> Any:
    from ..parity._leaf import Leaf

    trained = {name for name, _ in loop.model.named_parameters()}
    return {
        Leaf("parameter" if name in trained else "buffer", name): array
        for name, array in model_arrays(loop).items()
    }
