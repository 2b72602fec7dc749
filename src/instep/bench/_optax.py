"""A PyTorch optimizer and its scheduler in optax, where optax has the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from .._state import PyTree
from .._trees import named_leaves
from ..bridge._copy import copy_loop
from ..bridge._torch_loop import TorchLoop
from ..bridge._weights import WeightMap


TABLE = 4096  # learning rates read from the scheduler; later steps use the last of them

Group = Mapping[str, Any]
Rate = float | Callable[[Any], Any]


def optax_of(
    loop: TorchLoop, weights: WeightMap
) -> tuple[optax.GradientTransformation | None, str]:
    """The transformation, and what it is called; or None, and why there is none.

    Learning rates are a table, read from the scheduler itself. Groups that differ are
    ``optax.partition`` by the labels of their leaves.
    """
    rule = RULES.get(type(loop.optimizer))
    if rule is None:
        return None, f"optax has no {type(loop.optimizer).__name__} of PyTorch's"
    if loop.optimizer.state:
        return None, "the PyTorch optimizer has a state"
    groups = loop.optimizer.param_groups
    set_here = {flag for group in groups for flag in UNKNOWN if group.get(flag)}
    if isinstance(loop.optimizer, torch.optim.AdamW):
        set_here -= {"decoupled_weight_decay"}  # which is what AdamW is
    if set_here:
        return None, f"optax has none with {', '.join(sorted(set_here))}"
    if isinstance(loop.scheduler, ReduceLROnPlateau):
        return None, "its scheduler waits for a metric"
    rates, cycled = _rates(loop)
    if cycled:
        return None, "its scheduler moves the betas or the momentum too"
    made = [rule(group, rate) for group, rate in zip(groups, rates, strict=True)]
    name = f"optax, as torch.optim.{type(loop.optimizer).__name__}"
    if len(made) == 1:
        return made[0], name
    labels = _labels(loop, weights)
    return optax.partition(dict(enumerate(made)), labels), f"{name}, {len(made)} groups"


UNKNOWN = ("amsgrad", "maximize", "dampening", "decoupled_weight_decay")


def _sgd(group: Group, rate: Rate) -> optax.GradientTransformation:
    return optax.chain(
        _decayed(group),
        optax.trace(group["momentum"], group["nesterov"])
        if group["momentum"]
        else optax.identity(),
        optax.scale_by_learning_rate(rate),
    )


def _adam(group: Group, rate: Rate) -> optax.GradientTransformation:
    return optax.chain(
        _decayed(group), _scale_by_adam(group), optax.scale_by_learning_rate(rate)
    )


def _adamw(group: Group, rate: Rate) -> optax.GradientTransformation:
    return optax.chain(
        _scale_by_adam(group), _decayed(group), optax.scale_by_learning_rate(rate)
    )


def _rmsprop(group: Group, rate: Rate) -> optax.GradientTransformation:
    scale = optax.scale_by_stddev if group["centered"] else optax.scale_by_rms
    return optax.chain(
        _decayed(group),
        scale(group["alpha"], group["eps"], eps_in_sqrt=False),
        *([optax.trace(group["momentum"])] if group["momentum"] else []),
        optax.scale_by_learning_rate(rate),
    )


RULES: dict[type, Callable[[Group, Rate], optax.GradientTransformation]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adamw,
    torch.optim.RMSprop: _rmsprop,
}


def _decayed(group: Group) -> optax.GradientTransformation:
    decay = group["weight_decay"]
    return optax.add_decayed_weights(decay) if decay else optax.identity()


def _scale_by_adam(group: Group) -> optax.GradientTransformation:
    b1, b2 = group["betas"]
    return optax.scale_by_adam(float(b1), float(b2), group["eps"])


def _rates(loop: TorchLoop) -> tuple[list[Rate], bool]:
    """The learning rate of every group, and whether anything else is moved with it."""
    if loop.scheduler is None:
        return [float(group["lr"]) for group in loop.optimizer.param_groups], False
    copy = copy_loop(loop)
    groups, scheduler = copy.optimizer.param_groups, copy.scheduler
    assert scheduler is not None
    others = [_moved(group) for group in groups]
    rows, cycled = [], False
    copy.optimizer.step()  # else the scheduler warns that it goes first; nothing has a gradient
    for n in range(1, min(TABLE, getattr(scheduler, "total_steps", TABLE)) + 1):
        rows.append([float(group["lr"]) for group in groups])
        if n % loop.scheduler_every == 0:
            scheduler.step()
        cycled = cycled or others != [_moved(group) for group in groups]
    return [_table(np.array(column)) for column in zip(*rows, strict=True)], cycled


def _moved(group: Group) -> Any:
    return group.get("betas"), group.get("momentum")


def _table(rates: np.ndarray) -> Rate:
    """``schedule(count)``"""
    return lambda count: jnp.asarray(rates)[jnp.minimum(count, len(rates) - 1)]


def _labels(loop: TorchLoop, weights: WeightMap) -> Callable[[PyTree], PyTree]:
    """``params -> labels``: the number of its group for every leaf, in whatever tree."""
    group_of = {
        id(p): i for i, group in enumerate(loop.optimizer.param_groups) for p in group["params"]
    }
    by_name = {name: group_of.get(id(p)) for name, p in loop.model.named_parameters()}
    by_leaf = {leaf: by_name.get(x.torch[0]) for x in weights.links for leaf in x.jax}

    def labels(params: PyTree) -> PyTree:
        found = [by_leaf[name] for name in named_leaves(params)]
        return jax.tree.unflatten(jax.tree.structure(params), found)

    return labels
