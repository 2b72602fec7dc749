"""Large arrays in unnamed files: the same numbers, and what is in a file is not in memory."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from conftest import assert_bitwise
from instep import parity
from instep.parity import _spill
from instep.parity._spill import LARGE, spill_loop, spilled, spilled_tree
from instep.workloads import get
from pairs import linear_pair


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(_spill, "LARGE", 1)


@pytest.mark.parametrize("dtype", ["float64", "float32", ml_dtypes.bfloat16, "int8", "bool"])
def test_the_same_numbers(dtype, everything_is_large):
    array = np.arange(12).reshape(3, 4).astype(dtype).T
    assert isinstance(spilled(array), np.memmap)
    assert_bitwise(spilled(array), np.ascontiguousarray(array))


def test_small_ones_stay():
    small = np.zeros(LARGE // 8 - 1)
    assert spilled(small) is small
    assert isinstance(spilled(np.zeros(LARGE // 8)), np.memmap)


def test_a_tree_keeps_its_keys_and_its_dtypes(everything_is_large):
    tree = {"key": jax.random.key(0), "w": jnp.ones((2, 3), jnp.bfloat16), "none": None, "n": 3}
    made = spilled_tree(tree)
    assert isinstance(made["w"], np.memmap) and made["w"].dtype == jnp.bfloat16
    assert made["key"] is tree["key"] and made["n"] == 3


def test_a_loop_trains_on_in_its_files(everything_is_large):
    """Parameters and moments move into files once, and are written there in place."""
    loops = [linear_pair().torch for _ in range(2)]
    for loop in loops:
        optimizer = torch.optim.AdamW(loop.model.parameters(), 0.1)
        object.__setattr__(loop, "optimizer", optimizer)
    where = set()
    for x in loops[0].batches:
        for loop in loops:
            loop.optimizer.zero_grad()
            loop.loss_fn(loop.model, x).backward()
            loop.optimizer.step()
        spill_loop(loops[0])
        where.add(tuple(p.data_ptr() for p in loops[0].model.parameters()))
    assert len(where) == 1
    ours, theirs = (
        {name: x.numpy() for name, x in loop.model.state_dict().items()} for loop in loops
    )
    assert_bitwise(ours, theirs)


def test_a_walk_gives_the_same_report(everything_is_large, monkeypatch):
    pair = get("digits-mlp").make_pair
    with_files = parity.run(pair(), 3).to_dict()
    monkeypatch.setattr(_spill, "LARGE", 1 << 40)
    assert with_files == parity.run(pair(), 3).to_dict()


def test_a_large_step_is_mapped_from_its_file(tmp_path, everything_is_large, monkeypatch):
    monkeypatch.setattr("instep.parity._step_file.LARGE", 1)
    pair = linear_pair()
    parity.record(pair.torch, tmp_path / "run", 2)
    report = parity.compare(tmp_path / "run", pair.jax, pair.weights)
    assert report.in_step, report


def test_a_gradient_does_not_outlive_the_step(everything_is_large):
    loop = linear_pair().torch
    loop.loss_fn(loop.model, loop.batches[0]).backward()
    spill_loop(loop)
    assert all(p.grad is None for p in loop.model.parameters())
    assert isinstance(loop.model, nn.Linear)
