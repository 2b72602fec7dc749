"""Mistakes in L-BFGS: its memory, its line search, when it stops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....bridge._torch_loop import TorchLoop
from ..._leaf import Leaf
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
        for value in dict.fromkeys((*values, *_told(evidence, name))):
            if value != group[name]:
                changed = {name: value}
                if name == "max_iter":  # PyTorch's default for the other
                    changed["max_eval"] = value * 5 // 4

                def change(evidence: Evidence, loop: TorchLoop, to=changed) -> TorchLoop:
                    loop.optimizer.param_groups[0].update(to)
                    return loop

                said = f"{name}={value!r}"
                yield Variant({"optimizer": change}, value=said, told=value not in values)


def _told(evidence: Evidence, name: str) -> Iterator[int]:
    """What the state of the JAX side says of a setting."""
    state = {leaf.name: value for leaf, value in evidence.seen.items() if leaf.kind == "state"}
    iterations = Leaf("state", "LBFGS.n_iter")
    if name == "max_iter" and iterations in evidence.seen:
        yield int(evidence.seen[iterations]) - int(evidence.stood.get(iterations, 0))
    if name == "history_size":
        yield from (len(x) for slot, x in state.items() if slot.endswith("old_dirs"))


@mistake("Keep the state of L-BFGS between the steps: its curvature pairs and directions.")
def lbfgs_forgets(evidence: Evidence):
    """L-BFGS begins anew at every step."""
    if not evidence.takes_closure or evidence.last is None:
        return

    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        loop.optimizer.state.clear()
        return loop

    yield Variant({"optimizer": change})
