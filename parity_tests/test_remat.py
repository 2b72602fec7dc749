"""What is computed again in the backward pass: the same numbers, with less kept for it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import instep
from conftest import assert_bitwise, assert_in_step
from instep._errors import LoweringError


B, T, C = 3, 4, 8


class Block(nn.Module):
    """A pre-norm block of a GPT, with dropout."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.mlp = nn.Sequential(
            nn.Linear(C, 4 * C), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * C, C)
        )

    def forward(self, x_BTC):
        heads = [h.unflatten(-1, (2, -1)).transpose(1, 2) for h in self._qkv(x_BTC)]
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True, dropout_p=0.1)
        x_BTC = x_BTC + self.out(mixed.transpose(1, 2).flatten(2))
        return x_BTC + self.mlp(self.norm2(x_BTC))

    def _qkv(self, x_BTC):
        return self.qkv(self.norm1(x_BTC)).chunk(3, dim=-1)


class Stack(nn.Module):
    """Blocks, each called through ``wrap``."""

    def __init__(self, block=Block, wrap=None, layers=2):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(C, C)
        self.blocks = nn.ModuleList(block() for _ in range(layers))
        self.wrap = wrap

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x) if self.wrap is None else self.wrap(block, x)
        return x


class Small(nn.Module):
    """It draws; with ``norm`` a BatchNorm, it writes buffers."""

    def __init__(self, norm=nn.Identity):
        super().__init__()
        self.linear, self.norm = nn.Linear(C, C), norm(T)

    def forward(self, x_BTC):
        return F.dropout(F.silu(self.norm(F.silu(self.linear(x_BTC)))), 0.1, self.training)


Normed = functools.partial(Small, nn.BatchNorm1d)


def inputs():
    return torch.randn(B, T, C, generator=torch.Generator().manual_seed(1))


def differentiated(model, **options):
    """Loss, buffers and gradients, and how many numbers are kept for these."""
    lowered = instep.lower(model, (inputs(),), **options)

    def loss(params, x):
        y, buffers = lowered(params, lowered.buffers, x, rng=jax.random.key(0))
        return jnp.sum(jnp.sin(y)), buffers

    value, backward, buffers = jax.vjp(loss, lowered.params, inputs().numpy(), has_aux=True)
    kept = sum(np.size(x) for x in jax.tree.leaves(backward))
    return (value, buffers, backward(jnp.ones_like(value))), kept


@functools.cache
def plain(block):
    """Without any recomputation."""
    return differentiated(Stack(block))


def reentrant(block, x):
    return checkpoint(block, x, use_reentrant=True)


def not_reentrant(block, x):
    return checkpoint(block, x, use_reentrant=False)


def nested(block, x):
    return checkpoint(lambda y: not_reentrant(block, y), x, use_reentrant=False)


REMAT = {
    "remat": (None, r"^blocks\.\d+$"),
    "remat of several": (None, [r"blocks\.0", r"blocks\.1"]),
    "reentrant": (reentrant, ()),
    "not reentrant": (not_reentrant, ()),
    "nested": (nested, ()),
    "both": (not_reentrant, r"^blocks\.\d+$"),
}


@pytest.mark.parametrize("block", [pytest.param(Block, marks=pytest.mark.exhaustive), Small])
@pytest.mark.parametrize(("wrap", "remat"), REMAT.values(), ids=REMAT)
def test_the_same_bits_from_less_memory(block, wrap, remat, x64):
    whole, kept = plain(block)
    made, fewer = differentiated(Stack(block, wrap), remat=remat)
    assert_bitwise(whole, made)
    assert fewer < 0.5 * kept, (fewer, kept)


def test_buffers_are_written(x64):
    whole, _ = plain(Normed)
    made, _ = differentiated(Stack(Normed), remat=r"^blocks\.\d+$")
    assert_bitwise(whole, made)
    assert made[1]["blocks.1.norm.num_batches_tracked"] == 1


class Twice(nn.Module):
    """One module called twice, and a function that is no module; sizes pass through both."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(C, C)

    def forward(self, x):
        x = self.linear(self.linear(x).sin())

        def halves(x):
            batch, tokens, _ = x.shape
            with torch.no_grad():
                scale = x.abs().amax() + tokens
            return F.silu(x / scale).reshape(batch * tokens, -1), tokens

        x, tokens = checkpoint(halves, x, use_reentrant=False)
        return checkpoint_sequential([nn.SiLU(), nn.Tanh()], 2, x, use_reentrant=False) / tokens


def test_calls_functions_and_open_sizes(x64):
    module = Twice()
    lowered = instep.lower(module, (inputs(),), remat="linear", dynamic_batch=True)
    regions = [call for call in lowered.program.calls if call.op == "torch.utils.checkpoint"]
    assert len(regions) == 4  # PyTorch leaves the last of checkpoint_sequential as it is
    x = inputs()[:2]
    made, backward = jax.vjp(lambda p: lowered(p, {}, x.numpy())[0], lowered.params)
    expected = module(x)
    expected.square().sum().backward()
    assert_in_step(expected, made)
    for name, grad in backward(2 * made)[0].items():
        assert_in_step(module.get_parameter(name).grad, grad, name)


def loop(wrap=not_reentrant) -> instep.TorchLoop:
    model = Stack(Small, wrap)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return instep.TorchLoop(
        model, lambda m, x: m(x).square().mean(), optimizer, [inputs(), inputs()], accumulate=2
    )


@pytest.mark.parametrize("wrap", [reentrant, not_reentrant])
def test_a_loop_with_checkpoints_is_in_step(wrap):
    """Also where PyTorch draws its masks again, in the backward pass."""
    instep.parity.assert_in_step(loop(wrap), steps=2)


def test_from_torch_takes_remat():
    with pytest.raises(LoweringError, match="remat='head' names no module"):
        instep.from_torch(loop(), remat="head")


@pytest.mark.exhaustive
def test_two_steps_of_from_torch_with_remat(x64):
    batch = instep.stack([inputs().numpy(), inputs().numpy()])
    losses = []
    for wrap, remat in ((None, ()), (None, r"blocks\.\d")):
        torch.manual_seed(0)
        train_step, state = instep.from_torch(loop(wrap), remat=remat)
        for _ in range(2):
            state, metrics = train_step(state, batch)
        losses.append(metrics.loss)
    assert_in_step(losses[0], losses[1])


class Unused(Stack):
    def forward(self, x):
        return self.blocks[0](x) + F.linear(x, self.blocks[1].linear.weight)


REFUSED = [
    ("head", r"remat='head' names no module. There are \['stem', 'blocks', 'blocks.0', 'blo"),
    ([r"0$", r"blocks\.1"], r"names \['blocks.1', .*\], which the forward pass never calls"),
]


@pytest.mark.parametrize(("remat", "message"), REFUSED, ids=["no module", "never called"])
def test_a_name_that_means_nothing_is_refused(remat, message):
    with pytest.raises(LoweringError, match=message):
        instep.lower(Unused(Small), (inputs(),), remat=remat)


def redrawn(block, x):
    return checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)


def without_input(block, x):
    return reentrant(block, x.detach())


OTHERWISE_IN_PYTORCH = [
    (Small, redrawn, r"native_dropout.* draws inside .*preserve_rng_state=False \(blocks.0"),
    (Normed, not_reentrant, "blocks.0.norm.running_mean is written inside"),
    (Small, without_input, "use_reentrant=True has no input that requires a gradient"),
]


@pytest.mark.parametrize(("block", "wrap", "message"), OTHERWISE_IN_PYTORCH)
def test_where_computing_again_is_something_else_in_pytorch(block, wrap, message):
    with pytest.raises(LoweringError, match=message):
        instep.lower(Stack(block, wrap), (inputs(),))
    if wrap is not without_input:
        instep.lower(Stack(block, wrap).eval(), (inputs(),))
