"""What the mean of every loss divides by, and what a mean of means does to its gradient.

    python benchmarks/losses_page.py            measures every row and writes the table of
                                                docs/losses.md
    python benchmarks/losses_page.py --check    exit 1 if it would write another page

Every number is measured, on the batches of parity_tests/batches.py.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple


os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.append(str(Path(__file__).parent.parent / "parity_tests"))

import jax
import numpy as np
import torch
import torch.nn.functional as F

from batches import CASES, Case, accumulated, cut, inputs, of_torch, options, parameters
from instep import losses


PAGE = Path(__file__).parent.parent / "docs" / "losses.md"
SPLIT = (1, 2, 5)  # examples
INF = float("inf")


class Row(NamedTuple):
    loss: str
    divides_by: str
    where: str  # its shape, or the one that it begins
    how: str = ""  # of the case that is measured

    @property
    def case(self) -> Case:
        return next(c for c in CASES if (c.name, c.how) == (self.loss, self.how))


ELEMENTS = "number of elements"
ALSO = f"{ELEMENTS}, with weights as well"
OR_SUM = f"{ELEMENTS}; with `weight` its sum"
EXAMPLES = "number of examples"
LABELS = "sum of the weights of the labels that are not ignored"
OR_TERMS = f"{LABELS}; of probabilities the number of terms"
BROADCAST = "of `input` against `target`"
ROWS = (
    Row("binary_cross_entropy", ALSO, "of `input`", "weight"),
    Row("binary_cross_entropy_with_logits", ALSO, "of `input`", "weight, pos_weight"),
    Row("cosine_embedding_loss", EXAMPLES, "(N,)"),
    Row("cross_entropy", OR_TERMS, "(N, d1, ...)", "weight, ignore_index, label_smoothing"),
    Row("cross_entropy", OR_TERMS, "(N, d1, ...)", "probabilities, weight"),
    Row("ctc_loss", f"{EXAMPLES}, each loss by its number of labels, or 1", "(N,)"),
    Row("gaussian_nll_loss", ELEMENTS, BROADCAST, "one variance per example"),
    Row("hinge_embedding_loss", ELEMENTS, BROADCAST),
    Row("huber_loss", ALSO, "of `input`", "weight"),
    Row("kl_div", ELEMENTS, BROADCAST),
    Row("kl_div", "length of the first axis of `input`", "(N,)", "batchmean"),
    Row("l1_loss", OR_SUM, "of `input`", "weight"),
    Row("linear_cross_entropy", OR_TERMS, "(N, d1, ...)", "weight"),
    Row("margin_ranking_loss", ELEMENTS, "of the inputs"),
    Row("mse_loss", OR_SUM, "of `input`", "weight"),
    Row("multi_margin_loss", f"{EXAMPLES}, with weights as well", "(N,)", "weight, p"),
    Row("multilabel_margin_loss", EXAMPLES, "(N,)"),
    Row("multilabel_soft_margin_loss", f"{EXAMPLES}, each loss by C", "(N, ...)", "weight"),
    Row("nll_loss", LABELS, "(N, d1, ...)", "weight, ignore_index"),
    Row("poisson_nll_loss", ELEMENTS, BROADCAST),
    Row("smooth_l1_loss", ELEMENTS, "of `input`"),
    Row("soft_margin_loss", ELEMENTS, BROADCAST),
    Row("triplet_margin_loss", EXAMPLES, "(N,)"),
    Row("triplet_margin_with_distance_loss", "number of distances", "of a distance"),
)


class At(NamedTuple):
    """A point where the slope is a choice: its name, the arguments, and which is moved."""

    loss: str
    name: str
    args: Sequence[Any]
    moved: int = 0
    how: dict[str, Any] | None = None

    def measure(self) -> str:
        """Value and slope in PyTorch; ours are the same or this fails."""
        given = {"reduction": "sum"} | (self.how or {})
        tensors = [torch.tensor(x) for x in self.args]
        tensors[self.moved].requires_grad_()
        value = getattr(F, self.loss)(*tensors, **given)
        (slope,) = torch.autograd.grad(value, tensors[self.moved])

        def ours(*arrays):
            return getattr(losses, self.loss)(*arrays, **given)

        found = jax.value_and_grad(ours, self.moved)(*(x.detach().numpy() for x in tensors))
        for t, o in zip((value, slope), found, strict=True):
            np.testing.assert_allclose(o, t.detach(), rtol=1e-12, err_msg=str(self))
        slopes = ", ".join(f"{s:.4g}" for s in np.ravel(slope) + 0.0)
        return f"{self.name}: {value.item() + 0.0:.4g}, slope {slopes}"


A, B, ZERO = [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]
MEAN = {"reduction": "mean"}
NO_PATH = ([[[-1.0, -1.0]]], [[1, 1]], [1], [2])  # for two labels in one step
POINTS = (
    At("binary_cross_entropy", "x = 0, y = 1", ([0.0], [1.0])),
    At("binary_cross_entropy", "x = 1, y = 0", ([1.0], [0.0])),
    At("binary_cross_entropy_with_logits", "x = -800, y = 1", ([-800.0], [1.0])),
    At("cosine_embedding_loss", "a = 0, b = (0, 1), y = 1", ([ZERO], [B], [1.0])),
    At("cosine_embedding_loss", "cos = margin, y = -1", ([A], [B], [-1.0])),
    At("cross_entropy", "all ignored, the mean", ([A], [-100]), 0, MEAN),
    At("cross_entropy", "another logit is -inf", ([[0.0, -INF]], [0])),
    At("ctc_loss", "no path", NO_PATH),
    At("ctc_loss", "the same, zero_infinity", NO_PATH, 0, {"zero_infinity": True}),
    At("gaussian_nll_loss", "var = 0, eps = 0.5", ([1.0], [0.0], [0.0]), 2, {"eps": 0.5}),
    At("hinge_embedding_loss", "x = margin, y = -1", ([1.0], [-1.0])),
    At("huber_loss", "x - y = delta = 2", ([2.0], [0.0]), 0, {"delta": 2.0}),
    At("kl_div", "y = 0", ([-1.0], [0.0])),
    At("kl_div", "y = 0, by y", ([-1.0], [0.0]), 1),
    At("l1_loss", "x = y", ([1.0], [1.0])),
    At("margin_ranking_loss", "x1 = x2", ([1.0], [1.0], [1.0])),
    At("multi_margin_loss", "at the margin", ([A], [0])),
    At("multilabel_margin_loss", "at the margin", ([A], [[0, -1]])),
    At("nll_loss", "all ignored, the mean", ([A], [-100]), 0, MEAN),
    At("poisson_nll_loss", "full, y = 1: no Stirling", ([0.0], [1.0]), 0, {"full": True}),
    At("smooth_l1_loss", "x = y, beta = 0", ([1.0], [1.0]), 0, {"beta": 0.0}),
    At("smooth_l1_loss", "x - y = beta = 2", ([2.0], [0.0]), 0, {"beta": 2.0}),
    At("soft_margin_loss", "x = -800, y = 1", ([-800.0], [1.0])),
    At("triplet_margin_loss", "at the kink, by n", ([ZERO], [ZERO], [A]), 2, {"eps": 0.0}),
    At("triplet_margin_loss", "a = p = n, eps = 0", [[ZERO]] * 3, 0, {"eps": 0.0}),
)


class Found(NamedTuple):
    """Of one row."""

    weight: float
    mean_of_means: float
    ours: float
    second: str  # gradient, in PyTorch


def measure(row: Row) -> Found:
    case = row.case
    batch = case.batch(0, sum(SPLIT))
    params, pieces = parameters(batch), cut(batch, SPLIT)
    acc, weights = accumulated(case, pieces, params)
    _, whole = of_torch(case, [batch], params)
    _, means = of_torch(case, pieces, params)
    return Found(
        weights.sum(),
        relative_error(means, whole),
        relative_error(acc.grads, whole),
        second_gradient(case),
    )


def relative_error(found: dict, expected: dict) -> float:
    """Of the worst gradient, over its largest number."""
    return max(np.abs(found[k] - g).max() / np.abs(g).max() for k, g in expected.items())


def second_gradient(case: Case) -> str:
    batch = case.batch(0, 2)
    tensors = {k: torch.tensor(x.value) for k, x in inputs(batch).items()}
    leaves = [tensors[k].requires_grad_() for k, x in inputs(batch).items() if x.grad]
    loss = case.torch(options(batch) | tensors)
    grads = torch.autograd.grad(loss, leaves, create_graph=True)
    if not any(g.requires_grad for g in grads):
        return "0"
    try:
        torch.autograd.grad(sum((g**2).sum() for g in grads), leaves, allow_unused=True)
    except RuntimeError:
        return "none"
    return "yes"


HEAD = (
    "| `torch.nn.functional` | the mean divides by | `where` | weight | mean of means "
    "| `total_and_weight` | second gradient | where the slope is a choice: loss, slope |"
)


def table() -> str:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with jax.enable_x64(True), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kl_div's mean
            found = [measure(row) for row in ROWS]
            points = {
                row.loss: [p.measure() for p in POINTS if p.loss == row.loss] for row in ROWS
            }
    finally:
        torch.set_default_dtype(default)
    lines = [HEAD, cells(["---"] * 8)]
    for row, f in zip(ROWS, found, strict=True):
        call = f"`{row.loss}`" + (f", {row.how}" if row.how else "")
        ours = "rounding" if f.ours < 1e-12 else f"{f.ours:.1e}"
        numbers = (f"{f.weight:.4g}", f"{f.mean_of_means:.2f}", ours, f.second)
        said = "; ".join(points.pop(row.loss, ()))  # once for every loss
        lines.append(cells((call, row.divides_by, row.where, *numbers, said)))
    return "\n".join(lines)


def render(page: str, versions: str) -> str:
    """The page with another table, and other versions."""
    before, _, after = re.split(r"((?:^\|.*\n)+)", page, maxsplit=1, flags=re.MULTILINE)
    before = re.sub(
        r"Measured with .*? in float64", f"Measured with {versions}, in float64", before
    )
    return f"{before}{table()}\n{after}"


def cells(texts) -> str:
    return f"| {' | '.join(texts)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    args = parser.parse_args()
    versions = " and ".join(f"{p} {version(p).partition('+')[0]}" for p in ("torch", "jax"))
    old = PAGE.read_text()
    new = render(old, versions)
    if args.check:
        sys.exit(new != old)
    PAGE.write_text(new)


if __name__ == "__main__":
    main()
