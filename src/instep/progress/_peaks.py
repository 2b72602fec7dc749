"""What a chip can do in a second, by its makers."""

from __future__ import annotations

from collections.abc import Mapping


# Dense, without sparsity, in 1e12 operations per second, by JAX's name of the device, each from
# what its maker publishes; half of it where that is with sparsity. float32 at JAX's default
# precision ("tf32") is multiplied as TF32 on these GPUs, and in one pass of bfloat16 on a TPU.

# NVIDIA A100 Tensor Core GPU Datasheet
_A100 = {"bf16": 312.0, "tf32": 156.0, "fp32": 19.5}
# NVIDIA H100 Tensor Core GPU Architecture (white paper), table of the H100 SXM5
_H100_SXM = {"bf16": 989.4, "tf32": 494.7, "fp32": 66.9}
# NVIDIA H200 Tensor Core GPU Datasheet, rounded there: the chip and clocks of the H100 SXM
_H200 = _H100_SXM
# Google Cloud documentation, "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e": peak compute per chip
_TPU_V4 = {"bf16": 275.0, "tf32": 275.0}
_TPU_V5E = {"bf16": 197.0, "tf32": 197.0}
_TPU_V5P = {"bf16": 459.0, "tf32": 459.0}
_TPU_V6E = {"bf16": 918.0, "tf32": 918.0}

PEAKS: Mapping[str, Mapping[str, float]] = {
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA H100 80GB HBM3": _H100_SXM,
    "NVIDIA H200": _H200,
    "TPU v4": _TPU_V4,
    "TPU v5 lite": _TPU_V5E,
    "TPU v5e": _TPU_V5E,
    "TPU v5": _TPU_V5P,
    "TPU v5p": _TPU_V5P,
    "TPU v6 lite": _TPU_V6E,
    "TPU v6e": _TPU_V6E,
}
"""Dense peak of a device, by JAX's name of it and kind of product, in 1e12 operations/s."""


def seconds_at_peak(
    counted: Mapping[str, int] | None, device: str, devices: int = 1
) -> float | None:
    """The least time of a step, which its time is divided into for MFU.

    Args:
      counted: of ``flops``.
      device: ``device_kind`` of JAX.
      devices: that share the step.

    Returns:
      None where the operations or the peak of one of their kinds is not known.
    """
    peaks = PEAKS.get(device)
    if not counted or peaks is None or not counted.keys() <= peaks.keys():
        return None
    return sum(n / (peaks[kind] * 1e12) for kind, n in counted.items()) / devices
