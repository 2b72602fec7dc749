"""Frozen parameters against torch's requires_grad_(False), and the selectors that name them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

import instep
from conftest import assert_bitwise, assert_in_step
from instep import bridge, parity
from instep._select import selected


IN, HIDDEN, OUT, B = 5, 7, 3, 6


def weights():
    rng = np.random.default_rng(0)
    return {
        "body": {"w": rng.normal(size=(IN, HIDDEN)), "b": rng.normal(size=HIDDEN)},
        "head": {"w": rng.normal(size=(HIDDEN, OUT)), "b": rng.normal(size=OUT)},
    }


def data(n):
    rng = np.random.default_rng(n + 10)
    return rng.normal(size=(B, IN)), rng.integers(0, OUT, size=B)


def jax_loss(params, batch):
    x, y = batch
    h = jnp.tanh(x @ params["body"]["w"] + params["body"]["b"][None])
    logits = h @ params["head"]["w"] + params["head"]["b"][None]
    return instep.losses.cross_entropy(logits, y)


def torch_params(trained):
    return {
        part: {
            name: torch.tensor(value, requires_grad=f"{part}.{name}" in trained)
            for name, value in leaves.items()
        }
        for part, leaves in weights().items()
    }


def torch_loss(p, batch):
    x, y = map(torch.tensor, batch)
    h = torch.tanh(x @ p["body"]["w"] + p["body"]["b"])
    return F.cross_entropy(h @ p["head"]["w"] + p["head"]["b"], y)


HEAD = ["head.w", "head.b"]
MASK = {"body": {"w": False, "b": False}, "head": {"w": True, "b": True}}
SELECTORS = {
    "pattern": (r"^head\.", HEAD),
    "function": (lambda name, leaf: name.startswith("head"), HEAD),
    "mask": (MASK, HEAD),
    "biases": (r"\.b$", ["body.b", "head.b"]),
    "matrices": (lambda name, leaf: leaf.ndim > 1, ["body.w", "head.w"]),
    "all": ("", ["body.w", "body.b", "head.w", "head.b"]),
}
OPTIMIZERS = {
    "sgd": (
        lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.1),
        lambda: instep.optim.sgd(0.1, 0.9, weight_decay=0.1),
    ),
    "adamw": (
        lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
        lambda: instep.optim.adamw(0.1, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_both_loops_in_full(selector, optimizer, x64):
    """The frozen ones are not decayed and not in the norm; the fused step and the verbs."""
    trainable, trained = SELECTORS[selector]
    of_torch, of_jax = OPTIMIZERS[optimizer]
    p = torch_params(trained)
    every = {f"{part}.{n}": t for part, leaves in p.items() for n, t in leaves.items()}
    torch_optimizer = of_torch(every.values())

    tx = of_jax()
    verbs = instep.init_state(weights(), tx)
    fused = instep.init_state(weights(), tx)
    train_step = instep.make_train_step(jax_loss, tx, clip_grad_norm=0.1, trainable=trainable)

    for n in range(5):
        torch_optimizer.zero_grad()
        torch_loss(p, data(n)).backward()
        norm = torch.nn.utils.clip_grad_norm_(every.values(), 0.1)
        torch_optimizer.step()

        acc = instep.zero_grad(verbs.params, trainable)
        acc, _ = instep.backward(jax_loss, acc, verbs.params, None, data(n))
        acc = instep.mean(acc)
        grads, jax_norm = instep.clip_grad_norm(acc.grads, 0.1)
        verbs = instep.step(tx, verbs, replace(acc, grads=grads))

        fused, metrics = train_step(fused, data(n))

        assert_in_step(norm, jax_norm, "norm")
        assert_in_step(norm, metrics.grad_norm, "norm")
        for name, t in every.items():
            part, leaf = name.split(".")
            if t.grad is None:
                assert grads[part][leaf] is None
            else:
                assert_in_step(t.grad, grads[part][leaf], f"step {n}, gradient of {name}")
            assert_in_step(t, verbs.params[part][leaf], f"step {n}, {name}")
            assert_in_step(t, fused.params[part][leaf], f"step {n}, {name}")
            if name not in trained:
                assert_bitwise(np.asarray(fused.params[part][leaf]), weights()[part][leaf])
    assert train_step._cache_size() == 1


def work(jaxpr) -> int:
    """Matrix products in a jaxpr, calls and loops opened."""
    inner = (
        x for eqn in jaxpr.eqns for p in eqn.params.values()
        for x in (p if isinstance(p, tuple | list) else (p,))
    )  # fmt: skip
    calls = [getattr(x, "jaxpr", x) for x in inner if hasattr(getattr(x, "jaxpr", x), "eqns")]
    own = sum(eqn.primitive.name == "dot_general" for eqn in jaxpr.eqns)
    return own + sum(work(call) for call in calls)


def test_gradients_of_frozen_leaves_are_not_computed():
    """Forward 2 products; backward 1 for each trained matrix, 1 to pass through the head."""
    tx = instep.optim.sgd(0.1)
    state = instep.init_state(weights(), tx)
    batch = data(0)

    def products(trainable):
        step = instep.make_train_step(jax_loss, tx, trainable=trainable)
        return work(jax.make_jaxpr(step)(state, batch).jaxpr)

    assert {s: products(SELECTORS[s][0]) for s in SELECTORS} == {
        "pattern": 3, "function": 3, "mask": 3, "biases": 3, "matrices": 5, "all": 5,
    }  # fmt: skip
    acc = instep.zero_grad(state.params, "^head")
    assert len(jax.tree.leaves(acc.grads)) == 2


@pytest.mark.parametrize("k", [1, 3])
def test_windows_buffers_and_a_scaler(k, x64):
    """With everything else switched on, the trained leaves move as without frozen ones."""

    def loss_fn(params, buffers, batch, rng):
        return instep.Loss(jax_loss(params, batch), buffers=buffers + 1)

    def body_stopped(params, buffers, batch, rng):
        stopped = params | {"body": jax.lax.stop_gradient(params["body"])}
        return loss_fn(stopped, buffers, batch, rng)

    tx = instep.optim.sgd(0.1, 0.9)

    def trained(loss_fn, trainable):
        state = instep.init_state(weights(), tx, np.zeros(()), scaler=instep.GradScaler())
        step = instep.make_train_step(
            loss_fn, tx, accumulate=k, clip_grad_norm=0.1, trainable=trainable
        )
        for n in range(3):
            batch = data(n) if k == 1 else instep.stack([data(k * n + i) for i in range(k)])
            state, _ = step(state, batch)
        return state

    frozen, stopped = trained(loss_fn, "^head"), trained(body_stopped, None)
    assert float(frozen.buffers) == 3 * k
    assert_bitwise(frozen.params, stopped.params)


def test_flax_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.body, self.head = (
                nnx.Linear(IN, HIDDEN, rngs=rngs),
                nnx.Linear(HIDDEN, OUT, rngs=rngs),
            )

        def __call__(self, x):
            return self.head(nnx.tanh(self.body(x)))

    graphdef, params = nnx.split(Net(nnx.Rngs(0)), nnx.Param)

    def loss_fn(params, batch):
        x, y = batch
        return instep.losses.cross_entropy(nnx.merge(graphdef, params)(x), y)

    x, y = data(0)
    batch = x.astype("f"), y
    tx = instep.optim.adamw(1e-2)
    for trainable in (r"^head\.kernel$", selected(r"^head\.kernel$", params)):
        state = instep.init_state(params, tx)
        step = instep.make_train_step(loss_fn, tx, trainable=trainable)
        for _ in range(2):
            state, _ = step(state, batch)
        assert_bitwise(nnx.to_pure_dict(state.params)["body"], nnx.to_pure_dict(params)["body"])
        moved = nnx.to_pure_dict(state.params)["head"]["kernel"]
        assert not np.array_equal(moved, nnx.to_pure_dict(params)["head"]["kernel"])
        assert step._cache_size() == 1


@pytest.mark.parametrize(
    "tx",
    [optax.sgd(0.1), optax.masked(optax.adamw(0.1), MASK)],
    ids=["sgd", "masked"],
)
def test_optax_that_passes_over_none(tx):
    state = instep.init_state(weights(), tx)
    step = instep.make_train_step(jax_loss, tx, trainable="^head", donate=False)
    before, (state, _) = state, step(state, (data(0)[0].astype("f"), data(0)[1]))
    assert_bitwise(state.params["body"], before.params["body"])
    assert not np.array_equal(state.params["head"]["w"], before.params["head"]["w"])


@pytest.mark.parametrize("tx", [optax.adam(0.1), optax.sgd(0.1, momentum=0.9)])
def test_optax_that_does_not_says_what_to_do(tx):
    state = instep.init_state(weights(), tx)
    step = instep.make_train_step(jax_loss, tx, trainable="^head")
    told = r"without a gradient: \['body.b', 'body.w'\].*optax.masked\(tx, mask\)"
    with pytest.raises(ValueError, match=told):
        step(state, (data(0)[0].astype("f"), data(0)[1]))


@pytest.mark.parametrize(
    ("selector", "error", "told"),
    [
        ("tail", ValueError, r"'tail' selects none of the leaves \['body.b', 'body.w'"),
        (lambda name, leaf: False, ValueError, "selects none of the leaves"),
        (lambda name, leaf: None, TypeError, "selected by True or False.*'body.b': None"),
        ({"head": {"w": True}}, ValueError, r"missing \['body.b', 'body.w', 'head.b'\]"),
        (MASK | {"tail": True}, ValueError, r"not expected \['tail'\]"),
        (jax.tree.map(float, MASK), TypeError, "selected by True or False"),
    ],
)  # fmt: skip
def test_errors_of_a_selector_name_the_leaves(selector, error, told):
    with pytest.raises(error, match=told):
        selected(selector, weights())
    with pytest.raises(error, match=told):
        instep.zero_grad(weights(), selector)


def frozen_pair(**jax_options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    batches = list(torch.randn(6, 8, 3))

    def loss_fn(params, x):
        h = jnp.tanh(x @ params["body"]["kernel"] + params["body"]["bias"])
        return ((h @ params["head"]["kernel"] + params["head"]["bias"]) ** 2).mean()

    params = {
        "body": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)},
        "head": {"kernel": jnp.zeros((4, 2)), "bias": jnp.zeros(2)},
    }
    loop = instep.TorchLoop(
        model,
        lambda model, x: (model(x) ** 2).mean(),
        torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1),
        batches,
        clip_grad_norm=0.1,
    )
    tx = instep.optim.adamw(0.1, weight_decay=0.1)
    half = instep.JaxLoop(loss_fn, tx, params, clip_grad_norm=0.1, trainable="^head")
    return instep.Pair(
        loop,
        replace(half, **jax_options),
        [bridge.linear("0", "body"), bridge.linear("2", "head")],
    )


def test_a_frozen_pair_is_in_step_with_complete_coverage():
    report = parity.run(frozen_pair(), steps=4)
    assert report.in_step and report.coverage.complete, report
    idle = {row.leaf.name for row in report.rows if row.status is parity.Status.IDLE}
    assert idle == {"0.weight", "0.bias"}


def test_a_leaf_that_was_not_frozen_is_found():
    report = parity.run(frozen_pair(trainable=None), steps=4)
    first = report.first_divergence
    assert (first.stage, first.step) == ("gradient", 1)
    assert first.leaf.name.startswith("0.")
