"""Mistakes that people make, each written by hand into the JAX half of a pair.

Every function here is a TARGET: ``instep parity parity_tests/teeth.py:lr_times_1_01``. The ones
under ``CLEAN`` have no mistake; each of ``TEETH`` names the stage that must be found to diverge
first, and the precisions whose rounding is larger than the mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
from flax import nnx

import instep
from instep import bridge
from instep._trees import named_leaves
from instep.workloads import digits_cnn as cnn, digits_mlp as mlp


CLEAN: list[str] = []
TEETH: dict[str, Tooth] = {}


class Tooth(NamedTuple):
    """What a mistake is called, where it is found first, and which precisions hide it."""

    cause: str
    stage: str
    step: int
    hidden: tuple[str, ...]


def clean(make: Callable[[], instep.Pair]):
    CLEAN.append(make.__name__)
    return make


def tooth(cause: str, stage: str, step: int = 1, hidden: tuple[str, ...] = ()):
    def register(make: Callable[[], instep.Pair]):
        TEETH[make.__name__] = Tooth(cause, stage, step, hidden)
        return make

    return register


# The JAX half of digits-cnn as somebody writes it by hand, in parts that can be got wrong.


@dataclass(frozen=True)
class ByHand:
    loss_fn: Callable
    tx: optax.GradientTransformation
    first: Callable = lambda params, last: instep.zero_grad(params)  # optimizer.zero_grad()
    microbatches: int = cnn.ACCUMULATE
    mean: Callable = instep.mean
    gradient: Callable = lambda now, last: now
    clip: Callable = lambda grads: instep.clip_grad_norm(grads, cnn.MAX_NORM)

    def step(self, state, batch):
        train, last = state
        acc, buffers = self.first(train.params, last), train.buffers
        for i in range(self.microbatches):
            microbatch = jax.tree.map(lambda x, i=i: x[i], batch)
            acc, out = instep.backward(self.loss_fn, acc, train.params, buffers, microbatch)
            buffers = out.buffers
        averaged = self.mean(acc)
        grads = self.gradient(averaged.grads, instep.mean(last).grads)
        clipped, norm = self.clip(grads)
        train = instep.step(self.tx, train, replace(acc, grads=clipped), buffers)
        seen = {"loss": averaged.loss, "grads": grads, "clipped": clipped, "norm": norm}
        return (train, acc), seen


def view(state, seen) -> instep.View:
    train, _ = state
    return instep.View(
        loss=seen["loss"],
        params=train.params,
        buffers=train.buffers,
        opt_state=train.opt_state,
        grads=seen["grads"],
        clipped_grads=seen["clipped"],
        grad_norm=seen["norm"],
    )


def cnn_pair(torch_half: instep.TorchLoop | None = None, **mistake: Any) -> instep.Pair:
    """digits-cnn with the hand-written half; ``mistake`` replaces parts of it."""
    right = cnn.jax_half()
    half = replace(ByHand(right.loss_fn, right.tx), **mistake)

    def state():
        train = instep.init_state(right.params, half.tx, right.buffers)
        return train, replace(instep.zero_grad(right.params), weight=jnp.ones(()))

    jax_half = instep.JaxLoop.opaque(jax.jit(half.step), state, view)
    return instep.Pair(torch_half or cnn.torch_half(), jax_half, cnn.WEIGHTS, cnn.channels_last)


@clean
def cnn_by_hand():
    return cnn_pair()


@tooth("gradient_negated", "gradient")
def sign_of_one_gradient_leaf():
    return cnn_pair(gradient=lambda now, last: _edit(now, "bn1.bias", lambda g: -g))


@tooth("another_base_rate", "schedule", step=0)
def lr_times_1_01():
    lr = instep.schedules.cosine_annealing_lr(1.01 * cnn.LR, cnn.STEPS)
    return cnn_pair(tx=instep.optim.sgd(lr, cnn.MOMENTUM, weight_decay=cnn.WEIGHT_DECAY))


@tooth("schedule_ahead", "schedule", step=0)
def schedule_one_step_ahead():
    right = instep.schedules.cosine_annealing_lr(cnn.LR, cnn.STEPS)
    tx = instep.optim.sgd(lambda n: right(n + 1), cnn.MOMENTUM, weight_decay=cnn.WEIGHT_DECAY)
    return cnn_pair(tx=tx)


@tooth("microbatch_dropped", "loss")
def last_microbatch_dropped():
    return cnn_pair(microbatches=cnn.ACCUMULATE - 1)


@tooth("sum_for_mean", "gradient")
def sum_instead_of_mean():
    return cnn_pair(mean=lambda acc: replace(instep.mean(acc), grads=acc.grads))


@tooth("gradients_kept", "gradient", step=2)
def zero_grad_forgotten():
    def keep(params, last):
        return replace(instep.zero_grad(params), grads=last.grads)

    return cnn_pair(first=keep)


@tooth("gradients_of_last_step", "gradient")
def gradient_of_the_previous_step():
    return cnn_pair(gradient=lambda now, last: last)


@tooth("clip_without_epsilon", "clip", hidden=("float32", "bfloat16"))
def clip_without_1e_6():
    def clip(grads):
        norm = optax.tree.norm(grads)
        factor = jnp.minimum(cnn.MAX_NORM / norm, 1.0)
        return jax.tree.map(lambda g: g * factor, grads), norm

    return cnn_pair(clip=clip)


@tooth("clip_each_leaf", "clip")
def clip_each_leaf_by_itself():
    def clip(grads):
        _, norm = instep.clip_grad_norm(grads, np.inf)
        alone = jax.tree.map(lambda g: instep.clip_grad_norm(g, cnn.MAX_NORM / 5)[0], grads)
        return alone, norm

    return cnn_pair(clip=clip)


@tooth("biased_variance", "buffers", hidden=("bfloat16",))
def biased_running_variance():
    n = cnn.MICROBATCH * 8 * 8  # values per channel of a microbatch
    biased = (n - 1) / n  # of the share that is new
    return cnn_pair(
        loss_fn=_with_running_var(lambda new, old: 0.9 * old + (new - 0.9 * old) * biased)
    )


@tooth("statistics_never_updated", "buffers")
def running_statistics_never_updated():
    return cnn_pair(loss_fn=_with_running_var(lambda new, old: old))


@tooth("decay_not_on_vectors", "optimizer", hidden=("bfloat16",))
def decay_not_on_biases():
    lr = instep.schedules.cosine_annealing_lr(cnn.LR, cnn.STEPS)
    plain = instep.optim.sgd(lr, cnn.MOMENTUM)
    tx = optax.chain(
        optax.add_decayed_weights(cnn.WEIGHT_DECAY, lambda p: jax.tree.map(_is_matrix, p)),
        plain,
    )
    return cnn_pair(tx=tx)


@tooth("dampened", "optimizer")
def dampening_on_the_first_step():
    torch_half = _torch_half_with_dampening(0.5)
    damped = optax.chain(
        optax.add_decayed_weights(cnn.WEIGHT_DECAY),
        optax.scale(1 - 0.5),
        optax.trace(cnn.MOMENTUM),
        optax.scale_by_learning_rate(cnn.LR),
    )
    return cnn_pair(torch_half, tx=damped)


@clean
def dampening_after_the_first_step():
    tx = instep.optim.sgd(cnn.LR, cnn.MOMENTUM, 0.5, cnn.WEIGHT_DECAY)
    return cnn_pair(_torch_half_with_dampening(0.5), tx=tx)


# digits-mlp: its JAX half is plain Flax and optax, and so are the mistakes.


def mlp_pair(**mistake: Any) -> instep.Pair:
    pair = mlp.WORKLOAD.make_pair()
    return replace(pair, jax=replace(pair.jax, **mistake))


@tooth("no_bias_correction", "optimizer")
def no_bias_correction():
    def update(grads, state, params=None):
        mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state.nu, grads)
        steps = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + 1e-8), mu, nu)
        return steps, optax.ScaleByAdamState(state.count + 1, mu, nu)

    adam = optax.GradientTransformation(optax.scale_by_adam().init, update)
    decay, lr = optax.add_decayed_weights(1e-2), optax.scale_by_learning_rate(2e-3)
    return mlp_pair(tx=optax.chain(adam, decay, lr))


@tooth("decay_coupled", "optimizer")
def decay_coupled_instead_of_decoupled():
    return mlp_pair(tx=optax.chain(optax.add_decayed_weights(1e-2), optax.adam(2e-3)))


@tooth("another_decay", "optimizer", hidden=("bfloat16",))
def optax_default_weight_decay():
    return mlp_pair(tx=optax.adamw(2e-3))


@tooth("epsilon_inside_root", "optimizer", hidden=("bfloat16",))
def epsilon_inside_the_root():
    return mlp_pair(tx=optax.adamw(2e-3, eps=0.0, eps_root=1e-16, weight_decay=1e-2))


@tooth("weight_not_transposed", "loss")
def square_weight_not_transposed():
    pair = mlp.WORKLOAD.make_pair()
    rules = [bridge.linear("fc1"), _untransposed("fc2"), bridge.linear("fc3")]
    return replace(pair, weights=rules)


# Ragged: every microbatch has another number of labelled examples.


@clean
def token_weighted_mean():
    return _ragged(lambda total, weight: instep.Loss(total, weight))


@tooth("microbatches_weighed_otherwise", "loss")
def mean_of_means_on_ragged_weights():
    return _ragged(lambda total, weight: total / weight)


def _ragged(jax_loss: Callable) -> instep.Pair:
    pair = mlp.WORKLOAD.make_pair()
    images, labels = next(iter(pair.torch.batches))
    windows = []
    for n in range(5):
        kept = torch.arange(16)[None] < torch.tensor([16, 9, 4, 1])[:, None]
        x, y = images.roll(n, 0).view(4, 16, 1, 8, 8), labels.roll(n, 0).view(4, 16)
        windows += [(x[i], y[i], kept[i], kept.sum() / 4) for i in range(4)]

    def torch_loss(model, batch):
        x, y, kept, labelled = batch
        losses = F.cross_entropy(model(x), y, reduction="none")
        return (losses * kept).sum() / labelled  # so that the mean over 4 is over all labels

    graphdef = nnx.graphdef(mlp.FlaxMLP(nnx.Rngs(0)))

    def loss_fn(params, batch):
        x, y, kept, _ = batch
        losses = instep.losses.cross_entropy(
            nnx.merge(graphdef, params)(x), y, reduction="none"
        )
        return jax_loss(jnp.where(kept, losses, 0.0).sum(), kept.sum())

    return replace(
        pair,
        torch=replace(pair.torch, loss_fn=torch_loss, batches=windows, accumulate=4),
        jax=replace(pair.jax, loss_fn=loss_fn, accumulate=4),
    )


def _edit(tree, name: str, fn: Callable):
    """``tree`` with ``fn`` applied to the leaf called ``name``."""
    assert name in named_leaves(tree)
    leaves = [fn(leaf) if n == name else leaf for n, leaf in named_leaves(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _with_running_var(change: Callable) -> Callable:
    """The loss of digits-cnn, whose new running variances are ``change(new, old)``."""
    right = cnn.jax_half().loss_fn

    def loss_fn(params, buffers, batch, rng):
        old = jax.tree.map(jnp.asarray, buffers)  # Flax writes into the variables it is given
        out = right(params, buffers, batch, rng)
        new = jax.tree_util.tree_map_with_path(
            lambda path, n, o: change(n, o) if "var" in jax.tree_util.keystr(path) else n,
            out.buffers,
            old,
        )
        return replace(out, buffers=new)

    return loss_fn


def _is_matrix(leaf) -> bool:
    return leaf.ndim > 1


def _torch_half_with_dampening(dampening: float) -> instep.TorchLoop:
    half = cnn.torch_half()
    optimizer = torch.optim.SGD(
        half.model.parameters(), cnn.LR, cnn.MOMENTUM, dampening, cnn.WEIGHT_DECAY
    )
    return replace(half, optimizer=optimizer, scheduler=None)


def _untransposed(name: str):
    return bridge.linear(name, names={"weight": "kernel"})
