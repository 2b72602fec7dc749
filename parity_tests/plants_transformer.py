"""Mistakes planted into the small GPT of ``ground_transformer``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

import ground_transformer as ground
import instep
from ground_transformer import BETAS, DECAY, EPS, IGNORED, LR, E, T, adamw, chain, gpt, rate
from instep import bridge
from plants import Plants, adam_by_hand, clip, keep_gradients, set_at, stop


PLANTS = Plants("transformer", gpt)
plant = PLANTS.plant


# The loop.


@plant("gradients_kept")
def zero_grad_forgotten():
    return gpt(start=keep_gradients)


@plant("gradients_of_last_step")
def gradients_one_step_late():
    return gpt(gradient=lambda now, last: jax.tree.map(lambda g: g / 2, last))


@plant("sum_for_mean")
def never_divided_by_accumulate():
    return gpt(divide=lambda sums, weight: sums)


@plant("divided_twice")
def divided_by_accumulate_twice():
    return gpt(divide=lambda sums, weight: jax.tree.map(lambda s: s / weight / weight, sums))


@plant("microbatches_weighed_otherwise")
def microbatches_weighed_by_their_labels():
    return gpt(weigh=ground.labels_of)


@plant("microbatches_weighed_otherwise")
def mean_of_means():
    return gpt(torch_half=ground.whole_window())


@plant("last_microbatch_only")
def gradients_overwritten():
    return gpt(add=lambda sums, grads, weight: grads)


@plant("gradient_missing", place="blocks.1.attn.qkv.bias")
def one_bias_not_differentiated():
    return gpt(inside=lambda params: stop(params, "blocks.1.attn.qkv.bias"))


@plant("frozen_steps", place="wpe.weight")
def frozen_positions_decay():
    half = ground.torch_half()
    half.model.wpe.weight.requires_grad_(False)
    return gpt(torch_half=half, inside=lambda params: stop(params, "wpe.embedding"))


@plant("tied_weights_untied", "gradient_missing", place="head")
def head_is_a_constant_copy():
    return gpt(model=lambda m: setattr(m, "head", lambda m, x: x @ _copy(m.wte).T))


def _copy(embed):
    return jax.lax.stop_gradient(embed.embedding[...])


# Clipping.


@plant("clip_without_epsilon")
def clipped_by_optax():
    def by_optax(grads, max_norm):
        return _clipped_by(optax.clip_by_global_norm(max_norm), grads)

    return gpt(clip=by_optax)


@plant("clip_each_leaf")
def clipped_leaf_by_leaf():
    def by_leaf(grads, max_norm):
        _, norm = clip(grads, max_norm)
        return jax.tree.map(lambda g: clip(g, max_norm)[0], grads), norm

    return gpt(clip=by_leaf, torch_half=ground.torch_half(max_norm=0.2))


@plant("clip_missing")
def never_clipped():
    return gpt(clip=lambda grads, max_norm: (grads, optax.tree.norm(grads)))


@plant("norm_always_scaled")
def scaled_up_as_well():
    def always(grads, max_norm):
        norm = optax.tree.norm(grads)
        return jax.tree.map(lambda g: g * (max_norm / (norm + 1e-6)), grads), norm

    return gpt(clip=always, torch_half=ground.torch_half(max_norm=BETWEEN))


BETWEEN = 1.6  # some steps have a larger norm, some a smaller one


@plant("clip_to_another_norm")
def clipped_to_1():
    return gpt(clip=lambda grads, max_norm: clip(grads, 2 * max_norm))


def _clipped_by(tx, grads):
    return tx.update(grads, tx.init(grads))[0], optax.tree.norm(grads)


# AdamW.


@plant("no_bias_correction")
def moments_as_they_are():
    return gpt(tx=chain(adam_by_hand(lambda m, v, t: m / (jnp.sqrt(v) + EPS), BETAS)))


@plant("bias_correction_off_by_one")
def bias_corrected_for_the_next_step():
    return gpt(tx=chain(_adam_at(1)))


@plant("epsilon_inside_root")
def epsilon_under_the_root():
    return gpt(tx=chain(optax.scale_by_adam(*BETAS, eps=0.0, eps_root=EPS)))


@plant("another_epsilon")
def epsilon_1e_6():
    return gpt(tx=adamw(eps=1e-6))


@plant("another_beta")
def second_beta_of_the_defaults():
    return gpt(tx=adamw(betas=(0.9, 0.999)))


@plant("decay_coupled")
def decay_into_the_gradient():
    return gpt(tx=adamw(make=instep.optim.adam))


@plant("another_decay")
def decay_of_optax():
    tx = optax.adamw(rate, *BETAS, EPS, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
    return gpt(tx=tx)


@plant("decay_on_all")
def one_group():
    return gpt(tx=adamw(decay=(DECAY, DECAY)))


@plant("no_decay")
def adam_for_adamw():
    return gpt(tx=optax.adam(rate, *BETAS, EPS))


@plant("decay_not_scaled_by_lr")
def decay_after_the_learning_rate():
    adam = optax.scale_by_adam(*BETAS, EPS)
    decay = optax.add_decayed_weights(-DECAY, ground.matrices)
    return gpt(tx=optax.chain(adam, optax.scale_by_learning_rate(rate), decay))


@plant("amsgrad_missing")
def amsgrad_left_out():
    return gpt(torch_half=ground.torch_half(amsgrad=True))


@plant("parameter_frozen", place="wpe.weight")
def positions_not_in_the_optimizer():
    groups = [
        ("wpe", None),
        (lambda name, leaf: leaf.ndim > 1 and "wpe" not in name, _adamw(DECAY)),
        (lambda name, leaf: leaf.ndim <= 1, _adamw(0.0)),
    ]
    return gpt(tx=instep.optim.param_groups(groups))


def _adamw(decay: float):
    return instep.optim.adamw(rate, BETAS, EPS, decay)


def _adam_at(shift: int):
    b1, b2 = BETAS

    def direction(m, v, t):
        t = t + shift
        return m / (1 - b1**t) / (jnp.sqrt(v / (1 - b2**t)) + EPS)

    return adam_by_hand(direction, BETAS)


# The schedule.


@plant("schedule_ahead")
def schedule_stepped_first():
    return gpt(tx=adamw(lambda count: rate(count + 1)))


@plant("schedule_behind")
def schedule_stepped_late():
    return gpt(tx=adamw(lambda count: rate(jnp.maximum(count - 1, 0))))


@plant("schedule_constant")
def schedule_never_stepped():
    return gpt(tx=adamw(LR / ground.WARM))


@plant("schedule_per_microbatch")
def schedule_stepped_with_every_microbatch():
    return gpt(tx=adamw(lambda count: rate(ground.ACCUMULATE * count)))


@plant("another_base_rate")
def rate_scaled_with_the_batch():
    return gpt(tx=adamw(lambda count: ground.ACCUMULATE * rate(count)))


@plant("schedule_missing_warmup")
def cosine_alone():
    def cosine(count):
        return LR * 0.5 * (1.0 + jnp.cos(jnp.pi * count / ground.STEPS))

    return gpt(tx=adamw(instep.schedules.lambda_lr(1.0, cosine)))


# The forward pass and the loss.


def changed(path: str, **attributes):
    """The pair whose Flax module at ``path`` has other attributes."""
    return gpt(model=set_at(path, **attributes))


@plant("gelu_by_tanh", place="blocks.0.mlp")
def gelu_of_jax():
    return changed("blocks.0.mlp", activation=jax.nn.gelu)


@plant("activation_exchanged", place="blocks.1.mlp")
def relu_for_gelu():
    return changed("blocks.1.mlp", activation=jax.nn.relu)


@plant("activation_exchanged", place="blocks.0.mlp")
def silu_for_gelu():
    return changed("blocks.0.mlp", activation=jax.nn.silu)


@plant("another_norm_epsilon", place="blocks.1.norm2")
def epsilon_of_flax():
    return changed("blocks.1.norm2", epsilon=1e-6)


@plant("norm_missing", place="norm")
def last_norm_left_out():
    return changed("", last_norm=lambda model, x: x)


@plant("not_causal", place="blocks.0.attn")
def attention_to_the_future():
    return changed("blocks.0.attn", last_seen=T)


@plant("mask_shifted", place="blocks.1.attn")
def attention_to_the_next_token():
    return changed("blocks.1.attn", last_seen=1)


@plant("attention_unscaled", place="blocks.1.attn")
def scores_not_scaled():
    return changed("blocks.1.attn", scale=1.0)


@plant("another_attention_scale", place="blocks.0.attn")
def scores_scaled_by_the_model():
    return changed("blocks.0.attn", scale=E**-0.5)


@plant("softmax_over_another_axis", place="blocks.0.attn")
def softmax_over_the_queries():
    return changed("blocks.0.attn", axis=-2)


@plant("weight_not_transposed", place="blocks.1.attn.out")
def square_weight_copied_as_it_is():
    copied = bridge.linear("blocks.1.attn.out", names={"weight": "kernel"})
    rules = [copied if rule.torch == copied.torch else rule for rule in ground.WEIGHTS]
    return gpt(rules=rules)


@plant("embedding_scaled", place="wte")
def embedding_times_root_of_width():
    return changed("", scale=E**0.5)


@plant("positions_shifted", place="wpe")
def positions_from_one():
    return changed("", first_position=1)


@plant("ignored_labels_counted")
def mean_over_padding_as_well():
    return gpt(loss=lambda *given: ground.cross_entropy(*given) * _share(given[1]))


@plant("loss_summed")
def sum_over_the_labels():
    return gpt(loss=lambda *given: ground.cross_entropy(*given) * jnp.sum(given[1] != IGNORED))


def _share(labels):
    """Of the labels that are not ignored."""
    return jnp.mean(labels != IGNORED, dtype=jnp.result_type(float))
