"""Real architectures, lowered from their PyTorch loops: AdamW, clipping, accumulation."""

from __future__ import annotations

import json

import pytest

import instep
from architectures import ARCHITECTURES
from architectures_results import RESULTS


FEW = ("gnn", "lstm", "discriminator")  # of every run; the others are kept in RESULTS
NAMED = [
    *("gpt2", "bert", "roberta", "llama", "qwen3", "gemma", "mixtral", "mamba", "t5", "bart"),
    *(
        "vit",
        "swin",
        "convnext",
        "resnet",
        "efficientnet",
        "whisper",
        "wav2vec2",
        "clip",
        "detr",
    ),
    *("resnet18", "unet", "generator", "discriminator", "lstm", "gru", "transformer", "vae"),
    "gnn",
]
AT_LEAST = 26

# transformers says which faster kernels are not installed; PyTorch deprecates what it calls.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", FEW)
def test_in_step_with_dropout(name):
    instep.parity.assert_in_step(ARCHITECTURES[name](0.1), steps=2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_twenty_steps(name, dropout):
    if kept(name, dropout)["verdict"] == "refused":
        pytest.skip(kept(name, dropout)["reason"])
    instep.parity.assert_in_step(ARCHITECTURES[name](dropout), steps=20)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_enough_are_kept_as_in_step_for_twenty_steps(dropout):
    rows = [kept(name, dropout) for name in NAMED]
    in_step = [row for row in rows if row["verdict"] == "in step" and row["steps"] == 20]
    assert len(in_step) >= AT_LEAST


def kept(name, dropout):
    return json.loads(RESULTS.read_text())[name][f"dropout {dropout:g}"]
