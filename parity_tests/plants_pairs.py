"""Two mistakes of the catalogue in one pair, both of which must be found."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

import ground_cnn
import ground_lstm
import ground_transformer
import instep
from ground_cnn import cnn
from ground_lstm import lstm
from ground_transformer import DECAY, gpt
from plants import TwoPlants, clip, keep_gradients, set_at


PAIRS: list[TwoPlants] = []


def two(first: str, second: str, places: tuple[str | None, str | None] = (None, None)):
    """Register the pair that a function makes, under the name of the function."""

    def register(make):
        PAIRS.append(TwoPlants(make.__name__, make, (first, second), places))
        return make

    return register


@two("gelu_by_tanh", "decay_on_all", places=("blocks.0.mlp", None))
def tanh_gelu_and_one_group():
    return gpt(
        model=set_at("blocks.0.mlp", activation=jax.nn.gelu),
        tx=ground_transformer.adamw(decay=(DECAY, DECAY)),
    )


@two("another_norm_epsilon", "clip_without_epsilon", places=("blocks.1.norm2", None))
def epsilon_of_flax_and_clip_of_optax():
    def clipped(grads, max_norm):
        norm = optax.tree.norm(grads)
        return jax.tree.map(lambda g: g * jnp.minimum(max_norm / norm, 1.0), grads), norm

    return gpt(model=set_at("blocks.1.norm2", epsilon=1e-6), clip=clipped)


@two("not_causal", "schedule_ahead", places=("blocks.0.attn", None))
def future_seen_and_schedule_ahead():
    ahead = ground_transformer.adamw(lambda count: ground_transformer.rate(count + 1))
    return gpt(model=set_at("blocks.0.attn", last_seen=ground_transformer.T), tx=ahead)


@two("sum_for_mean", "another_beta")
def never_divided_and_another_beta():
    tx = ground_transformer.adamw(betas=(0.9, 0.999))
    return gpt(divide=lambda sums, weight: sums, tx=tx)


@two("biased_variance", "another_decay", places=("bn1", None))
def variance_of_flax_and_decay_of_optax():
    return cnn(model=set_at("bn1", unbiased=False), tx=ground_cnn.sgd(decay=1e-4))


@two("label_smoothing_missing", "nesterov_added")
def hard_labels_and_nesterov():
    return cnn(
        loss=lambda logits, labels: ground_cnn.cross_entropy(logits, labels, 0.0),
        tx=ground_cnn.sgd(nesterov=True),
    )


@two("padding_same", "another_statistics_momentum", places=("conv2", "bn1"))
def same_padding_and_momentum_of_flax():
    def change(model):
        set_at("conv2", padding="SAME")(model)
        set_at("bn1", momentum=0.99)(model)

    return cnn(model=change)


@two("padding_row_trained", "another_algorithm", places=("embed", None))
def padding_trained_by_adam():
    return lstm(
        model=set_at("", lookup=lambda table, tokens: table[tokens]),
        tx=ground_lstm.tx(instep.optim.adam),
    )


@two("gates_in_another_order", "schedule_behind", places=("lstm", None))
def gates_exchanged_and_schedule_behind():
    late = ground_lstm.tx(lr=lambda count: ground_lstm.rate(jnp.maximum(count - 1, 0)))
    return lstm(model=set_at("cell", order=(0, 1, 3, 2)), tx=late)


@two("gradients_kept", "clip_to_another_norm")
def nothing_zeroed_and_clipped_to_half():
    return lstm(start=keep_gradients, clip=lambda grads, max_norm: clip(grads, max_norm / 2))
