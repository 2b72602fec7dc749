"""One step on one device and on a mesh: what the cases of ``sharded.py`` share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

import instep
from conftest import assert_in_step
from instep import losses, ops, sharding
from instep._evaluate import StepOptions
from instep._step import make_observed_step
from instep._trees import named_leaves


REPLICAS = 8
CASES: dict[str, dict[str, Callable[[], None]]] = {}


def case(group: str) -> Callable:
    def keep(fn):
        CASES.setdefault(group, {})[fn.__name__] = fn
        return fn

    return keep


def mesh_of(*shape: int):
    return jax.make_mesh(shape, ("data", "model")[: len(shape)])


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def mlp() -> dict:
    return {
        "up": {"weight": numbers(0, 16, 32), "bias": numbers(1, 32)},
        "down": {"weight": numbers(2, 32, 8), "bias": numbers(3, 8)},
    }


def forward(params, x):
    h = jnp.tanh(ops.linear(x, params["up"]["weight"].T, params["up"]["bias"]))
    return ops.linear(h, params["down"]["weight"].T, params["down"]["bias"])


def mean_loss(params, batch):
    return losses.mse_loss(forward(params, batch["x"]), batch["y"])


def ragged_loss(params, batch):
    error = jnp.sum((forward(params, batch["x"]) - batch["y"]) ** 2, axis=1)
    return instep.Loss(jnp.sum(error * batch["mask"]), jnp.sum(batch["mask"]))


def batches(k: int = 1, steps: int = 5, b: int = 16) -> list[dict]:
    lead = (b,) if k == 1 else (k, b)
    made = []
    for i in range(steps):
        x, y = numbers(10 + i, *lead, 16), numbers(40 + i, *lead, 8)
        # Some replicas have no example that counts in some microbatches.
        mask = (numbers(70 + i, *lead) > 0.5).astype(float)
        made.append({"x": x, "y": y, "mask": mask})
    return made


def walk(loss_fn, tx, params, given, mesh=None, how=None, **kwargs):
    """The views and the states of some steps, as NumPy arrays."""
    state = instep.init_state(
        params, tx, *(kwargs.pop(n, None) for n in ("buffers", "rng", "scaler"))
    )
    if mesh is not None:
        state = sharding.place(state, mesh, how)
    options = StepOptions(**kwargs, mesh=mesh, sharding=how)
    step = jax.jit(make_observed_step(loss_fn, tx, options))
    steps = []
    for batch in given:
        state, _, view = step(state, batch)
        steps.append({"view": on_host(vars(view)), "state": on_host(state)})
    return steps


def on_host(tree):
    return jax.tree.map(
        np.asarray, dataclasses.replace(tree, rng=None) if hasattr(tree, "rng") else tree
    )


def assert_same(one: list, many: list, at_least: float = 0.0) -> None:
    """Every leaf of every step: loss, gradients, parameters, buffers, optimizer state."""
    for i, (a, b) in enumerate(zip(one, many, strict=True)):
        a, b = named_leaves(a), named_leaves(b)
        assert a.keys() == b.keys()
        for name in a:
            if jnp.issubdtype(a[name].dtype, jax.dtypes.prng_key):
                continue
            assert a[name].dtype == b[name].dtype, name
            assert_in_step(a[name], b[name], f"step {i}: {name}", at_least)


def compiled(loss_fn, tx, params, batch, mesh, how=None, **options):
    state = sharding.place(instep.init_state(params, tx), mesh, how)
    train_step = instep.make_train_step(loss_fn, tx, **options, mesh=mesh, sharding=how)
    return train_step.lower(state, batch).compile()


def refused(error: type[Exception], words: list[str], fn: Callable, *args, **kwargs) -> None:
    try:
        fn(*args, **kwargs)
    except error as raised:
        missing = [word for word in words if word not in str(raised)]
        assert not missing, f"{missing} is not in: {raised}"
    else:
        raise AssertionError(f"not refused: {words}")


ADAMW = instep.optim.adamw(1e-2)
VARIANTS = {
    "one_batch": (mean_loss, {}),
    "clip": (mean_loss, {"accumulate": 4, "clip_grad_norm": 0.1, "clip_grad_value": 0.01}),
    "ragged": (ragged_loss, {"accumulate": 3, "clip_grad_norm": 1.0}),
    "trainable": (mean_loss, {"accumulate": 2, "trainable": lambda n, p: p.shape == (16, 32)}),
}


@functools.cache
def on_one_device(variant: str) -> list:
    loss_fn, options = VARIANTS[variant]
    return walk(loss_fn, ADAMW, mlp(), batches(options.get("accumulate", 1)), **options)


def equal_to_one_device(mesh, how=None, variants=("clip", "ragged")) -> None:
    for name in variants:
        loss_fn, options = VARIANTS[name]
        given = batches(options.get("accumulate", 1))
        many = walk(loss_fn, ADAMW, mlp(), given, mesh, how, **options)
        try:
            assert_same(on_one_device(name), many)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


TENSOR = [
    (r"up\.weight", P(None, "model")),
    (r"up\.bias", P("model")),
    (r"down\.weight", P("model", None)),
]
OPTIMIZERS = {
    "sgd": instep.optim.sgd(1e-2, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adafactor": instep.optim.adafactor(1e-1, weight_decay=0.1),
    "groups": instep.optim.param_groups(
        [(r"weight", instep.optim.adamw(1e-2)), (r"bias", instep.optim.rmsprop(1e-3))]
    ),
}
LAYOUTS = {
    "data_parallel": lambda: (mesh_of(8), None),
    "fsdp": lambda: (mesh_of(8), sharding.fsdp(min_size=64)),
    "tensor": lambda: (mesh_of(2, 4), sharding.by_name(TENSOR)),
}
