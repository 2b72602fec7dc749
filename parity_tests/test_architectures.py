"""Real architectures, lowered from their PyTorch loops: AdamW, clipping, accumulation."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch

import instep
from architectures import ARCHITECTURES
from architectures_results import RESULTS
from conftest import assert_in_step
from instep.bridge._copy import copy_loop
from instep.bridge._tensors import to_dtype, to_numpy
from instep.bridge._torch_loop import run_step, windows


FEW = ("gnn", "lstm", "discriminator")  # of every run; the others are kept in RESULTS

# transformers says which faster kernels are not installed; PyTorch deprecates what it calls.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", FEW)
def test_in_step_with_dropout(name):
    instep.parity.assert_in_step(ARCHITECTURES[name](0.1), steps=2)


@pytest.mark.parametrize("name", FEW)
def test_hand_over_in_the_middle_and_back(name, x64):
    """Two steps in PyTorch, two in JAX, two in PyTorch, against six in PyTorch."""
    whole, handed = (copy_loop(ARCHITECTURES[name](), torch.float64) for _ in range(2))
    stream = [to_dtype(w, torch.float64) for w in islice(windows(whole), 6)]
    for n, window in enumerate(stream, start=1):
        run_step(whole, window, n)

    for n, window in enumerate(stream[:2], start=1):
        run_step(handed, window, n)
    train_step, state = instep.from_torch(handed)
    for window in stream[2:4]:
        state, _ = train_step(state, instep.stack(to_numpy(window)))
    instep.to_torch(state, handed)
    for n, window in enumerate(stream[4:], start=5):
        run_step(handed, window, n)

    for (leaf, p), q in zip(
        whole.model.named_parameters(), handed.model.parameters(), strict=True
    ):
        assert_in_step(p, q.detach().numpy(), leaf, at_least=1.0)
        for slot, value in whole.optimizer.state.get(p, {}).items():
            found = handed.optimizer.state[q][slot]
            assert_in_step(value, found.numpy(), f"{leaf}.{slot}", at_least=1.0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_twenty_steps(name, dropout):
    instep.parity.assert_in_step(ARCHITECTURES[name](dropout), steps=20)


def test_what_is_kept_is_in_step():
    """All of them, without dropout and with it; ``architectures_results.py`` walks them."""
    kept = json.loads(RESULTS.read_text())
    assert kept.keys() == ARCHITECTURES.keys()
    for name, settings in kept.items():
        assert settings.keys() == {"dropout 0", "dropout 0.1"}, name
        for row in settings.values():
            assert (row["verdict"], row["steps"]) == ("in step", 20), (name, row)
