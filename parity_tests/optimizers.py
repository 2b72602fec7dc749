"""torch.optim's own test database, and a network with parameters of 0, 1, 2 and 4 axes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.testing._internal.common_optimizers import optim_db

import instep
from instep.bridge import tensor_to_array


torch.sparse.check_sparse_tensor_invariants.enable()

# torch.optim's class -> ours; LBFGS has tests of its own (test_lbfgs.py).
OURS = {
    "Adadelta": instep.optim.adadelta,
    "Adafactor": instep.optim.adafactor,
    "Adagrad": instep.optim.adagrad,
    "Adam": instep.optim.adam,
    "AdamW": instep.optim.adamw,
    "Adamax": instep.optim.adamax,
    "ASGD": instep.optim.asgd,
    "Muon": instep.optim.muon,
    "NAdam": instep.optim.nadam,
    "RAdam": instep.optim.radam,
    "RMSprop": instep.optim.rmsprop,
    "Rprop": instep.optim.rprop,
    "SGD": instep.optim.sgd,
    "SparseAdam": instep.optim.sparse_adam,
}

# What the database lacks, chosen where the rules have branches.
MORE = {
    "Adadelta": [{"lr": 0.0}, {"eps": 1e-2, "rho": 0.0}, {"rho": 1.0}],
    "Adafactor": [
        {"lr": 0.1, "eps": (1e-3, 0.1), "d": 1.5, "weight_decay": 0.1},
        {"beta2_decay": 0.0},
    ],
    "Adagrad": [{"eps": 0.1, "maximize": True}],
    "Adam": [
        {"lr": 0.01, "betas": (0.0, 0.0)},
        {"lr": 0.01, "betas": (0.5, 0.9)},
        {"lr": 0.01, "betas": (0.9, 0.999999)},
        {"lr": 0.01, "eps": 0.1},
        {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1, "maximize": True},
        {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ],
    "AdamW": [{"lr": 0.01, "amsgrad": True}],
    "Adamax": [{"betas": (0.3, 0.5), "eps": 0.1}],
    "ASGD": [
        {"t0": 10},
        {"lambd": 0.1, "alpha": 1.5, "t0": 3, "weight_decay": 0.1, "maximize": True},
    ],
    "Muon": [
        {"nesterov": False},
        {"adjust_lr_fn": "match_rms_adamw"},
        {"adjust_lr_fn": "original", "eps": 1e-3},
        {"momentum": 0.0, "weight_decay": 0.0},
    ],
    "NAdam": [{"betas": (0.2, 0.5), "momentum_decay": 0.5, "decoupled_weight_decay": True}],
    "RAdam": [{"betas": (0.5, 0.3)}, {"betas": (0.9, 0.9), "lr": 0.1}],
    "RMSprop": [{"alpha": 0.2, "momentum": 0.9}, {"momentum": 0.9, "lr": 0.0}],
    "Rprop": [{"lr": 1e-7}, {"lr": 0.1, "etas": (0.1, 3.0), "step_sizes": (1e-3, 0.5)}],
    "SGD": [
        {"lr": 0.0},
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1, "maximize": True},
        {"lr": 0.1, "momentum": 0.9, "dampening": -0.5},
    ],
    "SparseAdam": [{"betas": (0.0, 0.5), "eps": 0.1}],
}


class Case(NamedTuple):
    """One configuration of one optimizer."""

    torch: type[torch.optim.Optimizer]
    options: dict[str, Any]

    @property
    def ours(self):
        """The transformation; a Tensor of one element counts as its number."""
        plain = {n: float(v) if torch.is_tensor(v) else v for n, v in self.options.items()}
        return OURS[self.torch.__name__](**plain)

    @property
    def name(self) -> str:
        return self.torch.__name__


def cases() -> list[Case]:
    """Every configuration of the database that has a meaning on the CPU, and ``MORE``.

    A Tensor lr is a float64 one, as everything here: with a float32 one, PyTorch computes
    1 - lr * weight_decay in float32.
    """
    found = []
    for info in optim_db:
        name = info.optim_cls.__name__
        if name in OURS:
            database = [sample.kwargs for sample in info.optim_inputs_func("cpu")]
            found += [Case(info.optim_cls, _in_float64(x)) for x in database + MORE[name]]
    return found


def _in_float64(options: dict[str, Any]) -> dict[str, Any]:
    return {
        n: torch.tensor(0.001, dtype=torch.float64) if torch.is_tensor(v) else v
        for n, v in options.items()
    }


def case_id(case: Case) -> str:
    said = ",".join(
        f"{n}={float(v) if torch.is_tensor(v) else v}" for n, v in case.options.items()
    )
    return f"{case.name}({said})"


SHAPES = {"kernel": (3, 1, 2, 2), "matrix": (12, 5), "vector": (5,), "scalar": ()}


def start(name: str) -> dict[str, np.ndarray]:
    """The parameters that the optimizer called ``name`` can take, in the order of PyTorch."""
    rng = np.random.default_rng(0)
    made = {n: 0.5 * rng.normal(size=shape) for n, shape in SHAPES.items()}
    if name == "Muon":
        return {n: v for n, v in made.items() if v.ndim == 2}
    if name == "SparseAdam":
        return {n: v for n, v in made.items() if v.ndim}
    return made


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(100 + step % 7)
    return rng.normal(size=(6, 1, 3, 3)), rng.normal(size=(6, 5))


def torch_loss(p: dict[str, torch.Tensor], x, y) -> torch.Tensor:
    x, y = (torch.tensor(v, dtype=p["matrix"].dtype) for v in (x, y))
    defaults = {n: torch.tensor(v, dtype=x.dtype) for n, v in start("").items()}
    p = defaults | p
    h = torch.tanh(torch.nn.functional.conv2d(x, p["kernel"])).flatten(1)
    out = (h @ p["matrix"] + p["vector"]) * p["scalar"]
    return (1.0 - torch.cos(out - y)).mean()


def jax_loss(p: dict[str, jax.Array], x, y) -> jax.Array:
    x, y = (jnp.asarray(v, p["matrix"].dtype) for v in (x, y))
    p = {n: jnp.asarray(v, x.dtype) for n, v in start("").items()} | p
    h = jax.lax.conv(x, p["kernel"], (1, 1), "VALID", precision="highest")
    h = jnp.tanh(h).reshape(h.shape[0], -1)
    out = (jnp.matmul(h, p["matrix"], precision="highest") + p["vector"][None]) * p["scalar"]
    return (1.0 - jnp.cos(out - y)).mean()


jax_gradients = jax.jit(jax.grad(jax_loss))


def touched(name: str, step: int) -> dict[str, np.ndarray] | None:
    """Rows that a step touches, for the optimizer that asks."""
    if name != "SparseAdam":
        return None
    rng = np.random.default_rng(1000 + step)
    return {n: rng.random(v.shape[0]) < 0.5 for n, v in start(name).items()}


def give_gradients(p: dict[str, torch.Tensor], grads, rows) -> None:
    """Set ``.grad``: dense, or sparse with the given rows."""
    for n, g in grads.items():
        p[n].grad = g.detach().clone()
        if rows is not None:
            (index,) = np.nonzero(rows[n])
            index = torch.from_numpy(index)
            p[n].grad = torch.sparse_coo_tensor(index[None], g.detach()[index], g.shape)


def torch_gradients(p: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
    grads = torch.autograd.grad(torch_loss(p, *batch(step)), list(p.values()))
    return dict(zip(p, grads, strict=True))


def standing(opt_state, optimizer, p: dict[str, torch.Tensor]):
    """``opt_state`` with the state of a PyTorch optimizer that has taken steps."""
    slots = {
        slot: {
            n: None if old is None else as_array(optimizer.state[p[n]][slot]).astype(old.dtype)
            for n, old in tree.items()
        }
        for slot, tree in opt_state.slots.items()
        if slot != "started"
    }
    if "started" in opt_state.slots:
        slots["started"] = dict.fromkeys(p, jnp.ones((), bool))
    return replace(opt_state, slots=slots)


def as_array(tensor) -> jax.Array:
    return jnp.asarray(tensor_to_array(tensor))
