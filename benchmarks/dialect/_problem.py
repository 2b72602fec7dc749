"""What the optimizers of the page train: a small network, its matrices alone, a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch


def start() -> dict[str, np.ndarray]:
    """A network of 4, 6 and 3 units; matrices as PyTorch has them, (out, in)."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (6, 4), "b1": (6,), "w2": (3, 6), "b2": (3,)}
    return {n: 0.5 * rng.normal(size=shape) for n, shape in shapes.items()}


def data(n: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(32, 4))
    return x[:n], np.sin(x[:n] @ rng.normal(size=(4, 3)))


def loss(p, batch):
    """The mean squared error; the same text for arrays and for tensors."""
    x, y = batch
    tanh = torch.tanh if torch.is_tensor(x) else jnp.tanh
    return ((tanh(x @ p["w1"].T + p["b1"]) @ p["w2"].T + p["b2"] - y) ** 2).mean()


def mlp(params, step):
    del step
    return loss(params, data())


def matrices(params, step):
    biases = {n: v for n, v in start().items() if v.ndim == 1}
    return mlp(biases | params, step)


def table(params, step):
    """Of a table of 8 rows, each step looks up 3."""
    rows = jnp.asarray(looked_up())[step % 10]
    return jnp.mean((params["table"][rows] - 1.0 / (1.0 + rows[:, None])) ** 2)


def looked_up() -> np.ndarray:
    rng = np.random.default_rng(2)
    return np.stack([rng.choice(8, size=3, replace=False) for _ in range(10)])


class Problem(NamedTuple):
    loss: Callable[..., Any]
    start: dict[str, np.ndarray]
    absent: str = ""  # a leaf that has no gradient in the second half of the run
    rows: bool = False  # gradients are sparse


MLP = Problem(mlp, start())
ABSENT = MLP._replace(absent="w1")
MATRICES = Problem(matrices, {n: v for n, v in start().items() if v.ndim == 2})
TABLE = Problem(table, {"table": np.random.default_rng(3).normal(size=(8, 3))}, rows=True)
