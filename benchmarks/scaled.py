"""Targets of every size for `instep bench`: a name says what is not as it is by default.

    instep bench benchmarks/scaled.py:gpt_layers8_batch4_k2

byte-gpt of ``layers`` layers and ``width`` columns, on ``batch`` windows a microbatch, with
``k`` microbatches a step; ``devices``: data parallel over as many simulated ones, for which
XLA_FLAGS=--xla_force_host_platform_device_count must say the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import jax

import instep
from instep.workloads import byte_gpt


HEAD = 32  # width of a head


def gpt(
    layers: int = 4, width: int = 128, batch: int = 4, k: int = 1, devices: int = 1
) -> instep.Pair:
    """Both halves; ``batch`` windows of 128 bytes a microbatch."""
    size = replace(
        byte_gpt.SIZES["byte-gpt"],
        layers=layers,
        width=width,
        heads=max(1, width // HEAD),
        microbatch=batch,
    )
    ours = replace(byte_gpt.jax_half(size), accumulate=k)
    if devices > 1:
        ours = replace(ours, mesh=jax.make_mesh((devices,), ("data",)))
    return instep.Pair(replace(byte_gpt.torch_half(size), accumulate=k), ours)


def __getattr__(name: str) -> Callable[[], instep.Pair]:
    first, *parts = name.split("_")
    found = [re.fullmatch(r"([a-z]+)(\d+)", part) for part in parts]
    known = gpt.__annotations__.keys() - {"return"}
    if first != "gpt" or not all(m and m[1] in known for m in found):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    sizes = {m[1]: int(m[2]) for m in found if m}
    return lambda: gpt(**sizes)
