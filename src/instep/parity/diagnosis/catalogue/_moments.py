"""Mistakes in what an optimizer remembers, and in how it divides by it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

from ....bridge._torch_loop import TorchLoop
from .._evidence import Evidence
from .._mistake import Dial, Variant, mistake
from ._textbook import speak


ADAM = torch.optim.Adam
SGD = torch.optim.SGD


def _is(evidence: Evidence, *kinds: type) -> bool:
    return isinstance(evidence.loop.optimizer, kinds)


def _dialect(value: str = "", **dialect: Any) -> Variant:
    return Variant(
        {"optimizer": lambda evidence, loop: _speak(loop, dialect)},
        value=value,
    )


def _speak(loop: TorchLoop, dialect: dict[str, Any]) -> TorchLoop:
    speak(loop.optimizer, **dialect)
    return loop


def _setting(name: str, value: Any, said: str = "") -> Variant:
    """Another value of a setting, in every group."""

    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        for group in loop.optimizer.param_groups:
            group[name] = value
        return loop

    return Variant({"optimizer": change}, value=said or f"{name}={value}")


def _dial(evidence: Evidence, name: str) -> Iterator[Dial]:
    """Any other value of a setting that is a number."""
    own = _now(evidence, name)
    if isinstance(own, float):
        yield Dial(lambda value: _setting(name, value, f"{name}={value:.6g}"), own)


def _now(evidence: Evidence, name: str) -> Any:
    return evidence.loop.optimizer.param_groups[0].get(name)


@mistake("Divide the moments by 1 - beta**t: optax.scale_by_adam and instep.optim do.")
def no_bias_correction(evidence: Evidence):
    """Adam's moments are not corrected for their start at zero."""
    if _is(evidence, ADAM):
        yield _dialect(corrected=(False, False))
        yield _dialect("of the first moment", corrected=(False, True))
        yield _dialect("of the second moment", corrected=(True, False))


@mistake("The first step is t = 1 in 1 - beta**t.")
def bias_correction_off_by_one(evidence: Evidence):
    """Adam's bias correction counts the steps from another number."""
    if _is(evidence, ADAM):
        yield _dialect("one ahead", ahead=1)
        yield _dialect("one behind", ahead=-1)


@mistake(
    "PyTorch's epsilon is beside the root: eps=, not eps_root=; RMSprop: eps_in_sqrt=False."
)
def epsilon_inside_root(evidence: Evidence):
    """Epsilon is added under the root, PyTorch's beside it."""
    if not _is(evidence, ADAM, torch.optim.RMSprop, torch.optim.Adagrad):
        return
    yield _dialect(inside=True)

    def squared(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        for group in loop.optimizer.param_groups:
            group["eps"] = group["eps"] ** 2
        speak(loop.optimizer, inside=True)
        return loop

    yield Variant({"optimizer": squared}, value="eps**2")


@mistake("PyTorch adds epsilon to the root after its bias correction.")
def epsilon_before_correction(evidence: Evidence):
    """Epsilon is added to the root before its bias correction."""
    if _is(evidence, ADAM):
        yield _dialect(uncorrected_epsilon=True)


@mistake("Give eps= as PyTorch has it.")
def another_epsilon(evidence: Evidence):
    """The optimizer has another epsilon."""
    own = _now(evidence, "eps")
    for eps in (1e-8, 1e-7, 1e-6, 1e-5, 1e-10, 1e-4, 1e-3, 1e-12, 1e-15, 0.0):
        if own is not None and eps != own:
            yield _setting("eps", eps)
    yield from _dial(evidence, "eps")


@mistake("Give b1= and b2=, decay= or momentum= as PyTorch has them.")
def another_beta(evidence: Evidence):
    """The optimizer forgets at another rate."""
    if betas := _now(evidence, "betas"):
        firsts, seconds = (0.9, 0.95, 0.99, 0.8, 0.5, 0.0), (0.999, 0.99, 0.95, 0.98, 0.9)
        for b1, b2 in product(firsts, seconds):
            if b1 != betas[0] and b2 != betas[1]:
                yield _setting("betas", (b1, b2))
        for i, values in ((0, firsts), (1, seconds)):
            for value in values:
                if value != betas[i]:
                    yield _beta(i, value)
            yield Dial(partial(_beta, i), betas[i])
    for name, values in (
        ("momentum", (0.9, 0.95, 0.99, 0.8, 0.5)),
        ("alpha", (0.9, 0.99, 0.95, 0.999)),
    ):
        own = _now(evidence, name)
        for value in values:
            if own and value != own:
                yield _setting(name, value)
        if own:
            yield from _dial(evidence, name)


def _beta(i: int, value: float) -> Variant:
    """One of the two; the other stays as it is."""

    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        for group in loop.optimizer.param_groups:
            betas = list(group["betas"])
            betas[i] = value
            group["betas"] = tuple(betas)
        return loop

    return Variant({"optimizer": change}, value=f"beta{i + 1}={value:.6g}")


@mistake("momentum= of the optimizer.")
def no_momentum(evidence: Evidence):
    """Nothing is remembered of the gradients of the steps before."""
    if not _now(evidence, "momentum"):
        return

    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        for group in loop.optimizer.param_groups:
            group["momentum"], group["nesterov"] = 0.0, False
        return loop

    yield Variant({"optimizer": change})


@mistake("nesterov=False, as PyTorch has it.")
def nesterov_added(evidence: Evidence):
    """Nesterov's momentum, and PyTorch's is plain."""
    if _is(evidence, SGD) and _now(evidence, "momentum") and not _now(evidence, "nesterov"):
        yield _dialect(nesterov=True)


@mistake("nesterov=True, as PyTorch has it.")
def nesterov_missing(evidence: Evidence):
    """Plain momentum, and PyTorch's is Nesterov's."""
    if _is(evidence, SGD) and _now(evidence, "nesterov"):
        yield _dialect(nesterov=False)


@mistake("PyTorch's dampening begins with the second step; instep.optim.sgd has it.")
def dampened(evidence: Evidence):
    """The momentum takes another share of the gradient than PyTorch's."""
    if not _is(evidence, SGD) or not _now(evidence, "momentum"):
        return
    if _now(evidence, "dampening"):
        yield _dialect("at the first step too", dampens_first=True)
        yield _setting("dampening", 0.0)
    yield _dampened(_now(evidence, "momentum"), first=True, said="a running mean")
    yield Dial(lambda value: _dampened(value, first=False), _now(evidence, "dampening"))
    yield Dial(lambda value: _dampened(value, first=True), _now(evidence, "dampening"))


def _dampened(dampening: float, first: bool, said: str = "") -> Variant:
    def change(evidence: Evidence, loop: TorchLoop) -> TorchLoop:
        for group in loop.optimizer.param_groups:
            group["dampening"] = dampening
        speak(loop.optimizer, dampens_first=first)
        return loop

    said = said or ("from the first step on" if first else "")
    return Variant(
        {"optimizer": change}, value=f"dampening={dampening:.6g}, {said}".rstrip(", ")
    )


@mistake("PyTorch multiplies the momentum by the learning rate of now: scale after the trace.")
def learning_rate_inside_momentum(evidence: Evidence):
    """The learning rate is inside the momentum: a gradient keeps the rate of its own step."""
    if _is(evidence, SGD) and _now(evidence, "momentum"):
        yield _dialect(rate_inside=1.0)
        yield _dialect("with its sign: it is what is added to the weights", rate_inside=-1.0)


@mistake("amsgrad=True, as PyTorch has it: instep.optim.adam(..., amsgrad=True).")
def amsgrad_missing(evidence: Evidence):
    """The second moment is the one of now, PyTorch's the largest so far."""
    if _is(evidence, ADAM) and _now(evidence, "amsgrad"):
        yield _dialect(amsgrad=False)


@mistake("PyTorch's Adagrad starts from 0: initial_accumulator_value=0.0; optax's from 0.1.")
def another_initial_accumulator(evidence: Evidence):
    """The squares that the optimizer remembers begin with another number."""
    if evidence.last is not None:
        return
    slot = "sum" if _is(evidence, torch.optim.Adagrad) else "square_avg"
    if not _is(evidence, torch.optim.Adagrad, torch.optim.RMSprop):
        return
    for value in (0.1, 1.0, 0.01):
        exact = {value, float(np.float32(value))}  # it may have been made in float32
        for start, optax_epsilon in product(exact, (False, True)):

            def change(
                evidence: Evidence, loop: TorchLoop, v=start, o=optax_epsilon
            ) -> TorchLoop:
                for group in loop.optimizer.param_groups:
                    for p in group["params"] if evidence.last is None else ():
                        _start(loop.optimizer.state[p], slot, p, v)
                    group["eps"] = 1e-7 if o else group["eps"]
                if o:
                    speak(loop.optimizer, inside=True)
                return loop

            said = f"{value:g}" + (", and eps=1e-7 under the root" if optax_epsilon else "")
            yield Variant({"optimizer": change}, value=said)


def _start(state: dict[str, Any], slot: str, p: torch.Tensor, value: float) -> None:
    state.setdefault("step", torch.tensor(0.0))
    state[slot] = torch.full_like(p, value)


def _same_settings(optimizer: type, group: dict[str, Any], names: tuple[str, ...]):
    given = {name: group[name] for name in names if name in group}
    return optimizer(group["params"], **given)


OTHERS = {
    "SGD": (torch.optim.SGD, ("lr", "momentum", "weight_decay")),
    "Adam": (torch.optim.Adam, ("lr", "betas", "eps", "weight_decay")),
    "RMSprop": (torch.optim.RMSprop, ("lr", "alpha", "eps", "weight_decay")),
    "Adagrad": (torch.optim.Adagrad, ("lr", "weight_decay")),
    "NAdam": (torch.optim.NAdam, ("lr", "betas", "eps", "weight_decay")),
    "Adamax": (torch.optim.Adamax, ("lr", "betas", "eps", "weight_decay")),
}


@mistake("Use the optimizer that PyTorch's loop has, from instep.optim.", special=True)
def another_algorithm(evidence: Evidence):
    """Another optimizer; it can be told at its first step, from nothing remembered."""
    if evidence.last is not None or evidence.loop.optimizer.state:
        return
    for name, (optimizer, settings) in OTHERS.items():
        if type(evidence.loop.optimizer) is optimizer:
            continue

        def change(
            evidence: Evidence, loop: TorchLoop, optimizer=optimizer, settings=settings
        ) -> TorchLoop:
            if evidence.last is None:
                others = [
                    _same_settings(optimizer, g, settings) for g in loop.optimizer.param_groups
                ]

                def step() -> None:
                    for one in others:
                        one.step()
                        loop.optimizer.state.update(one.state)

                loop.optimizer.step = step  # type: ignore[method-assign]
            return loop

        yield Variant({"optimizer": change}, value=name)
