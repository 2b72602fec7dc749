"""An LSTM and a transformer encoder, 20 steps each, in step; and mistakes that are found."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import instep
import sequences
from instep import bridge, parity


@pytest.mark.parametrize("steps", [4, pytest.param(20, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("make_pair", [sequences.lstm_pair, sequences.attention_pair])
def test_in_step(make_pair, steps):
    report = parity.run(make_pair(), steps=steps, precisions=["float32", "bfloat16"])
    assert report.in_step, str(report)
    assert report.steps == steps and len(report.walks) == 4


class OtherGateOrder(nnx.OptimizedLSTMCell):
    """The gates i, g, f, o where PyTorch has i, f, g, o."""

    def __call__(self, carry, inputs):
        c, h = carry
        i, g, f, o = jnp.split(self.dense_i(inputs) + self.dense_h(h), 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h


def other_gate_order(monkeypatch) -> instep.Pair:
    monkeypatch.setattr(nnx, "OptimizedLSTMCell", OtherGateOrder)
    return sequences.lstm_pair()


def query_and_key_swapped(monkeypatch) -> instep.Pair:
    del monkeypatch
    swapped = {"query": "key", "key": "query"}
    rule = bridge.multihead_attention("blocks.0.attn", heads=sequences.H, names=swapped)
    pair = sequences.attention_pair()
    return replace(pair, weights=[*pair.weights, rule])


@pytest.mark.parametrize("mistake", [other_gate_order, query_and_key_swapped])
def test_a_mistake_is_found_at_the_first_loss(mistake, monkeypatch):
    report = parity.run(mistake(monkeypatch), steps=2)
    assert not report.in_step
    assert report.first_divergence.leaf.kind == "loss"
    assert report.first_divergence.step == 1


def test_a_cell_with_one_bias_is_refused():
    one_bias = nnx.OptimizedLSTMCell(sequences.E, sequences.WIDTH, rngs=nnx.Rngs(0))
    model = sequences.FlaxLSTM(nnx.Rngs(0))
    model.lstm[0].cell = one_bias
    half = sequences.flax_loop(model, instep.optim.adamw(1e-2), clip_grad_norm=0.5)
    pair = instep.Pair(sequences.lstm_torch_half(), half)
    with pytest.raises(parity.ParityError, match=r"cannot train in\s+step. Give it two biases"):
        parity.run(pair, steps=1)
