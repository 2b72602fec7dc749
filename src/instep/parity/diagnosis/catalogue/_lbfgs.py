"""Mistakes in L-BFGS: its memory, its line search, when it stops."""

from __future__ import annotations

from typing import Any

from ....bridge._torch_loop import TorchLoop
from .._evidence import Evidence
from .._mistake import Variant, mistake


SETTINGS: dict[str, tuple[Any, ...]] = {
    "history_size": (10, 100, 5, 20, 50),
    "max_iter": (20, 1, 5, 10, 50),
    "line_search_fn": (None, "strong_wolfe"),
    "tolerance_grad": (1e-7, 1e-5, 0.0),
    "tolerance_change": (1e-9, 1e-5, 0.0),
}


@mistake("Give instep.optim.lbfgs the settings of PyTorch's LBFGS.")
def another_lbfgs_setting(evidence: Evidence):
    """L-BFGS has another memory or line search, or stops at another place."""
    if not evidence.takes_closure:
        return
    (group,) = evidence.loop.optimizer.param_groups
    for name, values in SETTINGS.items():
        for value in values:
            if value != group[name]:

                def change(
                    evidence: Evidence, loop: TorchLoop, name=name, value=value
                ) -> TorchLoop:
                    loop.optimizer.param_groups[0][name] = value
                    return loop

                yield Variant({"optimizer": change}, value=f"{name}={value!r}")


@mistake("Keep the state of L-BFGS between the steps: its curvature pairs and directions.")
def lbfgs_forgets(evidence: Evidence):
    """L-BFGS begins anew at every step."""
    if not evidence.takes_closure or evidence.last is None:
        return

    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        loop.optimizer.state.clear()
        return loop

    yield Variant({"optimizer": change})
