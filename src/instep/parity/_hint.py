"""What most often lies behind a verdict that can be read off the loop itself."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from ._report import Report


# Relative errors below this size in a float64 walk come from something small.
SMALL = 1e-5


def hint(report: Report, dropouts: Sequence[str], is_fresh: bool = False) -> str | None:
    """One sentence on where to look first, or None.

    Args:
      report: so far.
      dropouts: the names of PyTorch's dropout layers that draw.
      is_fresh: PyTorch's optimizer is known to have taken no step.
    """
    first = report.first_divergence
    if first is None:
        hidden = "gradient: the JAX side does not show"
        if any(sentence.startswith(hidden) for sentence in report.coverage.unseen):
            return "return the gradients too: View(loss, params, grads=...)"
        return None
    if first.step == 0 and first.leaf.kind == "state" and not is_fresh:
        return (
            "PyTorch's optimizer has taken steps already and the JAX half starts fresh; give "
            "JaxLoop opt_state=lambda: bridge.optimizer_from_torch(optimizer, ...)[1]"
        )
    if first.stage in ("loss", "gradient") and dropouts:
        return (
            f"dropout is active ({', '.join(dropouts)}) and no two frameworks draw the same "
            f"mask; compare with p=0"
        )
    if first.measurement.error == inf:
        return "one side has NaN or infinity where the other has numbers, or another shape"
    if first.stage == "unscale":
        return (
            "PyTorch's scale grows at the growth_interval-th finite step and has no floor; "
            "flax's DynamicScale grows one step later, jmp's stops at 1"
        )
    if not first.walk.startswith("float64"):
        if first.stage == "optimizer":
            return (
                "in float64 both agree, so this is rounding: optax takes 1 - beta**t in "
                "float32, instep.optim does not"
            )
        return (
            "in float64 both agree, so this is rounding: look for a cast to a lower precision, "
            "a sum taken in one, or a matmul_precision that PyTorch does not use"
        )
    m = first.measurement
    if first.stage in ("loss", "gradient") and m.scale and m.error < SMALL * m.scale:
        return (
            "an error of this size comes from an epsilon (Flax's norms have 1e-6, PyTorch's "
            "1e-5), from GELU by tanh, or from a constant made in float32"
        )
    return None
