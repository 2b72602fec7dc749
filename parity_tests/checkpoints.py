"""States to save, how two are compared, and a folder with three checkpoints."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import instep
from conftest import assert_bitwise
from instep import optim
from instep.checkpoint import Checkpointer


PARAMS = {"w": np.linspace(-1, 1, 12).reshape(4, 3), "b": np.zeros(3)}
TX = optim.sgd(0.1)


def loss_fn(params, buffers, batch, rng):
    x, y = batch
    loss = jnp.mean((x @ params["w"].astype(x.dtype) + params["b"].astype(x.dtype) - y) ** 2)
    return instep.Loss(loss, buffers=buffers)


def batches(n=8):
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(5, 4)).astype("f"), rng.normal(size=(5, 3)).astype("f"))
        for _ in range(n)
    ]


def as_data(tree):
    def data(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return jax.tree.map(data, tree)


def kinds(tree):
    return [(x.dtype, getattr(x, "weak_type", None), x.sharding) for x in jax.tree.leaves(tree)]


def assert_same_state(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert kinds(a) == kinds(b)
    assert_bitwise(as_data(a), as_data(b))


def at(step):
    state = instep.init_state(PARAMS, TX)
    b = jnp.full(3, step, jnp.float32)
    return replace(state, step=jnp.int32(step), params={**state.params, "b": b})


def three(folder: Path) -> None:
    with Checkpointer(folder) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(at(step), {"epoch": 0, "taken": step})


def data(folder: Path) -> Path:
    return max((folder / "state/ocdbt.process_0/d").iterdir(), key=lambda p: p.stat().st_size)


def flip(path: Path, at: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(bytes(content))
