"""The floor: random rounding of every operator."""

import contextlib

import numpy as np
import pytest
import torch

from instep.parity._floor import LOWER, OneUlp


def test_one_ulp_moves_each_number_by_at_most_one_ulp_both_ways():
    x = torch.arange(-500, 501, dtype=torch.float64) / 167
    moved = OneUlp(0).move(x.clone())
    steps = (moved - x) / torch.from_numpy(np.spacing(np.abs(x.numpy())))
    assert steps.abs().max() <= 2  # 1 + eps is up to two of the smaller spacing
    assert (steps[x != 0] > 0).sum() > 300 and (steps[x != 0] < 0).sum() > 300
    assert moved[x == 0].item() == 0.0
    assert not torch.equal(moved, OneUlp(1).move(x.clone()))
    for other in (torch.arange(3), torch.ones(3), torch.ones(3, dtype=torch.bool)):
        assert torch.equal(OneUlp(0).move(other.clone()), other)


def test_one_ulp_moves_results_in_place_and_not_views_or_inputs():
    x = torch.rand(100, dtype=torch.float64)
    kept = x.clone()
    with OneUlp(0):
        view = x.view(10, 10).t()
        total = x + 1.0
        y = x * 1.0
        y.add_(1.0)
    assert torch.equal(x, kept) and torch.equal(view, kept.view(10, 10).t())
    assert not torch.equal(total, kept + 1.0)
    assert (total - kept - 1.0).abs().max() <= 4 * torch.finfo(torch.float64).eps
    assert not torch.equal(y, kept + 1.0)


def test_one_ulp_moves_lists_and_what_is_changed_in_place():
    norms, scaled = [torch.rand(50), torch.rand(50)], [torch.rand(50), torch.rand(50)]
    norms, scaled = [x.double() for x in norms], [x.double() for x in scaled]
    exact = torch._foreach_norm(norms), [x * 3.0 for x in scaled]
    with OneUlp(0):
        found = torch._foreach_norm(norms)
        torch._foreach_mul_(scaled, 3.0)
    assert not all(map(torch.equal, found, exact[0]))
    assert not any(map(torch.equal, scaled, exact[1]))
    for x, y in zip([*found, *scaled], [*exact[0], *exact[1]], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-15, atol=0.0)


def test_one_ulp_moves_the_backward_pass():
    x = torch.rand(100, dtype=torch.float64, requires_grad=True)
    with OneUlp(0):
        (x * x).sum().backward()
    plain = 2 * x.detach()
    assert not torch.equal(x.grad, plain)
    assert ((x.grad - plain) / plain).abs().max() <= 8 * torch.finfo(torch.float64).eps


def test_moved_window_moves_floating_inputs_in_every_container():
    x, y = torch.rand(5, dtype=torch.float64), torch.arange(5)
    one_ulp = OneUlp(0)
    for window in ([(x, y)], [{"x": x, "y": [y]}], [[x, (y, None, 3)]]):
        moved = one_ulp.moved_window(window)
        assert type(moved[0]) is type(window[0]) and moved is not window
        tensors = list(_tensors(moved))
        assert not torch.equal(tensors[0], x) and torch.equal(tensors[1], y)
        assert tensors[1].data_ptr() != y.data_ptr()


def _tensors(tree):
    if torch.is_tensor(tree):
        yield tree
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))
    elif isinstance(tree, tuple | list):
        for x in tree:
            yield from _tensors(x)


@pytest.mark.parametrize("ulps", [1.0, 4.0])
def test_moved_probabilities_stay_probabilities(ulps):
    """PyTorch's binary cross entropy raises for an input or a target above 1."""
    x = torch.full((64,), 40.5, requires_grad=True)  # whose sigmoid is 1
    target = torch.ones(64)
    with OneUlp(0, LOWER, ulps) as one_ulp:
        p, y = torch.sigmoid(x), one_ulp.move(target)
        torch.nn.functional.binary_cross_entropy(p, y).backward()
    assert p.max() > 1 and y.max() > 1
    assert x.grad.isfinite().all()


def test_whole_numbers_of_whole_numbers_are_not_moved():
    """They are exact, and programs compare them: a mask of ``ids[:, None] != ids``."""
    ids = torch.zeros(6, dtype=torch.float64)
    with OneUlp(0):
        ids[2:] = 3.0
        differ = ids[:, None] - ids != 0
        half = ids / 2
    assert differ.sum() == 16 and (half[2:] != 1.5).any()


def test_flags_are_not_moved():
    """The backward pass of multilabel_margin_loss raises for a flag that is not 0 or 1."""
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.tensor([[0, 3, -1, -1, -1]] * 8)
    plain = torch.nn.functional.multilabel_margin_loss(x, target)
    with OneUlp(0, LOWER):
        moved = torch.nn.functional.multilabel_margin_loss(x, target)
        moved.backward()
    assert moved != plain and x.grad.any()


@pytest.mark.parametrize("softmax", [torch.log_softmax, torch.softmax])
def test_what_cancels_inside_a_kernel_is_seen(softmax):
    """p - 1 of a confident cross entropy is as inexact as p, whatever its own size."""
    x = torch.tensor([[30.0, 1.0, 0.0, 2.0]], dtype=torch.float64)

    def gradient(one_ulp):
        leaf = x.clone().requires_grad_()
        with one_ulp:
            softmax(leaf, 1)[:, 0].sum().backward()
        return leaf.grad[0, 0]

    exact = gradient(contextlib.nullcontext())
    moved = torch.stack([gradient(OneUlp(seed)) for seed in range(20)])
    assert 1e-14 < exact.abs() < 1e-11
    assert 3e-17 < (moved - exact).abs().max() < 1e-15


def test_what_cancels_inside_the_loss_is_seen():
    x, label = torch.tensor([[30.0, 1.0, 0.0, 2.0]], dtype=torch.float64), torch.tensor([0])
    losses = []
    for seed in range(20):
        with OneUlp(seed):
            losses.append(torch.nn.functional.cross_entropy(x, label))
    exact = torch.nn.functional.cross_entropy(x, label)
    assert 1e-14 < exact < 1e-11
    assert 3e-17 < (torch.stack(losses) - exact).abs().max() < 1e-15
