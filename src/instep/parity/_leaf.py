"""The leaves that are compared: what they are called, and which stage of the step made them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Leaf(NamedTuple):
    """One array of one step, under its PyTorch name."""

    kind: str  # a key of STAGE
    name: str  # "conv1.weight", "conv1.weight.exp_avg", "group 0", "growth_tracker"


Observation = dict[Leaf, np.ndarray]

# Kind of leaf -> stage of the step, in the order in which a step makes them. The learning
# rate is last: after step n it is the one of step n + 1. A scaler, which also shows what step
# n + 1 will use, stands where it is used: it follows from the gradients alone.
STAGE = {
    "loss": "loss",
    "gradient": "gradient",
    "scaler": "unscale",
    "gradient norm": "clip",
    "clipped gradient": "clip",
    "state": "optimizer",
    "update": "optimizer",
    "parameter": "optimizer",
    "buffer": "buffers",
    "lr": "schedule",
    "momentum": "schedule",
    "plateau": "schedule",
}

# What the next step will use; PyTorch's largest one so far is the scale of each.
SCHEDULED = ("lr", "momentum")

# A verdict needs judged leaves of each of these kinds: parameters alone prove nothing.
REQUIRED = ("loss", "gradient", "update", "parameter")

# And where rounding is judged: the update of a low-precision parameter can be all rounding.
REQUIRED_IN_ROUNDING = ("loss", "gradient")

# Kinds that may be hidden on the JAX side because another kind depends on them at every step.
SEEN_THROUGH = {
    "gradient norm": "update",
    "clipped gradient": "update",
    "state": "update",
    "lr": "update",
    "momentum": "update",
    "plateau": "lr",
}


LOSS = Leaf("loss", "loss")
FOUND_INF = Leaf("scaler", "found_inf")

# The attributes of ReduceLROnPlateau.
PLATEAU = tuple(
    Leaf("plateau", name)
    for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
)


def order(leaf: Leaf) -> tuple[int, str]:
    """Sort key: the order in which a step makes its leaves."""
    return list(STAGE).index(leaf.kind), leaf.name
