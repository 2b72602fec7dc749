"""How much work a step is: one count for all contenders, and the peak it is held against."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import jax

from .._loop import JaxLoop
from .._loss_fn import canonical
from ._settings import Settings


if TYPE_CHECKING:
    from ..bridge._torch_loop import TorchLoop

BY_TORCH = "torch.utils.flop_counter over forward and backward of the PyTorch half"
BY_XLA = "XLA's cost analysis of the gradient of one microbatch"


def of_torch(loop: TorchLoop, window: list[Any]) -> float:
    """Floating-point operations of matrix products, convolutions and attention of one step.

    A multiplication and an addition are 2. Attention is counted whole, masked or not, as it is
    by most who state an MFU; an LSTM as its matrix products. What is pointwise is not counted.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from ..bridge._copy import copy_loop

    copy = copy_loop(loop)
    with (
        warnings.catch_warnings(action="ignore"),  # it sets a flag of other devices too
        sdpa_kernel(SDPBackend.MATH),  # the fused kernels of the CPU are not in its table,
        torch.backends.mkldnn.flags(enabled=False),  # nor is the fused LSTM
        FlopCounterMode(display=False) as counter,
    ):
        copy.loss_fn(copy.model, window[0]).backward()
    return float(counter.get_total_flops() * len(window))


def of_jax(loop: JaxLoop, microbatch: Any) -> float | None:
    """The operations that XLA says the gradient has, pointwise ones too; None: it does not say.

    The body of a loop counts once there, so it is asked about one microbatch.
    """
    loss_fn = canonical(loop.loss_fn)

    def loss(params: Any, buffers: Any) -> Any:
        return loss_fn(params, buffers, microbatch, loop.rng).total

    analysis = jax.jit(jax.grad(loss)).lower(loop.params, loop.buffers).cost_analysis()
    flops = (analysis or {}).get("flops")
    return None if not flops or flops < 0 else float(flops * loop.accumulate)


def dense_peak(settings: Settings, device: str) -> float | None:
    """FLOP/s of dense matrix products that ``device`` can reach at most; None: not known.

    The one place for a table of devices. Until there is one, it is what the caller states.
    """
    del device
    return None if settings.peak_tflops is None else settings.peak_tflops * 1e12
