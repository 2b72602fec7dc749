"""How much work a step is: items, FLOPs, the peak they are held against, memory."""

import jax
import numpy as np
import pytest
import torch

import instep
from conftest import array
from instep.bench import _flops, _memory
from instep.bench._settings import Settings
from instep.bench._survey import items_of
from instep.bridge._from_torch import jax_loop_of, lowered_loss
from instep.bridge._torch_loop import windows


def test_items_of_a_microbatch():
    assert items_of((4, 128), floating=False) == (512, "tokens")
    assert items_of((16, 1, 8, 8), floating=True) == (16, "images")
    assert items_of((16, 5), floating=True) == (16, "examples")


@pytest.mark.parametrize("accumulate", [1, 3])
def test_flops_of_linear_layers_are_those_on_paper(accumulate):
    """2 MNK forward, the same for the weights, and for the inputs of all but the first."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    loop = instep.TorchLoop(
        model,
        lambda model, x: model(x).sum(),
        torch.optim.SGD(model.parameters()),
        [torch.ones(5, 8)] * 3,
        accumulate=accumulate,
    )
    first, second = 2 * 5 * 8 * 16, 2 * 5 * 16 * 4
    window = next(windows(loop))
    assert _flops.of_torch(loop, window) == accumulate * (2 * first + 3 * second)
    assert all(p.grad is None for p in model.parameters()), "the loop was not left untouched"
    lowered = lowered_loss(loop)
    half = jax_loop_of(loop, lowered)
    microbatch = lowered.leaves(window[0])
    assert _flops.of_jax(half, jax.tree.map(array, microbatch)) == _flops.of_torch(loop, window)


PEAK_OF = [
    (Settings(precision="bf16"), "NVIDIA H200", 989.4 * 1e12),
    (Settings(), "NVIDIA H200", 66.9 * 1e12),
    (Settings(matmul_precision="tensorfloat32"), "NVIDIA H200", 494.7 * 1e12),
    (Settings(peak_tflops=2.0), "NVIDIA H200", 2e12),
    (Settings(peak_tflops=2.0), "cpu", 2e12),
    (Settings(), "cpu", None),
]


@pytest.mark.parametrize(("settings", "device", "peak"), PEAK_OF)
def test_the_peak_is_that_of_the_device_or_what_is_said(settings, device, peak):
    assert _flops.dense_peak(settings, device) == peak


def test_memory_forgets_its_peak():
    large = np.ones(1 << 25)
    del large
    if not _memory.forget_peak():
        pytest.skip("this kernel cannot begin the peak anew")
    before, held = _memory.peak(), _memory.resident()
    assert before - held < 0.1 * (1 << 28), "the 268 MB of before are still in the peak"
    large = np.ones(1 << 24)
    assert _memory.peak() - before > 0.9 * large.nbytes
