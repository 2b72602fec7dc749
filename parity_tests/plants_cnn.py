"""Mistakes planted into the small convolutional net of ``ground_cnn``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import ground_cnn as ground
import instep
from ground_cnn import ACCUMULATE, DECAY, LR, MOMENTUM, STEPS, cnn, rate, sgd
from instep import bridge
from plants import Plants, clip, edit, keep_gradients, matrices, set_at, stop


PLANTS = Plants("cnn", cnn)
plant = PLANTS.plant


# The loop.


@plant("gradients_kept")
def zero_grad_forgotten():
    return cnn(start=keep_gradients)


@plant("sum_for_mean")
def never_divided_by_accumulate():
    return cnn(divide=lambda sums, weight: sums)


@plant("microbatch_dropped")
def last_microbatch_left_out():
    return cnn(window=lambda microbatches: microbatches[:-1])


@plant("gradient_negated")
def ascent():
    return cnn(gradient=lambda now, last: jax.tree.map(jnp.negative, now))


@plant("gradient_missing", place="conv1.weight")
def first_layer_not_differentiated():
    return cnn(inside=lambda params: stop(params, "conv1.kernel"))


@plant("statistics_not_carried")
def statistics_of_the_last_microbatch():
    return cnn(carry=lambda first, now: first)


# Clipping.


@plant("clip_by_value")
def clipped_by_value():
    def by_value(grads, max_norm):
        clipped = jax.tree.map(lambda g: jnp.clip(g, -0.1, 0.1), grads)
        return clipped, optax.tree.norm(grads)

    return cnn(clip=by_value)


@plant("clip_without_epsilon")
def clipped_without_1e_6():
    def clipped(grads, max_norm):
        norm = optax.tree.norm(grads)
        return jax.tree.map(lambda g: g * jnp.minimum(max_norm / norm, 1.0), grads), norm

    return cnn(clip=clipped)


@plant("clip_missing")
def never_clipped():
    return cnn(clip=lambda grads, max_norm: (grads, optax.tree.norm(grads)))


@plant("clip_to_another_norm")
def clipped_to_a_tenth():
    return cnn(clip=lambda grads, max_norm: clip(grads, max_norm / 10))


# SGD.


def by_optax(*parts: optax.GradientTransformation, decay=DECAY, mask=None, lr=rate):
    """SGD of optax's parts."""
    return optax.chain(
        optax.add_decayed_weights(decay, mask), *parts, optax.scale_by_learning_rate(lr)
    )


@plant("no_momentum")
def plain_descent():
    return cnn(tx=by_optax())


@plant("nesterov_added")
def nesterov_where_there_is_none():
    return cnn(tx=by_optax(optax.trace(MOMENTUM, nesterov=True)))


@plant("nesterov_missing")
def nesterov_forgotten():
    return cnn(torch_half=ground.torch_half(nesterov=True))


@plant("dampened")
def momentum_as_an_average():
    return cnn(tx=by_optax(optax.scale(1 - MOMENTUM), optax.trace(MOMENTUM)))


@plant("dampened")
def dampening_of_a_tenth():
    return cnn(tx=sgd(dampening=0.1))


@plant("learning_rate_inside_momentum")
def momentum_of_the_steps():
    decay, lr = optax.add_decayed_weights(DECAY), optax.scale_by_learning_rate(rate)
    return cnn(tx=optax.chain(decay, lr, optax.trace(MOMENTUM)))


@plant("decay_not_on_vectors")
def decay_on_matrices_alone():
    return cnn(tx=by_optax(optax.trace(MOMENTUM), mask=matrices))


@plant("no_decay")
def decay_forgotten():
    return cnn(tx=optax.sgd(rate, MOMENTUM))


@plant("another_decay")
def decay_of_optax():
    return cnn(tx=sgd(decay=1e-4))


@plant("decay_decoupled")
def decay_beside_the_momentum():
    decay, lr = optax.add_decayed_weights(DECAY), optax.scale_by_learning_rate(rate)
    return cnn(tx=optax.chain(optax.trace(MOMENTUM), decay, lr))


@plant("parameter_frozen", place="bn2.weight")
def scale_never_updated():
    groups = [("bn2.scale", None), (lambda name, leaf: name != "bn2.scale", sgd())]
    return cnn(tx=instep.optim.param_groups(groups))


@plant("another_algorithm")
def adam_for_sgd():
    return cnn(tx=instep.optim.adam(rate, weight_decay=DECAY))


# The schedule.


@plant("schedule_ahead")
def schedule_stepped_first():
    return cnn(tx=sgd(lambda count: rate(count + 1)))


@plant("schedule_behind")
def step_lr_stepped_late():
    steps = instep.schedules.step_lr(LR, 2, gamma=0.5)
    late = sgd(lambda count: steps(jnp.maximum(count - 1, 0)))
    return cnn(torch_half=ground.torch_half(scheduler=ground.step_lr), tx=late)


@plant("schedule_per_microbatch")
def schedule_stepped_with_every_microbatch():
    return cnn(tx=by_optax(optax.trace(MOMENTUM), lr=lambda count: rate(ACCUMULATE * count)))


@plant("schedule_constant")
def schedule_never_stepped():
    return cnn(tx=sgd(LR))


@plant("another_base_rate")
def rate_divided_by_accumulate():
    less = instep.schedules.cosine_annealing_lr(LR / ACCUMULATE, STEPS)
    return cnn(tx=by_optax(optax.trace(MOMENTUM), lr=less))


# BatchNorm and its memory.


def changed(path: str, **attributes):
    """The pair whose Flax module at ``path`` has other attributes."""
    return cnn(model=set_at(path, **attributes))


@plant("biased_variance", place="bn1")
def variance_of_flax():
    return changed("bn1", unbiased=False)


@plant("another_statistics_momentum", place="bn2")
def momentum_of_flax():
    return changed("bn2", momentum=0.99)


@plant("statistics_never_updated", place="bn1")
def statistics_thrown_away():
    return changed("bn1", updated=False)


@plant("statistics_in_evaluation", place="bn2")
def evaluation_mode():
    return changed("bn2", training=False)


@plant("another_norm_epsilon", place="bn1")
def epsilon_of_keras():
    return changed("bn1", epsilon=1e-3)


@plant("norm_missing", place="bn2")
def second_norm_left_out():
    return changed("bn2", left_out=True)


# The forward pass and the loss.


@plant("padding_same", place="conv2")
def same_at_stride_2():
    return changed("conv2", padding="SAME")


@plant("padding_missing", place="pool2")
def average_of_valid_windows():
    return changed("", pool2=lambda x: nnx.avg_pool(x, (3, 3), strides=(3, 3)))


@plant("pooling_counts_no_padding", place="pool2")
def average_of_what_is_there():
    def pool(x):
        around = ((1, 1), (1, 1))
        return nnx.avg_pool(x, (3, 3), (3, 3), padding=around, count_include_pad=False)

    return changed("", pool2=pool)


@plant("pooling_exchanged", place="pool1")
def average_for_maximum():
    return changed("", pool1=lambda x: nnx.avg_pool(x, (2, 2), strides=(2, 2)))


@plant("activation_exchanged", place="")
def leaky_relu():
    return changed("", activation2=nnx.leaky_relu)


@plant("bias_missing", place="fc1.bias")
def first_linear_without_bias():
    return cnn(inside=lambda params: edit(params, "fc1.bias", jnp.zeros_like))


@plant("weight_not_transposed", place="fc2")
def square_weight_transposed_once_more():
    def dot_general(x, kernel, *args, **kwargs):
        return jax.lax.dot_general(x, kernel.T, *args, **kwargs)

    return changed("fc2", dot_general=dot_general)


@plant("label_smoothing_missing")
def labels_not_smoothed():
    return cnn(loss=lambda logits, labels: ground.cross_entropy(logits, labels, 0.0))


@plant("loss_summed")
def sum_over_the_batch():
    return cnn(loss=lambda *given: ground.cross_entropy(*given) * len(given[1]))


@plant("flattened_channels_last", place="")
def features_flattened_channels_last():
    plain = bridge.linear("fc1")
    return cnn(rules=[plain if r.torch == "fc1" else r for r in ground.WEIGHTS])


@plant("loss_scaled", "divided_twice")
def half_the_loss():
    return cnn(loss=lambda *given: 0.5 * ground.cross_entropy(*given))


@plant("softmax_before_cross_entropy")
def softmax_before_cross_entropy():
    return cnn(loss=lambda x, labels: ground.cross_entropy(jax.nn.softmax(x), labels))
