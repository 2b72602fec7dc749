"""How much work a step is: one count for all contenders, and the peak it is held against."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import jax

from .._errors import TargetError
from .._loop import JaxLoop
from .._loss_fn import canonical
from ..progress._flops import flops
from ..progress._peaks import PEAKS
from ._settings import Settings


if TYPE_CHECKING:
    from ..bridge._torch_loop import TorchLoop

BY_TORCH = "torch.utils.flop_counter over forward and backward of the PyTorch half"
BY_JAX = "matrix products and convolutions in the jaxpr of the gradient"


def of_torch(loop: TorchLoop, window: list[Any]) -> float:
    """Floating-point operations of matrix products, convolutions and attention of one step.

    A multiplication and an addition are 2. Attention is counted whole, masked or not, as it is
    by most who state an MFU; an LSTM as its matrix products. What is pointwise is not counted.

    Raises:
      TargetError: its ``loss_fn`` returns something else than a scalar tensor.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from ..bridge._check_loop import check_loss
    from ..bridge._copy import copy_loop

    copy = copy_loop(loop)
    with (
        warnings.catch_warnings(action="ignore"),  # it sets a flag of other devices too
        sdpa_kernel(SDPBackend.MATH),  # the fused kernels of the CPU are not in its table,
        torch.backends.mkldnn.flags(enabled=False),  # nor is the fused LSTM
        FlopCounterMode(display=False) as counter,
    ):
        loss = copy.loss_fn(copy.model, window[0])
        try:
            check_loss(loss)
        except TypeError as error:
            raise TargetError(str(error)) from error
        loss.backward()
    return float(counter.get_total_flops() * len(window))


def of_jax(loop: JaxLoop, microbatch: Any) -> float | None:
    """The same of a JAX loop; None: one is inside of a loop that is known only when it runs."""
    loss_fn = canonical(loop.loss_fn)

    def loss(params: Any, buffers: Any) -> Any:
        return loss_fn(params, buffers, microbatch, loop.rng).total

    counted = flops(jax.make_jaxpr(jax.grad(loss))(loop.params, loop.buffers))
    return None if counted is None else float(sum(counted.values()) * loop.accumulate)


def dense_peak(settings: Settings, device: str, dtype: str = "float32") -> float | None:
    """FLOP/s of dense matrix products that ``device`` can reach at most; None: not known.

    What the caller states, or what its maker does, in the precision that is used: that of the
    settings, or for a model whose parameters are not float32 their ``dtype``.
    """
    kinds = {
        "float32": "fp32" if settings.matmul_precision == "highest" else "tf32",
        "bfloat16": "bf16",
    }
    kind = "bf16" if settings.precision == "bf16" else kinds.get(dtype, dtype)
    tflops = settings.peak_tflops or PEAKS.get(device, {}).get(kind)
    return None if tflops is None else tflops * 1e12
