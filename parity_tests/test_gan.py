"""docs/gan.md runs: two networks and two optimizers by the verbs, in step with PyTorch."""

import re
from pathlib import Path

import jax
import pytest
import torch
from torch import nn

import instep
from conftest import assert_in_step
from torch_models import Discriminator, Generator


PAGE = (Path(__file__).parent.parent / "docs" / "gan.md").read_text()
BLOCKS = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.S))
LATENT, SIZE, STEPS = 5, 16, 5


def page(*edits: tuple[str, str]) -> dict:
    """The names that the page defines, after ``edits`` of its text."""
    text = BLOCKS
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    names = {}
    exec(text, names)
    return names


class Halves:
    """Both loops, each with its own networks and optimizers, from the same weights."""

    def __init__(self, *edits: tuple[str, str]):
        torch.manual_seed(0)
        names = page(*edits)
        self.networks = Generator(LATENT, 2), Discriminator(3, 0.0)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.5, 0.999))
            for network in self.networks
        ]
        self.torch_step = names["torch_step"]
        examples = torch.zeros(4, LATENT, 1, 1), torch.zeros(4, 3, SIZE, SIZE)
        lowered, txs, self.states = zip(
            *map(names["start"], self.networks, self.optimizers, examples), strict=True
        )
        self.jax_step = names["make_step"](*lowered, *txs)

    def check_step(self, n: int) -> None:
        """One step of both, and everything that it made."""
        real, noise = torch.randn(4, 3, SIZE, SIZE), torch.randn(4, LATENT, 1, 1)
        kept = []
        hook = self.optimizers[1].register_step_pre_hook(
            lambda *_: kept.extend(p.grad.clone() for p in self.networks[1].parameters())
        )
        theirs = self.torch_step(*self.networks, *self.optimizers, real, noise)
        hook.remove()
        *states, ours, grads = self.jax_step(*self.states, real.numpy(), noise.numpy())
        self.states = states
        for a, b in zip(theirs, ours, strict=True):
            assert_in_step(a, b, f"loss at step {n}")
        of_torch = [p.grad for p in self.networks[0].parameters()], kept
        for network, state, right, found in zip(
            self.networks, states, of_torch, grads, strict=True
        ):
            for (name, p), grad in zip(network.named_parameters(), right, strict=True):
                assert_in_step(grad, found[name], f"gradient of {name} at step {n}")
                assert_in_step(p, state.params[name], f"{name} at step {n}")
            for name, b in network.named_buffers():
                assert_in_step(b, state.buffers[name], f"{name} at step {n}")


@pytest.mark.exhaustive
def test_dcgan_in_step(x64):
    halves = Halves()
    for n in range(STEPS):
        halves.check_step(n)
    counts = [state.buffers for state in halves.states]
    assert {int(x) for k, x in counts[0].items() if k.endswith("tracked")} == {STEPS}
    assert {int(x) for k, x in counts[1].items() if k.endswith("tracked")} == {3 * STEPS}
    assert halves.jax_step._cache_size() == 1


LOST = {
    "statistics of the second pass begin anew": (
        ("state_D.params, on_real.buffers, (fake", "state_D.params, state_D.buffers, (fake"),
        "3.running_mean at step 0",
    ),
    "statistics of the third pass": (
        ("buffers=out.metrics", "buffers=state_D.buffers"),
        "3.running_mean at step 0",
    ),
    "statistics of G": (
        ("(tx_G, state_G, acc, buffers=out.buffers)", "(tx_G, state_G, acc)"),
        "1.running_mean at step 0",
    ),
    "mean for sum": (
        ("step(tx_D, state_D, acc,", "step(tx_D, state_D, instep.mean(acc),"),
        "loss at step 0|gradient of 0.weight at step 0",  # of G, which D judges
    ),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", LOST)
def test_what_is_easily_lost_is_seen(name, x64):
    edit, seen = LOST[name]
    with pytest.raises(AssertionError, match=seen):
        Halves(edit).check_step(0)


class Critic(nn.Sequential):
    def __init__(self, norm: nn.Module, activation: nn.Module):
        super().__init__(
            nn.Conv2d(3, 4, 3, 2, 1, bias=False),
            norm,
            activation,
            nn.Conv2d(4, 4, 3, 2, 1, groups=2),
            activation,
            nn.Flatten(),
            nn.Linear(4 * 16, 1),
        )


CRITICS = {
    "leaky_relu": lambda: Critic(nn.Identity(), nn.LeakyReLU(0.2)),
    "batch_norm, tanh": lambda: Critic(nn.BatchNorm2d(4), nn.Tanh()),
    "group_norm, silu": lambda: Critic(nn.GroupNorm(2, 4), nn.SiLU()),
    "layer_norm, gelu": lambda: Critic(nn.LayerNorm([4, 8, 8]), nn.GELU()),
    "instance_norm, softplus": lambda: Critic(nn.InstanceNorm2d(4), nn.Softplus()),
}


FIRST, *OTHERS = CRITICS


@pytest.mark.parametrize(
    "name", [FIRST, *(pytest.param(name, marks=pytest.mark.exhaustive) for name in OTHERS)]
)
def test_gradient_penalty(name, x64):
    """Its gradient is a second derivative of what is lowered."""
    torch.manual_seed(0)
    D, names = CRITICS[name](), page()
    real, fake = torch.randn(2, 4, 3, SIZE, SIZE)
    share = torch.rand(4, 1, 1, 1)
    lowered = instep.lower(D, (real,))
    loss = names["torch_loss"](D, real, fake, share)
    loss.backward()
    batch = tuple(x.numpy() for x in (real, fake, share))
    acc = instep.zero_grad(lowered.params)
    backward = jax.jit(instep.backward, static_argnums=0)
    acc, out = backward(
        names["make_loss"](lowered), acc, lowered.params, lowered.buffers, batch
    )
    assert_in_step(loss, out.total)
    for name, p in D.named_parameters():
        assert_in_step(p.grad, acc.grads[name], name)
    for name, b in D.named_buffers():
        assert_in_step(b, out.buffers[name], name)
