"""Adam, SGD, RMSprop and Adagrad as PyTorch's, with the places marked where dialects differ.

A mistake sets entries of the optimizer's ``Dialect``; with none set, a step is PyTorch's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Dialect:
    """What may be done otherwise."""

    corrected: tuple[bool, bool] = (True, True)  # Adam's moments, for their start at zero
    ahead: int = 0  # steps that the correction believes to have been taken already
    inside: bool = False  # epsilon under the root
    uncorrected_epsilon: bool = False  # epsilon beside the root before it is corrected
    coupled: bool | None = None  # decay in the gradient; None: as PyTorch's optimizer
    unscaled: bool = False  # decoupled decay without the learning rate
    after: bool = False  # decoupled decay of the parameter that the step has made
    dampens_first: bool = False
    rate_inside: float = 0.0  # the learning rate times this in the momentum, not before it
    nesterov: bool | None = None
    amsgrad: bool | None = None


def speak(optimizer: torch.optim.Optimizer, **dialect: Any) -> None:
    """Let ``optimizer`` take its step in a dialect.

    Raises:
      ValueError: it is of no family that is written here.
    """
    family = next((f for kind, f in FAMILIES.items() if isinstance(optimizer, kind)), None)
    if family is None or any(group.get("centered") for group in optimizer.param_groups):
        raise ValueError(f"no dialects of {type(optimizer).__name__} are known")
    spoken = replace(getattr(optimizer, "_dialect", Dialect()), **dialect)
    optimizer._dialect = spoken  # type: ignore[attr-defined]

    def step() -> None:
        with torch.no_grad():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        g = -p.grad if group.get("maximize") else p.grad
                        family(p, g, optimizer.state[p], group, spoken)

    optimizer.step = step  # type: ignore[method-assign]


def adam(p, g, state, group, d: Dialect) -> None:
    """Adam and AdamW."""
    lr, eps, decay, (b1, b2) = (float(group["lr"]), group["eps"], group["weight_decay"],
                                group["betas"])  # fmt: skip
    coupled = not group.get("decoupled_weight_decay", False) if d.coupled is None else d.coupled
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
    m, v = state["exp_avg"], state["exp_avg_sq"]
    state["step"] += 1
    t = state["step"].double() + d.ahead  # a tensor: t = 0 gives infinity, as it does in JAX
    if decay and coupled:
        g = g + decay * p
    decayed = 0.0 if coupled else decay * (1 if d.unscaled else lr)
    if not d.after:
        p.mul_(1 - decayed)
    m.lerp_(g, 1 - b1)
    v.mul_(b2).addcmul_(g, g, value=1 - b2)
    c1 = 1 - b1**t if d.corrected[0] else 1.0
    c2 = 1 - b2**t if d.corrected[1] else 1.0
    if group.get("amsgrad") and d.amsgrad is not False:
        most = state.setdefault("max_exp_avg_sq", torch.zeros_like(p))
        v = torch.maximum(most, v, out=most)
    if d.inside:
        root = (v / c2 + eps).sqrt()
    elif d.uncorrected_epsilon:
        root = (v.sqrt() + eps) / c2**0.5
    else:
        root = v.sqrt() / c2**0.5 + eps
    update = lr / c1 * m / root
    if d.after:
        p.mul_(1 - decayed)
    p.sub_(update)


def sgd(p, g, state, group, d: Dialect) -> None:
    """SGD with momentum."""
    lr, momentum, decay = float(group["lr"]), group["momentum"], group["weight_decay"]
    nesterov = group["nesterov"] if d.nesterov is None else d.nesterov
    if decay and d.coupled is not False:
        g = g + decay * p
    if momentum:
        first = state.get("momentum_buffer") is None
        if first:
            state["momentum_buffer"] = torch.zeros_like(p)
        v = state["momentum_buffer"]
        dampened = 1 - group["dampening"] if not first or d.dampens_first else 1.0
        g = g * (d.rate_inside * lr) if d.rate_inside else g
        v.mul_(momentum).add_(g, alpha=dampened)
        g = g + momentum * v if nesterov else v
        lr = d.rate_inside or lr
    if decay and d.coupled is False:
        p.mul_(1 - float(group["lr"]) * decay if not d.unscaled else 1 - decay)
    p.sub_(lr * g)


def rmsprop(p, g, state, group, d: Dialect) -> None:
    """RMSprop, with momentum, not centred."""
    lr, alpha, eps, decay = (float(group["lr"]), group["alpha"], group["eps"],
                             group["weight_decay"])  # fmt: skip
    if decay and d.coupled is not False:
        g = g + decay * p
    if not state:
        state["step"], state["square_avg"] = torch.tensor(0.0), torch.zeros_like(p)
        if group["momentum"]:
            state["momentum_buffer"] = torch.zeros_like(p)
    state["step"] += 1
    v = state["square_avg"]
    v.mul_(alpha).addcmul_(g, g, value=1 - alpha)
    root = (v + eps).sqrt() if d.inside else v.sqrt() + eps
    update = g / root
    if group["momentum"]:
        moved = state.setdefault("momentum_buffer", torch.zeros_like(p))
        update = moved.mul_(group["momentum"]).add_(update)
    if decay and d.coupled is False:
        p.mul_(1 - (1.0 if d.unscaled else lr) * decay)
    p.sub_(lr * update)


def adagrad(p, g, state, group, d: Dialect) -> None:
    """Adagrad."""
    lr, eps, decay = float(group["lr"]), group["eps"], group["weight_decay"]
    if decay:
        g = g + decay * p
    state["step"] += 1
    lr = lr / (1 + (float(state["step"]) - 1) * group["lr_decay"])
    v = state["sum"].addcmul_(g, g)
    p.sub_(lr * g / ((v + eps).sqrt() if d.inside else v.sqrt() + eps))


FAMILIES = {
    torch.optim.Adam: adam,  # AdamW is one
    torch.optim.SGD: sgd,
    torch.optim.RMSprop: rmsprop,
    torch.optim.Adagrad: adagrad,
}
