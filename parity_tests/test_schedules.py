"""instep.schedules against torch.optim.lr_scheduler."""

import jax
import numpy as np
import pytest
import torch

from instep.parity._tolerance import RELATIVE
from instep.schedules import cosine_annealing_lr


def torch_rates(T_max, eta_min, steps, base_lr=0.1):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base_lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max, eta_min)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


@pytest.mark.parametrize("T_max", [1, 2, 7, 100, 420])
@pytest.mark.parametrize("eta_min", [0.0, 0.01])
def test_cosine_float64_three_periods(T_max, eta_min):
    steps = 6 * T_max + 2
    theirs = torch_rates(T_max, eta_min, steps)
    with jax.enable_x64(True):
        ours = np.asarray(jax.vmap(cosine_annealing_lr(0.1, T_max, eta_min))(np.arange(steps)))
    # Against the largest rate: PyTorch's recursion loses relative accuracy where it nears 0.
    assert np.abs(ours - theirs).max() <= RELATIVE * 0.1
    assert abs(ours[T_max] - eta_min) <= np.spacing(0.1)


@pytest.mark.parametrize("T_max", [100, 100_000])
def test_cosine_float32_keeps_its_accuracy_near_zero(T_max):
    """8 ulp wherever the rate exceeds 1e-6 of the base rate; a naive cosine is off by 1."""
    count = np.arange(T_max + 1)
    exact = 0.1 * np.sin(np.pi / 2 * (T_max - count) / T_max) ** 2
    ours = np.asarray(jax.vmap(cosine_annealing_lr(0.1, T_max))(count), np.float64)
    seen = exact > 1e-6 * 0.1
    ulps = np.abs(ours - exact)[seen] / np.spacing(exact[seen].astype(np.float32))
    assert ulps.max() <= 8


@pytest.mark.parametrize("T_max", [0, -3, 1.5])
def test_T_max_is_a_positive_integer(T_max):
    with pytest.raises(
        ValueError, match=f"T_max must be a positive integer; got T_max={T_max}"
    ):
        cosine_annealing_lr(0.1, T_max)
