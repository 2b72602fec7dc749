"""Mistakes that no catalogue has: they are to be placed, not named."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import ground_cnn
import ground_transformer
from ground_cnn import cnn
from ground_lstm import lstm
from ground_transformer import BETAS, EPS, gpt
from plants import Plants, adam_by_hand, clip, edit, set_at


TRANSFORMER = Plants("transformer", gpt)
CNN = Plants("cnn", cnn)
LSTM = Plants("lstm", lstm)


# The transformer.


class Twice(ground_transformer.Block):
    def __call__(self, x):
        x = x + self.attn(self.norm1(x))
        return x + x + self.mlp(self.norm2(x))


@TRANSFORMER.plant(place="blocks.1", stage="loss")
def residual_added_twice():
    def change(model):
        model.blocks[1] = Twice(nnx.Rngs(0))

    return gpt(model=change)


@TRANSFORMER.plant(place="blocks.0.attn", stage="loss")
def second_head_dropped():
    return gpt(model=set_at("blocks.0.attn", heads=lambda y_BTHD: y_BTHD.at[:, :, 1].set(0)))


@TRANSFORMER.plant(place="blocks.1.attn", stage="loss")
def heads_exchanged():
    return gpt(model=set_at("blocks.1.attn", heads=lambda y_BTHD: y_BTHD[:, :, ::-1]))


@TRANSFORMER.plant(place="blocks.0.mlp.fc1.weight", stage="gradient")
def nine_tenths_of_one_gradient():
    def less(now, last):
        return edit(now, "blocks.0.mlp.fc1.kernel", lambda g: 0.9 * g)

    return gpt(gradient=less)


@TRANSFORMER.plant(place="", stage="loss")
def labels_of_the_next_line():
    return gpt(
        loss=lambda *given: ground_transformer.cross_entropy(given[0], _rolled(given[1]))
    )


def _rolled(labels):
    return jnp.roll(labels, 1, axis=0)


@TRANSFORMER.plant(place="head", stage="loss")
def logits_of_another_temperature():
    return gpt(loss=lambda *given: ground_transformer.cross_entropy(given[0] / 1.1, given[1]))


@TRANSFORMER.plant(place="", stage="loss")
def squared_log_partition_added():
    def with_z_loss(logits, labels):
        z = jax.nn.logsumexp(logits, axis=-1)
        return ground_transformer.cross_entropy(logits, labels) + 1e-4 * jnp.mean(z**2)

    return gpt(loss=with_z_loss)


@TRANSFORMER.plant(place="norm.bias", stage="optimizer")
def one_update_the_wrong_way():
    return gpt(updates=lambda updates, params: edit(updates, "norm.bias", jnp.negative))


@TRANSFORMER.plant(stage="optimizer")
def second_moment_to_the_power_of_0_4():
    b1, b2 = BETAS

    def direction(m, v, t):
        return m / (1 - b1**t) / ((v / (1 - b2**t)) ** 0.4 + EPS)

    return gpt(tx=ground_transformer.chain(adam_by_hand(direction, BETAS)))


# The convolutional net.


@CNN.plant(place="pool1", stage="loss")
def channels_shuffled():
    return cnn(model=set_at("", pool1=lambda x: jnp.roll(ground_cnn.pool1(x), 1, axis=-1)))


@CNN.plant(place="", stage="loss")
def images_upside_down():
    return cnn(model=set_at("", pool1=lambda x: ground_cnn.pool1(x)[:, ::-1]))


@CNN.plant(stage="optimizer")
def momentum_clipped():
    def update(grads, state, params=None):
        buf = jax.tree.map(lambda b, g: _bounded(0.9 * b + g), state.trace, grads)
        return buf, optax.TraceState(buf)

    trace = optax.GradientTransformation(optax.trace(0.9).init, update)
    decay = optax.add_decayed_weights(ground_cnn.DECAY)
    rate = optax.scale_by_learning_rate(ground_cnn.rate)
    return cnn(tx=optax.chain(decay, trace, rate))


def _bounded(x):
    return jnp.clip(x, -0.05, 0.05)


class RemembersDeviation(ground_cnn.BatchNorm):
    def remember(self, memory, seen):
        super().remember(memory, jnp.sqrt(seen) if memory is self.var else seen)


@CNN.plant(place="bn1", stage="buffers")
def deviation_for_variance():
    def change(model):
        model.bn1 = RemembersDeviation(ground_cnn.C1)

    return cnn(model=change)


@CNN.plant(stage="clip")
def clipped_without_the_last_layer():
    def without(grads, max_norm):
        rest = edit(edit(grads, "fc2.kernel", jnp.zeros_like), "fc2.bias", jnp.zeros_like)
        _, norm = clip(grads, max_norm)
        factor = jnp.minimum(max_norm / (optax.tree.norm(rest) + 1e-6), 1.0)
        return jax.tree.map(lambda g: g * factor, grads), norm

    return cnn(clip=without)


@CNN.plant(stage="optimizer")
def decay_times_the_rate():
    def update(grads, state, params=None):
        rate = ground_cnn.rate(state.count)
        decay = ground_cnn.DECAY * rate
        grads = jax.tree.map(lambda g, p: g + decay * p, grads, params)
        return grads, optax.ScaleByScheduleState(state.count + 1)

    def init(params):
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    decay = optax.GradientTransformation(init, update)
    descent = optax.scale_by_learning_rate(ground_cnn.rate)
    return cnn(tx=optax.chain(decay, optax.trace(ground_cnn.MOMENTUM), descent))


@CNN.plant(place="", stage="loss")
def last_example_left_out():
    return cnn(loss=lambda logits, labels: ground_cnn.cross_entropy(logits[:-1], labels[:-1]))


# The LSTM.


@LSTM.plant(place="", stage="loss")
def mean_of_all_but_the_first_state():
    return lstm(model=set_at("", pool=lambda states, tokens: states[:, 1:].mean(1)))


@LSTM.plant(place="embed.weight", stage="gradient")
def gradient_centred():
    def centred(now, last):
        return edit(now, "embed.embedding", lambda g: g - g.mean(0))

    return lstm(gradient=centred)


@LSTM.plant(stage="clip")
def clipped_by_the_largest():
    def by_the_largest(grads, max_norm):
        largest = jnp.stack([jnp.max(jnp.abs(g)) for g in jax.tree.leaves(grads)]).max()
        factor = jnp.minimum(max_norm / (largest + 1e-6), 1.0)
        return jax.tree.map(lambda g: g * factor, grads), optax.tree.norm(grads)

    return lstm(clip=by_the_largest)


@LSTM.plant(stage="clip")
def clipped_softly():
    def softly(grads, max_norm):
        norm = optax.tree.norm(grads)
        return jax.tree.map(lambda g: g * max_norm / (norm + max_norm), grads), norm

    return lstm(clip=softly)


@LSTM.plant(place="", stage="loss")
def states_weighted_by_their_time():
    def later(states, tokens):
        weights = jnp.arange(1, states.shape[1] + 1) / states.shape[1]
        return (states * weights[:, None]).mean(1)

    return lstm(model=set_at("", pool=later))


@LSTM.plant(place="head.weight", stage="optimizer")
def noise_on_one_update():
    def noisy(updates, params):
        return edit(updates, "head.kernel", lambda u: u + 1e-5 * _noise(u))

    return lstm(updates=noisy)


def _noise(x):
    return jnp.asarray(np.random.default_rng(0).standard_normal(x.shape), x.dtype)


UNKNOWN = [*TRANSFORMER.listed, *CNN.listed, *LSTM.listed]
