"""Which operators run in which dtype under torch.autocast, on the CPU and on CUDA.

    python benchmarks/autocast_page.py            measures every row and writes the table of
                                                  docs/precision.md
    python benchmarks/autocast_page.py --check    exit 1 if it would write another page

PyTorch's fake tensors stand for both devices, so no GPU is needed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode


PAGE = Path(__file__).parent.parent / "docs" / "precision.md"
HEAD = ("| operator | CPU | CUDA |", "|---|---|---|")

# By what is called on tensors of one dtype, made by ``x(*shape)``.
OPS: dict[str, Callable[[Callable[..., Any]], torch.Tensor]] = {
    "linear": lambda x: F.linear(x(4, 4), x(4, 4), x(4)),
    "matmul, mm, bmm, @": lambda x: x(4, 4) @ x(4, 4),
    "einsum": lambda x: torch.einsum("ij,jk->ik", x(4, 4), x(4, 4)),
    "mv": lambda x: torch.mv(x(4, 4), x(4)),
    "dot": lambda x: torch.dot(x(4), x(4)),
    "conv1d, 2d, 3d": lambda x: F.conv2d(x(1, 4, 4, 4), x(4, 4, 3, 3)),
    "conv_transpose": lambda x: F.conv_transpose2d(x(1, 4, 4, 4), x(4, 4, 3, 3)),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(
        x(1, 1, 4, 4), x(1, 1, 4, 4), x(1, 1, 4, 4)
    ),
    "prelu": lambda x: F.prelu(x(4, 4), x(1)),
    "bilinear": lambda x: F.bilinear(x(4, 4), x(4, 4), x(4, 4, 4)),
    "softmax": lambda x: x(4, 4).softmax(-1),
    "log_softmax": lambda x: x(4, 4).log_softmax(-1),
    "layer_norm": lambda x: F.layer_norm(x(4, 4), (4,), x(4), x(4)),
    "group_norm": lambda x: F.group_norm(x(4, 4), 2, x(4), x(4)),
    "rms_norm": lambda x: F.rms_norm(x(4, 4), (4,), x(4)),
    "batch_norm": lambda x: F.batch_norm(x(4, 4), None, None, training=True),
    "cross_entropy": lambda x: F.cross_entropy(x(4, 4), x(4, 4)),
    "nll_loss": lambda x: F.nll_loss(x(4, 4), x(4).long()),
    "mse_loss": lambda x: F.mse_loss(x(4, 4), x(4, 4)),
    "l1_loss": lambda x: F.l1_loss(x(4, 4), x(4, 4)),
    "smooth_l1_loss": lambda x: F.smooth_l1_loss(x(4, 4), x(4, 4)),
    "huber_loss": lambda x: F.huber_loss(x(4, 4), x(4, 4)),
    "kl_div": lambda x: F.kl_div(x(4, 4), x(4, 4), reduction="batchmean"),
    "bce_with_logits": lambda x: F.binary_cross_entropy_with_logits(x(4, 4), x(4, 4)),
    "cosine_similarity": lambda x: F.cosine_similarity(x(4, 4), x(4, 4)),
    "exp": lambda x: x(4).exp(),
    "log": lambda x: x(4).log(),
    "pow": lambda x: x(4) ** 2,
    "rsqrt": lambda x: x(4).rsqrt(),
    "softplus": lambda x: F.softplus(x(4)),
    "sum": lambda x: x(4).sum(),
    "mean": lambda x: x(4).mean(),
    "var": lambda x: x(4).var(),
    "prod": lambda x: x(4).prod(),
    "cumsum": lambda x: x(4).cumsum(0),
    "logsumexp": lambda x: x(4).logsumexp(0),
    "norm": lambda x: torch.linalg.vector_norm(x(4)),
    "cdist": lambda x: torch.cdist(x(4, 4), x(4, 4)),
    "relu": lambda x: F.relu(x(4)),
    "gelu": lambda x: F.gelu(x(4)),
    "silu": lambda x: F.silu(x(4)),
    "sigmoid, tanh": lambda x: x(4).sigmoid(),
    "add, mul": lambda x: x(4) + x(4),
    "max_pool2d": lambda x: F.max_pool2d(x(1, 4, 4, 4), 2),
    "max_pool3d": lambda x: F.max_pool3d(x(1, 4, 4, 4, 4), 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x(1, 4, 4, 4), 2),
    "avg_pool3d": lambda x: F.avg_pool3d(x(1, 4, 4, 4, 4), 2),
    "interpolate, bilinear": lambda x: F.interpolate(
        x(1, 4, 4, 4), scale_factor=2, mode="bilinear"
    ),
    "reflection pad": lambda x: F.pad(x(1, 4, 4, 4), (1, 1, 1, 1), "reflect"),
    "embedding": lambda x: F.embedding(x(4).long(), x(4, 4)),
}


@contextmanager
def autocast(device: str) -> Iterator[None]:
    """``torch.autocast(device, torch.bfloat16)``, which refuses "cuda" where there is none."""
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])
        torch.clear_autocast_cache()


def made(op: Callable[..., Any], device: str) -> str:
    """What it makes: always this, or that of what it is given."""

    def of(dtype: torch.dtype) -> torch.dtype:
        return op(lambda *shape: torch.empty(shape, device=device, dtype=dtype)).dtype

    with FakeTensorMode(), autocast(device):
        found = [of(torch.float32), of(torch.bfloat16)]
    if found == [torch.float32, torch.bfloat16]:
        return "as given"
    names = {str(dtype).removeprefix("torch.") for dtype in found}
    return " or ".join(sorted(names))


def rows() -> Iterator[str]:
    """Of the table; those in which the devices differ are bold."""
    for name, op in OPS.items():
        cpu, cuda = made(op, "cpu"), made(op, "cuda")
        cell = name if cpu == cuda else f"**{name}**"
        yield f"| {cell} | {cpu} | {cuda} |"


def page() -> str:
    """The page with the table that is measured now."""
    text = PAGE.read_text()
    table = "\n".join([*HEAD, *rows()])
    return re.sub(re.escape(HEAD[0]) + r"\n(\|.*\n?)+", lambda _: table + "\n", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args().check:
        sys.exit(page() != PAGE.read_text())
    PAGE.write_text(page())
