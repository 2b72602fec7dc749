"""What the PyTorch half draws is given to the JAX half, and to the float64 oracle."""

from dataclasses import replace

import jax.numpy as jnp
import pytest
import torch
from torch import nn

import instep
from instep import parity
from instep.bridge._arrays import tensor_to_array
from instep.parity._drawn import Drawn, Redrawn
from instep.parity._pair import lowered_pair


def draw_all(dtype):
    x = torch.ones(50, dtype=dtype)
    return [
        torch.randn(3, 7, dtype=dtype),
        torch.randn_like(x),
        torch.rand(20, dtype=dtype),
        torch.empty(20, dtype=dtype).uniform_(2.0, 3.0),
        torch.empty(20, dtype=dtype).normal_(1.0, 2.0),
        torch.bernoulli(x / 2),
        nn.functional.dropout(x, 0.3),
        torch.native_dropout(x, 0.3, True)[0],
        torch.native_dropout(x, 0.3, False)[0],
        torch.randperm(9),
        torch.randint(5, (9,)),
    ]


def test_pytorch_draws_other_numbers_in_another_precision():
    torch.manual_seed(0)
    single = torch.randn(20)
    torch.manual_seed(0)
    assert (single - torch.randn(20, dtype=torch.float64)).abs().max() > 0.1


def test_redrawn_in_float64_is_what_was_drawn_in_float32():
    with Drawn() as drawn:
        single = draw_all(torch.float32)
    with Redrawn(drawn):
        double = draw_all(torch.float64)
    for a, b in zip(single, double, strict=True):
        torch.testing.assert_close(a, b, check_dtype=False)
        assert b.dtype in (torch.float64, torch.int64)
    assert all(float(x.max()) > 0 for x in double)


def test_transformed_draws_are_not_handed_to_jax():
    with Drawn() as drawn:
        made = torch.empty(20).uniform_(2.0, 3.0), torch.rand(20)
    assert len(drawn.results) == 2
    (given,) = drawn.arrays
    assert (given == tensor_to_array(made[1])).all()


@pytest.mark.parametrize(
    "more", [lambda: torch.rand(4), lambda: (torch.rand(3), torch.rand(3))]
)
def test_another_number_of_draws_is_an_error(more):
    with Drawn() as drawn:
        torch.rand(3)
    with Redrawn(drawn), pytest.raises(parity.ParityError, match="must not depend on how"):
        more()


def noisy_loop():
    torch.manual_seed(0)
    model = nn.Linear(6, 3)

    def loss_fn(model, x):
        noisy = model(x + 0.3 * torch.randn_like(x)) + torch.rand(3, dtype=x.dtype)
        return noisy.var(1).mean()

    return instep.TorchLoop(
        model, loss_fn, torch.optim.SGD(model.parameters(), 0.1), [torch.randn(5, 6)]
    )


def test_the_oracle_of_a_loop_that_draws_is_near():
    """With noise of its own it would be another step, and every error within the bound."""
    report = parity.run(noisy_loop(), steps=4)
    assert report.in_step, report
    for row in report.walks[2].rows:
        if row.leaf.kind in ("loss", "gradient", "update"):
            assert all(m.bound < 1e-5 * m.scale for m in row.measurements[-4:]), row


def test_rounding_in_a_loop_that_draws_is_seen():
    """A loss that is off by 1e-4, in float32 alone."""
    pair = lowered_pair(noisy_loop(), 3)
    lowered = pair.jax.loss_fn

    def rounded(params, buffers, batch, rng):
        loss = lowered(params, buffers, batch, rng)
        wrong = 1 + 1e-4 * (loss.total.dtype == jnp.float32)
        return replace(loss, total=loss.total * wrong)

    wrong = replace(pair, jax=replace(pair.jax, loss_fn=rounded))
    report = parity.run(wrong, steps=3)
    assert report.walks[0].in_step and report.walks[1].in_step
    assert report.first_divergence.walk == "float32 re-synchronised", report
