"""What most often lies behind a verdict that can be read off the loop itself."""

from __future__ import annotations

from torch import nn

from ..bridge._torch_loop import TorchLoop
from ._report import Report


# Relative errors below this size come from float32 in a walk that is float64.
FLOAT32 = 1e-5


def hint(report: Report, loop: TorchLoop) -> str | None:
    """One sentence on where to look first, or None."""
    first = report.first_divergence
    if first is None:
        hidden = "gradient: the JAX side does not show"
        if any(sentence.startswith(hidden) for sentence in report.coverage.unseen):
            return "return the gradients too: View(loss, params, grads=...)"
        return None
    if first.step == 0 and first.leaf.kind == "state":
        return (
            "PyTorch's optimizer has taken steps already and the JAX half starts fresh; "
            "compare from a fresh optimizer"
        )
    drawing = [
        name
        for name, module in loop.model.named_modules()
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p
    ]
    if first.stage in ("loss", "gradient") and drawing:
        return (
            f"dropout is active ({', '.join(drawing)}) and no two frameworks draw the same "
            f"mask; compare with p=0"
        )
    if not first.walk.startswith("float64"):
        return (
            "in float64 both agree, so this is rounding: look for a cast to a lower precision, "
            "a sum taken in one, or a matmul_precision that PyTorch does not use"
        )
    m = first.measurement
    if first.stage in ("loss", "gradient") and m.scale and m.error < FLOAT32 * m.scale:
        return (
            "an error of this size is float32's: look for a cast to float32, or a constant "
            "made in it, in either half"
        )
    return None
