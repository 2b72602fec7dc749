"""Mistakes in weight decay: how much, of what, and where it enters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ....bridge._torch_loop import TorchLoop
from .._evidence import Evidence
from .._mistake import Dial, Variant, mistake
from ._textbook import speak


def _decays(evidence: Evidence) -> bool:
    groups = evidence.loop.optimizer.param_groups
    return any(group.get("weight_decay") for group in groups)


def _largest(evidence: Evidence) -> float:
    groups = evidence.loop.optimizer.param_groups
    return max(group.get("weight_decay", 0.0) for group in groups)


def _set(
    chosen: Callable[[str, torch.Tensor], bool], decay: float
) -> dict[str, Callable[[Evidence, TorchLoop], TorchLoop]]:
    """Another decay of the parameters that are chosen: they get a group of their own."""

    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        names = {p: name for name, p in loop.model.named_parameters()}
        groups: list[dict[str, Any]] = []
        for group in loop.optimizer.param_groups:
            mine = [p for p in group["params"] if chosen(names.get(p, ""), p)]
            rest = [p for p in group["params"] if not any(p is x for x in mine)]
            groups.append(group | {"params": rest})
            groups.append(group | {"params": mine, "weight_decay": decay})
        loop.optimizer.param_groups[:] = groups
        return loop

    return {"optimizer": change}


def _all(name: str, p: torch.Tensor) -> bool:
    return True


@mistake("Give weight_decay= as PyTorch has it.")
def no_decay(evidence: Evidence):
    """Weights do not decay."""
    if _decays(evidence):
        yield Variant(_set(_all, 0.0))
        for name in evidence.names:
            yield Variant(_set(lambda n, p, name=name: n == name, 0.0), name)


@mistake("Give weight_decay= as PyTorch has it: optax.adamw's default is 1e-4, PyTorch's 1e-2.")
def another_decay(evidence: Evidence):
    """Weights decay by another factor."""
    groups = evidence.loop.optimizer.param_groups
    if "weight_decay" not in groups[0]:
        return
    own = _largest(evidence)
    for decay in (
        1e-4,
        1e-2,
        1e-3,
        0.1,
        5e-4,
        0.05,
        1e-5,
        own / 2,
        2 * own,
        own / 10,
        10 * own,
    ):
        if decay and decay != own:
            yield Variant(_among(decay), value=f"weight_decay={decay:g}")
            if not all(group["weight_decay"] for group in groups):
                yield Variant(_set(_all, decay), value=f"weight_decay={decay:g}, of all")
    yield Dial(lambda v: Variant(_among(v), value=f"weight_decay={v:.6g}"), own)
    yield Dial(lambda v: Variant(_set(_all, v), value=f"weight_decay={v:.6g}, of all"), own)


def _among(decay: float) -> dict[str, Callable]:
    """Only where there is decay at all."""

    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        for group in loop.optimizer.param_groups:
            if group.get("weight_decay"):
                group["weight_decay"] = decay
        return loop

    return {"optimizer": change}


@mistake("Give the optimizer a mask, or instep.optim.param_groups, as PyTorch has groups.")
def decay_on_all(evidence: Evidence):
    """Everything decays, where in PyTorch a group does not."""
    groups = evidence.loop.optimizer.param_groups
    if _decays(evidence) and not all(group["weight_decay"] for group in groups):
        yield Variant(_set(_all, _largest(evidence)))


@mistake("PyTorch decays every parameter of a group, biases and norms too: no mask.")
def decay_not_on_vectors(evidence: Evidence):
    """Biases and norms do not decay, where PyTorch's do."""
    if not _decays(evidence):
        return
    yield Variant(_set(lambda name, p: p.ndim < 2, 0.0))
    yield Variant(_set(lambda name, p: "bias" in name, 0.0), value="those called bias")


@mistake("AdamW decays the weights themselves: optax.adamw, or instep.optim.adamw.")
def decay_coupled(evidence: Evidence):
    """Decay is added to the gradient, where PyTorch takes it from the weights."""
    if _decays(evidence) and _is_decoupled(evidence):
        yield Variant({"optimizer": _spoken(coupled=True)})


@mistake("PyTorch's Adam adds decay to the gradient: instep.optim.adam(weight_decay=).")
def decay_decoupled(evidence: Evidence):
    """Decay is taken from the weights, where PyTorch adds it to the gradient."""
    if _decays(evidence) and not _is_decoupled(evidence):
        yield Variant({"optimizer": _spoken(coupled=False)})
        if isinstance(evidence.loop.optimizer, torch.optim.Adam):
            yield Variant({"optimizer": _spoken(coupled=False, after=True)})
        yield Variant({"optimizer": _spoken(coupled=False, unscaled=True)}, value="without lr")


@mistake(
    "PyTorch multiplies the decay by the learning rate: decay before scale_by_learning_rate."
)
def decay_not_scaled_by_lr(evidence: Evidence):
    """Decoupled decay is not multiplied by the learning rate."""
    if _decays(evidence) and _is_decoupled(evidence):
        yield Variant({"optimizer": _spoken(unscaled=True)})


def _is_decoupled(evidence: Evidence) -> bool:
    """Whether PyTorch's optimizer takes decay from the weights, as AdamW does."""
    return bool(evidence.loop.optimizer.param_groups[0].get("decoupled_weight_decay"))


def _spoken(**dialect: Any) -> Callable[[Evidence, TorchLoop], TorchLoop]:
    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        speak(loop.optimizer, **dialect)
        return loop

    return change
