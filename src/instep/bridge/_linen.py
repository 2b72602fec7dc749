"""Names of layers: written alike, or numbered by Linen in order of creation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


LINEN = {
    "Dense": "linear",
    "Conv": "conv",
    "ConvTranspose": "conv_transpose",
    "BatchNorm": "batch_norm",
    "LayerNorm": "layer_norm",
    "GroupNorm": "group_norm",
    "RMSNorm": "rms_norm",
    "Embed": "embedding",
    "MultiHeadDotProductAttention": "multihead_attention",
    "MultiHeadAttention": "multihead_attention",
    "SelfAttention": "multihead_attention",
    "LSTMCell": "lstm",
    "OptimizedLSTMCell": "lstm",
    "GRUCell": "gru",
}


@dataclass(frozen=True)
class Layer:
    """What one rule is for, as data.

    Args:
      kind: the name of the rule.
      path: of the PyTorch module, or of a tensor of its own.
      options: of the rule.
      inside: where below its path the JAX leaves may be.
      part: which, of several rules of a module.
    """

    kind: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    inside: tuple[str, ...] = ("",)
    part: str = ""

    @property
    def name(self) -> str:
        return f"{self.path}:{self.part}"


def normal(path: str) -> tuple[str, ...]:
    """``blocks_0``, ``blocks.0`` and ``blocks.layers.0`` are one; wrappers are left out."""
    parts = re.sub(r"_(\d+)(?=\.|$)", r".\1", path).split(".")
    after = [*parts[1:], ""]
    return tuple(
        part
        for part, following in zip(parts, after, strict=True)
        if part not in ("", "_orig_mod", "module")
        and not (part == "layers" and following.isdigit())
    )


def by_number(layers: list[Layer], paths: list[str]) -> Iterator[tuple[Layer, str]]:
    """Layers in order of registration with layers that Linen named, in order of creation.

    First inside modules of the same path, then over the whole model; the order over several
    modules is known only if those, too, differ in nothing but their numbers.
    """
    named = [(kind, path) for path in paths if (kind := _linen_kind(path))]
    for kind in dict.fromkeys(kind for kind, _ in named):
        theirs = [layer for layer in layers if layer.kind == kind]
        ours = sorted((path for k, path in named if k == kind), key=_numbers)
        for parent in dict.fromkeys(normal(_parent(path)) for path in ours):
            some = [layer for layer in theirs if normal(_parent(layer.path)) == parent]
            here = [path for path in ours if normal(_parent(path)) == parent]
            if len(some) == len(here) and len({_pattern(path) for path in here}) == 1:
                yield from zip(some, here, strict=True)
                theirs = [layer for layer in theirs if layer not in some]
                ours = [path for path in ours if path not in here]
        if len(theirs) == len(ours) and len({_pattern(path) for path in ours}) == 1:
            yield from zip(theirs, ours, strict=True)


def _linen_kind(path: str) -> str | None:
    match = re.fullmatch(r"(\w+?)_\d+", path.rpartition(".")[2])
    return LINEN.get(match[1]) if match else None


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _numbers(path: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"_(\d+)(?=\.|$)", path))


def _pattern(path: str) -> str:
    return re.sub(r"_\d+(?=\.|$)", "_", path)
