"""Mistakes planted into the LSTM of ``ground_lstm``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

import ground_lstm as ground
import instep
from ground_lstm import ACCUMULATE, DECAY, GAMMA, LR, PADDING, E, loop_pair, lstm, rate, tx
from plants import Plants, adam_by_hand, clip, edit, keep_gradients, set_at, stop


PLANTS = Plants("lstm", lstm)
plant = PLANTS.plant


# The loop.


@plant("gradients_kept")
def zero_grad_forgotten():
    return lstm(start=keep_gradients)


@plant("gradients_of_last_step")
def gradients_one_step_late():
    return lstm(gradient=lambda now, last: jax.tree.map(lambda g: g / 2, last))


@plant("last_microbatch_only", "microbatch_dropped")
def first_microbatch_left_out():
    return lstm(window=lambda microbatches: microbatches[1:])


@plant("microbatch_repeated", "microbatch_dropped")
def first_microbatch_twice():
    return lstm(window=lambda microbatches: [microbatches[0]] * len(microbatches))


@plant("divided_twice")
def divided_by_accumulate_twice():
    return lstm(divide=lambda sums, weight: jax.tree.map(lambda s: s / weight / weight, sums))


@plant("gradient_missing", place="lstm.weight_hh_l0")
def state_not_differentiated():
    return lstm(inside=lambda params: stop(params, "cell.dense_h.kernel"))


@plant("microbatches_weighed_otherwise")
def microbatches_weighed_by_their_tokens():
    return lstm(weigh=lambda batch: jnp.sum(batch[0] != PADDING, dtype=jnp.result_type(float)))


# Clipping.


@plant("clip_each_microbatch")
def clipped_in_every_backward():
    def by_itself(grads):
        return clip(grads, ground.MAX_NORM)[0]

    return lstm(each=by_itself, clip=lambda grads, max_norm: (grads, optax.tree.norm(grads)))


@plant("clip_each_leaf")
def clipped_leaf_by_leaf():
    def by_leaf(grads, max_norm):
        _, norm = clip(grads, max_norm)
        return jax.tree.map(lambda g: clip(g, max_norm)[0], grads), norm

    return lstm(clip=by_leaf)


@plant("clip_by_value")
def clipped_by_value():
    def by_value(grads, max_norm):
        clipped = jax.tree.map(lambda g: jnp.clip(g, -0.02, 0.02), grads)
        return clipped, optax.tree.norm(grads)

    return lstm(clip=by_value)


@plant("clip_to_another_norm")
def clipped_to_half():
    return lstm(clip=lambda grads, max_norm: clip(grads, max_norm / 2))


# The same in a JaxLoop.


@plant("clip_missing")
def loop_without_clip():
    return loop_pair(clip_grad_norm=None)


@plant("clip_by_value")
def loop_clips_values():
    return loop_pair(clip_grad_norm=None, clip_grad_value=0.02)


@plant("gradient_missing", "parameter_frozen", "no_decay", place="embed.weight")
def loop_that_trains_no_table():
    return loop_pair(trainable="cell|head")


# RMSprop, and Adam and Adagrad in its place.


def by_optax(*parts: optax.GradientTransformation, decay=DECAY):
    decayed = optax.add_decayed_weights(decay)
    return optax.chain(decayed, *parts, optax.scale_by_learning_rate(rate))


@plant("another_algorithm")
def adam_for_rmsprop():
    return lstm(tx=tx(instep.optim.adam))


@plant("epsilon_inside_root")
def epsilon_under_the_root():
    return lstm(tx=by_optax(optax.scale_by_rms(0.99, eps=1e-8, eps_in_sqrt=True)))


@plant("another_beta")
def alpha_of_optax():
    return lstm(tx=by_optax(optax.scale_by_rms(0.9, eps=1e-8, eps_in_sqrt=False)))


@plant("another_epsilon")
def epsilon_of_keras():
    return lstm(tx=tx(eps=1e-7))


@plant("no_decay")
def decay_forgotten():
    return lstm(tx=tx(weight_decay=0.0))


@plant("decay_not_on_vectors")
def decay_on_matrices_alone():
    groups = [
        (lambda name, leaf: leaf.ndim > 1, tx()),
        (lambda name, leaf: leaf.ndim <= 1, tx(weight_decay=0.0)),
    ]
    return lstm(tx=instep.optim.param_groups(groups))


@plant("decay_decoupled")
def decay_beside_the_root():
    rms, decay = optax.scale_by_rms(0.99, eps=1e-8, eps_in_sqrt=False), DECAY
    lr = optax.scale_by_learning_rate(rate)
    return lstm(tx=optax.chain(rms, optax.add_decayed_weights(decay), lr))


@plant("decay_decoupled")
def adamw_for_adam():
    return with_adam(tx(instep.optim.adamw))


@plant("no_bias_correction")
def moments_as_they_are():
    return with_adam(by_optax(adam_by_hand(lambda m, v, t: m / (jnp.sqrt(v) + 1e-8))))


@plant("another_beta")
def first_beta_of_half():
    return with_adam(tx(instep.optim.adam, betas=(0.5, 0.999)))


@plant("another_initial_accumulator")
def accumulator_of_optax():
    return with_adagrad(tx(instep.optim.adagrad, initial_accumulator_value=0.1))


@plant("epsilon_inside_root")
def adagrad_epsilon_under_the_root():
    rss = optax.scale_by_rss(initial_accumulator_value=0.0, eps=1e-10)
    return with_adagrad(by_optax(rss))


def with_adam(tx):
    return lstm(torch_half=ground.torch_half(make=ground.adam), tx=tx)


def with_adagrad(tx):
    return lstm(torch_half=ground.torch_half(make=ground.adagrad), tx=tx)


@plant("parameter_frozen", place="embed.weight")
def table_not_in_the_optimizer():
    groups = [("embed", None), ("cell|head", tx())]
    return lstm(tx=instep.optim.param_groups(groups))


# The schedule.


@plant("schedule_behind")
def schedule_stepped_late():
    return lstm(tx=tx(lr=lambda count: rate(jnp.maximum(count - 1, 0))))


@plant("schedule_ahead")
def schedule_stepped_first():
    return lstm(tx=tx(lr=lambda count: rate(count + 1)))


@plant("schedule_constant")
def schedule_never_stepped():
    return lstm(tx=tx(lr=LR))


@plant("schedule_per_microbatch")
def schedule_stepped_with_every_microbatch():
    return lstm(tx=tx(lr=lambda count: rate(ACCUMULATE * count)))


@plant("another_base_rate")
def rate_of_the_defaults():
    return lstm(tx=tx(lr=instep.schedules.exponential_lr(1e-2, GAMMA)))


# The forward pass and the loss.


def changed(path: str, **attributes):
    """The pair whose Flax module at ``path`` has other attributes."""
    return lstm(model=set_at(path, **attributes))


@plant("gates_in_another_order", place="lstm")
def gates_i_f_o_g():
    return changed("cell", order=(0, 1, 3, 2))


@plant("gates_in_another_order", place="lstm")
def gates_i_g_f_o():
    return changed("cell", order=(0, 2, 1, 3))


@plant("bias_missing", place="lstm.bias_hh_l0")
def one_bias_of_two():
    return lstm(inside=lambda params: edit(params, "cell.dense_h.bias", jnp.zeros_like))


@plant("bias_missing", place="head.bias")
def head_without_bias():
    return lstm(inside=lambda params: edit(params, "head.bias", jnp.zeros_like))


@plant("padding_row_trained", place="embed")
def padding_is_a_token():
    return changed("", lookup=lambda table, tokens: table[tokens])


@plant("embedding_scaled", place="embed")
def embedding_times_root_of_width():
    return changed("", scale=E**0.5)


@plant("activation_exchanged", place="lstm")
def relu_for_the_candidate():
    return changed("cell", candidate=jax.nn.relu)


@plant("pooling_exchanged", place="")
def maximum_for_mean():
    return changed("", pool=lambda states, tokens: states.max(1))


@plant("loss_summed")
def sum_over_the_batch():
    return lstm(loss=lambda *given: ground.cross_entropy(*given) * len(given[1]))


@plant("forget_bias_added", place="lstm")
def forget_bias_of_one():
    return lstm(model=set_at("cell", forget_bias=1.0))


@plant("activation_missing", place="lstm")
def output_without_tanh():
    return lstm(model=set_at("cell", output=lambda c: c))


@plant("sequence_reversed", place="lstm")
def time_reversed():
    return lstm(model=set_at("", backwards=True))


@plant("another_schedule")
def rate_with_a_floor():
    return lstm(tx=tx(lr=lambda count: jnp.maximum(rate(count), 0.7 * LR)))


@plant("another_schedule")
def rate_raised_again():
    return lstm(tx=tx(lr=instep.schedules.cosine_annealing_warm_restarts(LR, 2)))
