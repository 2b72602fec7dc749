"""Mistakes planted by hand into the JAX half of a pair, with their known causes.

``Plants`` lists those of one workload; ``ByHand`` is a training loop in JAX whose parts can be
got wrong one at a time. The workloads are ``plants_transformer``, ``plants_cnn`` and
``plants_lstm``; ``plants_unknown`` and ``plants_pairs`` plant more into them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import instep
from instep import bridge
from instep._trees import named_leaves


class Plant(NamedTuple):
    """A pair with a mistake, and what must be found out about it."""

    name: str
    make: Callable[[], instep.Pair]
    cause: tuple[str, ...]  # names of mistakes that give the same numbers here
    place: str | None = None  # PyTorch's module or leaf; None: no place of its own
    stage: str | None = None  # where it must be found first, if no cause says so


class TwoPlants(NamedTuple):
    """A pair with two mistakes, both of which must be found."""

    name: str
    make: Callable[[], instep.Pair]
    causes: tuple[str, str]
    places: tuple[str | None, str | None] = (None, None)


@dataclass
class Plants:
    """The mistakes planted into one workload, and the pair without any."""

    workload: str
    clean: Callable[[int], instep.Pair]  # by seed
    listed: list[Plant] = field(default_factory=list)

    def plant(self, *cause: str, place: str | None = None, stage: str | None = None):
        """Register the pair that a function makes, under the name of the function."""

        def register(make: Callable[[], instep.Pair]):
            self.listed.append(Plant(make.__name__, make, cause, place, stage))
            return make

        return register


# A training loop as somebody writes it by hand in JAX, in parts that can be got wrong.


def add(sums, grads, weight):
    return jax.tree.map(lambda s, g: s + weight * g, sums, grads)


def divide(sums, weight):
    return jax.tree.map(lambda s: s / weight, sums)


def clip(grads, max_norm):
    """``torch.nn.utils.clip_grad_norm_``."""
    norm = optax.tree.norm(grads)
    factor = jnp.minimum(max_norm / (norm + 1e-6), 1.0)
    return jax.tree.map(lambda g: g * factor, grads), norm


@dataclass(frozen=True)
class ByHand:
    """One optimizer step; every field but the first two has the right part as its default.

    The state is ``(params, buffers, opt_state, grads)``; the last are those of the last step,
    for who forgets to zero them.
    """

    loss_fn: Callable  # (params, buffers, microbatch) -> (loss, new buffers)
    tx: optax.GradientTransformation
    max_norm: float = 1.0
    start: Callable = lambda last: jax.tree.map(jnp.zeros_like, last)  # optimizer.zero_grad()
    window: Callable = lambda microbatches: microbatches
    weigh: Callable = lambda microbatch: 1.0
    each: Callable = lambda grads: grads  # the gradient of a microbatch
    add: Callable = add
    divide: Callable = divide
    carry: Callable = lambda first, now: now  # the buffers that a microbatch is given
    gradient: Callable = lambda now, last: now
    clip: Callable = clip
    updates: Callable = lambda updates, params: updates

    def step(self, state, batch):
        params, buffers, opt_state, last = state
        sums, losses, weight, first = self.start(last), 0.0, 0.0, buffers
        count = len(jax.tree.leaves(batch)[0])
        for microbatch in self.window(
            [jax.tree.map(lambda x, i=i: x[i], batch) for i in range(count)]
        ):
            (loss, buffers), grads = jax.value_and_grad(self.loss_fn, has_aux=True)(
                params, self.carry(first, buffers), microbatch
            )
            w = self.weigh(microbatch)
            sums = self.add(sums, self.each(grads), w)
            losses, weight = losses + w * loss, weight + w
        now = self.divide(sums, weight)
        grads = self.gradient(now, last)
        clipped, norm = self.clip(grads, self.max_norm)
        updates, opt_state = self.tx.update(clipped, opt_state, params)
        params = optax.apply_updates(params, self.updates(updates, params))
        seen = {"loss": losses / weight, "grads": grads, "clipped": clipped, "norm": norm}
        return (params, buffers, opt_state, sums), seen

    def loop(self, params, buffers=None):
        """This step for ``instep.Pair``, from these weights."""

        def state():
            # Copied, since no two leaves of a state may share their memory.
            zeros = jax.tree.map(jnp.zeros_like, params)
            return jax.tree.map(jnp.array, (params, buffers, self.tx.init(params), zeros))

        return instep.JaxLoop.opaque(jax.jit(self.step), state, view)


def view(state, seen) -> instep.View:
    params, buffers, opt_state, _ = state
    return instep.View(
        loss=seen["loss"],
        params=params,
        buffers=buffers,
        opt_state=opt_state,
        grads=seen["grads"],
        clipped_grads=seen["clipped"],
        grad_norm=seen["norm"],
    )


def keep_gradients(last):
    """What ``ByHand.start`` is where nobody calls ``zero_grad``."""
    return last


# What the workloads and the mistakes have in common.


def split(model: nnx.Module, torch_model, rules):
    """``(graphdef, params, buffers)`` of a Flax model, with the weights of the PyTorch one."""
    graphdef, params, buffers = nnx.split(model, nnx.Param, nnx.BatchStat)
    weights = bridge.match_weights(rules, torch_model, params, buffers)
    arrays = torch_model.state_dict()
    return (
        graphdef,
        bridge.weights_to_jax(weights, arrays, params),
        bridge.weights_to_jax(weights, arrays, buffers),
    )


def edit(tree: Any, name: str, fn: Callable) -> Any:
    """``tree`` with ``fn`` applied to the leaf called ``name``."""
    assert name in named_leaves(tree)
    leaves = [fn(leaf) if n == name else leaf for n, leaf in named_leaves(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def stop(tree: Any, name: str) -> Any:
    """``tree`` with no gradient into the leaf called ``name``."""
    return edit(tree, name, jax.lax.stop_gradient)


def set_at(path: str, **attributes: Any) -> Callable[[nnx.Module], None]:
    """What gives the part of a Flax model at ``path`` other attributes."""

    def change(model: Any) -> None:
        for name in path.split(".") if path else ():
            model = model[int(name)] if name.isdigit() else getattr(model, name)
        for name, value in attributes.items():
            setattr(model, name, value)

    return change


def is_matrix(leaf) -> bool:
    return np.ndim(leaf) > 1


def matrices(params):
    return jax.tree.map(is_matrix, params)


def adam_by_hand(direction: Callable, betas=(0.9, 0.999)) -> optax.GradientTransformation:
    """Adam whose last line is ``direction(m, v, t)``; ``t`` is 1 at the first step."""
    b1, b2 = betas

    def update(grads, state, params=None):
        t = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
        steps = jax.tree.map(lambda m, v: direction(m, v, t), mu, nu)
        return steps, optax.ScaleByAdamState(t, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)
