"""Opaque loops are re-synchronised through their view, where it hands on what the state has."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import instep
from instep import parity
from instep.parity._records import Status
from pairs import linear_pair


NAMES = ("float64", "float64 re-synchronised", "float32 re-synchronised")


def named(report):
    return {walk.plan.name: walk for walk in report.walks}


def opaque_pair(view, momentum=0.9):
    pair = linear_pair()
    optimizer = torch.optim.SGD(pair.torch.model.parameters(), lr=0.1, momentum=momentum)
    tx = optax.sgd(0.1, momentum=momentum or None)
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}

    @jax.jit
    def step(state, x):
        params, opt_state = state
        loss, grads = jax.value_and_grad(pair.jax.loss_fn)(params, x)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), (loss, grads)

    return replace(
        pair,
        torch=replace(pair.torch, optimizer=optimizer),
        jax=instep.JaxLoop.opaque(step, lambda: (params, tx.init(params)), view),
    )


def test_an_opaque_loop_is_synced_through_its_view():
    def view(state, seen):
        return instep.View(seen[0], state[0], opt_state=state[1], grads=seen[1])

    report = parity.run(opaque_pair(view), steps=4, precisions=["float32", "bfloat16"])
    assert report.in_step and len(report.walks) == 4, report
    state = [r for r in report.walks[2].rows if r.leaf.kind == "state"]
    assert [row.status for row in state] == [Status.IN_STEP] * 2


@pytest.mark.parametrize(
    ("view", "why"),
    [
        (
            lambda state, seen: instep.View(seen[0], state[0], grads=seen[1]),
            "the JAX side does not show the momentum_buffer of ",
        ),
        (
            lambda state, seen: instep.View(
                seen[0], jax.tree.map(lambda p: p * 1.0, state[0]), None, state[1], seen[1]
            ),
            "view computes params.bias, params.kernel instead of handing on",
        ),
        (
            lambda state, seen: instep.View(
                seen[0], jax.tree.map(np.array, state[0]), None, state[1], seen[1]
            ),
            "view computes with NumPy",
        ),
    ],
)
def test_an_opaque_loop_that_cannot_be_synced_has_limited_coverage(view, why):
    report = parity.run(opaque_pair(view), steps=3)
    assert report.in_step and tuple(named(report)) == NAMES[:1], report
    assert [s.partition(": ")[0] for s in report.coverage.not_walked] == list(NAMES[1:])
    assert all(why in sentence for sentence in report.coverage.not_walked)
    assert not report.coverage.complete
    assert not report.to_dict()["coverage"]["complete"]


def test_weights_behind_those_that_are_shown_are_limited_coverage():
    """The step reads masters that the view does not show: syncing does not reach them."""
    pair = linear_pair()

    @jax.jit
    def step(state, x):
        masters = state["masters"]
        loss, grads = jax.value_and_grad(pair.jax.loss_fn)(masters, x)
        masters = jax.tree.map(lambda p, g: p - 0.1 * g, masters, grads)
        return {"masters": masters, "params": masters}, (loss, grads)

    def view(state, seen):
        return instep.View(seen[0], state["params"], grads=seen[1])

    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    state = {"masters": params, "params": params}
    half = instep.JaxLoop.opaque(step, state, view)
    report = parity.run(replace(pair, jax=half), steps=3)
    assert not report.coverage.complete
    assert "view does not show masters.bias and 1 more" in report.coverage.unseen[0]
