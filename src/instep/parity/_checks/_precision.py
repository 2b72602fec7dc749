"""The precision in which both sides compute: 16 bits, and TF32 on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import torch
from jax.extend.core import JaxprEqn

from ._jaxpr import equations, line
from ._probe import Probe
from ._torch_run import LOW


def low_precision(probe: Probe) -> Iterator[str]:
    """One side computes in 16 bits what the other does not."""
    made: dict[str, list[JaxprEqn]] = {}
    for eqn in equations(probe.jaxpr):
        for dtype in {str(getattr(x.aval, "dtype", "")) for x in eqn.outvars} & {*LOW}:
            made.setdefault(dtype, []).append(eqn)
    for dtype in LOW:
        if dtype in made and dtype not in probe.torch.low:
            yield (
                f"the JAX half makes {dtype} in {len(made[dtype])} operations, the first at "
                f"{line(made[dtype][0])}, and the PyTorch half in none: remove the cast, or "
                f"run PyTorch's forward under torch.autocast(dtype=torch.{dtype})"
            )
        elif dtype in probe.torch.low and dtype not in made:
            yield (
                f"the PyTorch half makes {dtype} (torch.autocast, or a cast) and the JAX half "
                f"nowhere: cast in JAX where PyTorch does, or run PyTorch without"
            )


def matmul_precision(probe: Probe, backend: str | None = None) -> Iterator[str]:
    """Products of float32 matrices, which on an accelerator may have fewer bits.

    Args:
      probe: its JAX half is traced under the settings of the caller.
      backend: None: that of JAX. On ``"cpu"`` all products are float32; there only what
        somebody chose, on one side or the other, is compared.
    """
    backend = backend or jax.default_backend()
    chip = "TPU" if backend == "tpu" else "GPU"
    for name, theirs, usual in (
        ("dot_general", _torch_matmul(), "float32"),
        ("conv_general_dilated", _torch_conv(), "TF32"),
    ):
        given = Counter(
            str(_lowest(eqn.params["precision"]))
            for eqn in equations(probe.jaxpr)
            if eqn.primitive.name == name
            and all(str(x.aval.dtype) == "float32" for x in eqn.invars)  # pyright: ignore
        )
        chosen = theirs != usual or {*given} - {"None", "DEFAULT"}
        if backend == "cpu" and not chosen:
            continue
        ours = Counter({_bits(p, chip): 0 for p in given})
        for precision, n in given.items():
            ours[_bits(precision, chip)] += n
        other = {bits: n for bits, n in ours.items() if bits != theirs}
        if other:
            listed = ", ".join(f"{n} in {bits}" for bits, n in other.items())
            yield (
                f"on a {chip}, of {sum(ours.values())} float32 {name} JAX would compute "
                f"{listed}, and PyTorch in {theirs}: set jax.default_matmul_precision to "
                f'"{_name(theirs)}", or {_flag(name)} = {next(iter(other)) != "float32"}'
            )


def _torch_matmul() -> str:
    return "float32" if torch.get_float32_matmul_precision() == "highest" else "TF32"


def _torch_conv() -> str:
    return "TF32" if torch.backends.cudnn.allow_tf32 else "float32"


def _flag(name: str) -> str:
    owner = "cuda.matmul" if name == "dot_general" else "cudnn"
    return f"torch.backends.{owner}.allow_tf32"


def _name(bits: str) -> str:
    return "highest" if bits == "float32" else "tensorfloat32"


def _lowest(precision: Any) -> Any:
    """Of the two operands; None: nobody said."""
    if not isinstance(precision, tuple):
        return getattr(precision, "name", precision)
    return min(precision, key=lambda p: p.value).name


def _bits(precision: str, chip: str) -> str:
    """What ``jax.lax.Precision`` means for float32 operands."""
    if precision in ("None", "DEFAULT"):
        return "TF32" if chip == "GPU" else "bfloat16"
    if precision == "HIGH":
        return "TF32" if chip == "GPU" else "three bfloat16"
    return "float32" if precision == "HIGHEST" else precision
