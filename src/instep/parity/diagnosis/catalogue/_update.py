"""Mistakes in what is done with an update."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ....bridge._torch_loop import TorchLoop
from .._evidence import Evidence
from .._mistake import Variant, mistake


def _stay(chosen: tuple[str, ...]) -> dict[str, Callable]:
    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        before = dict(evidence.loop.model.named_parameters())
        for name, p in loop.model.named_parameters():
            if name in chosen:
                p.copy_(before[name])
        return loop

    return {"update": change}


@mistake("Train it: it is in params and in trainable=, and no mask sets its update to zero.")
def parameter_frozen(evidence: Evidence):
    """A parameter is not updated, where PyTorch's is."""
    names = evidence.names
    yield Variant(_stay(tuple(names)))
    parts = [name.split(".") for name in names]
    prefixes = dict.fromkeys(".".join(p[:i]) for p in parts for i in range(1, len(p) + 1))
    for prefix in prefixes:
        chosen = [name for name in names if f"{name}.".startswith(f"{prefix}.")]
        if len(chosen) < len(names):
            yield Variant(_stay(tuple(chosen)), prefix)
    for last in dict.fromkeys(p[-1] for p in parts):
        chosen = [name for name in names if name.rpartition(".")[2] == last]
        yield Variant(_stay(tuple(chosen)), f"every {last}")


@mistake(
    "Leave it out: trainable= in make_train_step, or a mask; a gradient of zeros is a gradient."
)
def frozen_steps(evidence: Evidence):
    """A parameter that is frozen in PyTorch is stepped with a gradient of zeros: it decays."""
    parameters = evidence.loop.model.named_parameters()
    frozen = [name for name, p in parameters if not p.requires_grad]

    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        groups = loop.optimizer.param_groups
        for p in map(loop.model.get_parameter, frozen):
            p.requires_grad_(True)
            p.grad = torch.zeros_like(p)
            if not any(p is x for group in groups for x in group["params"]):
                groups[0]["params"].append(p)
        return loop

    def forget(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        for p in map(loop.model.get_parameter, frozen):
            loop.optimizer.state.pop(p, None)  # PyTorch shows none
        return loop

    if frozen:
        yield Variant({"optimizer": change, "update": forget}, ", ".join(frozen))


@mistake("Subtract the update: optax adds updates that already have their sign.")
def update_negated(evidence: Evidence):
    """The update goes uphill."""

    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        before = dict(evidence.loop.model.named_parameters())
        for name, p in loop.model.named_parameters():
            p.copy_(2 * before[name] - p)
        return loop

    yield Variant({"update": change})


@mistake("Step once.")
def step_twice(evidence: Evidence):
    """The optimizer steps twice with the same gradients."""

    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        loop.optimizer.step()
        return loop

    yield Variant({"update": change})
