"""The verbs and the fused step, against PyTorch's loop written out in full."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
from flax import nnx

import instep
from conftest import array, assert_bitwise, assert_in_step
from instep import workloads
from instep._loop import initial_state, train_step
from instep.bridge._tensors import batch_of
from instep.bridge._torch_loop import windows


K, B, IN, OUT = 4, 6, 5, 3


def data(seed=0, k=K):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(k, B, IN)), rng.integers(0, OUT, size=(k, B))


def weights(seed=1):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(IN, OUT)), "b": rng.normal(size=OUT)}


def jax_loss(params, batch):
    x, y = batch
    return instep.losses.cross_entropy(x @ params["w"] + params["b"][None], y)


def torch_params():
    return {n: torch.tensor(p, requires_grad=True) for n, p in weights().items()}


def torch_loss(p, x, y):
    return F.cross_entropy(torch.tensor(x) @ p["w"] + p["b"], torch.tensor(y))


def test_both_loops_in_full(x64):
    """zero_grad, k times (forward, loss, backward), clip, step: torch left, instep right."""
    p = torch_params()
    optimizer = torch.optim.SGD(p.values(), lr=0.3, momentum=0.9, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)

    lr = instep.schedules.cosine_annealing_lr(0.3, T_max=20)
    tx = instep.optim.sgd(lr, momentum=0.9, weight_decay=0.01)
    state = instep.init_state(weights(), tx)

    for n in range(10):
        xs, ys = data(n)

        optimizer.zero_grad()
        for x, y in zip(xs, ys, strict=True):
            (torch_loss(p, x, y) / K).backward()
        norm = torch.nn.utils.clip_grad_norm_(p.values(), 0.1)
        optimizer.step()
        scheduler.step()

        acc = instep.zero_grad(state.params)
        for x, y in zip(xs, ys, strict=True):
            acc, _ = instep.backward(jax_loss, acc, state.params, None, (x, y))
        acc = instep.mean(acc)
        grads, jax_norm = instep.clip_grad_norm(acc.grads, 0.1)
        state = instep.step(tx, state, replace(acc, grads=grads))

        assert_in_step(norm, jax_norm, "norm")
        for name in p:
            assert_in_step(p[name].grad, grads[name], f"step {n}, gradient of {name}")
            assert_in_step(p[name], state.params[name], f"step {n}, {name}")
        lr_after = instep.optim.hyperparams(state.opt_state)["lr"]
        assert_in_step(np.array(scheduler.get_last_lr()[0]), lr_after, "learning rate")
    assert not np.allclose(array(p["w"]), weights()["w"])


def test_weighted_accumulation_is_the_gradient_of_the_whole_batch(x64):
    """Masks of 6, 4, 1 and 0 examples: sums over weights, not a mean of means."""
    xs, ys = data()
    mask = np.arange(B)[None] < np.array([6, 4, 1, 0])[:, None]

    p = torch_params()
    flat = mask.reshape(-1)
    torch_loss(p, xs.reshape(-1, IN)[flat], ys.reshape(-1)[flat]).backward()

    def masked_loss(params, batch):
        x, y, m = batch
        losses = instep.losses.cross_entropy(
            x @ params["w"] + params["b"][None], y, reduction="none"
        )
        return instep.Loss(jnp.where(m, losses, 0.0).sum(), weight=m.sum())

    def mean_of_means(params, batch):
        loss = masked_loss(params, batch)
        return loss.total / jnp.maximum(loss.weight, 1).astype(loss.total.dtype)

    def grads(loss_fn):
        acc = instep.zero_grad(weights())
        for batch in zip(xs, ys, mask, strict=True):
            acc, _ = instep.backward(loss_fn, acc, weights(), None, batch)
        return instep.mean(acc).grads

    for name in p:
        assert_in_step(p[name].grad, grads(masked_loss)[name], name)
        wrong = grads(mean_of_means)[name]
        assert np.abs(wrong - array(p[name].grad)).max() > 0.1 * np.abs(wrong).max()


def test_verbs_compose_to_the_fused_step_to_the_bit():
    """digits-cnn: four microbatches, buffers, clipping, schedule."""
    pair = workloads.get("digits-cnn").make_pair()
    loop = pair.jax

    @jax.jit
    def by_verbs(state, batch):
        def forward_loss_backward(carry, microbatch):
            acc, buffers = carry
            acc, out = instep.backward(loop.loss_fn, acc, state.params, buffers, microbatch)
            return (acc, out.buffers), None

        carry = instep.zero_grad(state.params), state.buffers
        (acc, buffers), _ = jax.lax.scan(forward_loss_backward, carry, batch)
        acc = instep.mean(acc)
        grads, _ = instep.clip_grad_norm(acc.grads, loop.clip_grad_norm)
        return instep.step(loop.tx, state, replace(acc, grads=grads), buffers)

    _assert_same_bits(loop, by_verbs, (batch_of(w, pair.batch) for w in windows(pair.torch)))


def test_verbs_in_a_python_loop_are_the_fused_step_to_the_bit():
    """digits-mlp in four microbatches, each verb jitted by itself.

    Not digits-cnn: XLA's CPU backend compiles a loop body to other code than what is outside,
    and gradients of convolutions then differ in their last bits, with instep or without.
    """
    pair = workloads.get("digits-mlp").make_pair()
    loop = replace(pair.jax, accumulate=4)
    backward = jax.jit(instep.backward, static_argnums=0)
    mean, step = jax.jit(instep.mean), jax.jit(partial(instep.step, loop.tx))

    def by_verbs(state, batch):
        acc = instep.zero_grad(state.params)
        for i in range(4):
            microbatch = jax.tree.map(lambda x, i=i: x[i], batch)
            acc, _ = backward(loop.loss_fn, acc, state.params, None, microbatch)
        return step(state, mean(acc))

    batches = (batch_of(w, pair.batch) for w in windows(pair.torch))
    _assert_same_bits(loop, by_verbs, (instep.split(batch, 4) for batch in batches))


def _assert_same_bits(loop, by_verbs, batches):
    fused, fused_step = initial_state(loop), train_step(loop)
    by_hand = start = initial_state(loop)
    for n, batch in zip(range(5), batches, strict=False):
        fused, _ = fused_step(fused, batch)
        by_hand = by_verbs(by_hand, batch)
        assert_bitwise(fused, by_hand, f"step {n}")
    assert not any(map(np.array_equal, *map(jax.tree.leaves, (start.params, fused.params))))


@pytest.mark.parametrize("name", ["digits-cnn", "digits-mlp"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_one_trace_per_precision_and_the_callers_arrays_survive(name, precision):
    with jax.enable_x64(precision == "float64"):
        pair = workloads.get(name).make_pair()
        loop, traces = pair.jax, 0

        def counted(*args):
            nonlocal traces
            traces += 1
            return pair.jax.loss_fn(*args)

        signature = (
            (lambda p, b: counted(p, b))
            if name == "digits-mlp"
            else (lambda p, s, b, r: counted(p, s, b, r))
        )

        def cast(x):
            return jnp.asarray(x, precision) if x.dtype == "float32" else x

        loop = replace(
            loop,
            loss_fn=signature,
            params=jax.tree.map(cast, loop.params),
            buffers=jax.tree.map(cast, loop.buffers),
        )
        before = jax.tree.map(np.array, (loop.params, loop.buffers))
        state, step = initial_state(loop), train_step(loop)
        stream = windows(pair.torch)
        for _ in range(4):
            batch = jax.tree.map(jnp.asarray, batch_of(next(stream), pair.batch))
            kept, old = jax.tree.map(np.array, batch), state
            state, metrics = step(state, batch)
            assert_bitwise(jax.tree.map(np.array, batch), kept, "batch")
        assert traces == 1
        assert metrics.loss.dtype == precision
        assert_bitwise(jax.tree.map(np.array, (loop.params, loop.buffers)), before, "params")
        donated = [leaf.is_deleted() for leaf in jax.tree.leaves(old)]
        assert all(donated), f"{donated.count(False)} leaves of the old state were not donated"


def test_donate_false_keeps_the_state():
    tx = instep.optim.adamw()
    state = instep.init_state({"w": jnp.ones((IN, OUT)), "b": jnp.ones(OUT)}, tx)
    step = instep.make_train_step(jax_loss, tx, donate=False)
    x, y = data()
    step(state, (x[0].astype("f"), y[0]))
    assert float(state.params["w"].sum()) == IN * OUT


def test_init_state_shares_no_memory_and_no_weak_types():
    shared = jnp.ones((2, 2))
    params = {"a": shared, "b": shared, "c": jnp.asarray(1.0)}
    state = instep.init_state(params, optax.ema(0.9), buffers={"a": shared})
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    assert not any(leaf.weak_type for leaf in leaves)
    traces = 0

    def loss_fn(params, batch):
        nonlocal traces
        traces += 1
        return params["c"] * params["a"].sum() + batch

    step = instep.make_train_step(loss_fn, optax.sgd(0.1))
    state = instep.init_state(params, optax.sgd(0.1))
    for _ in range(3):
        state, _ = step(state, jnp.zeros(()))
    assert traces == 1


def test_batch_statistics_pass_through_the_microbatches_in_order(x64):
    rng = np.random.default_rng(0)
    xs, w = rng.normal(size=(K, B, IN)), rng.normal(size=IN)

    model = torch.nn.BatchNorm1d(IN, affine=False)
    p = torch.tensor(w, requires_grad=True)
    for x in xs:
        ((model(torch.tensor(x) * p) ** 2 * torch.arange(IN)).mean() / K).backward()

    def loss_fn(params, buffers, batch, rng):
        y, mean, var = instep.ops.batch_norm(
            batch * params[None], buffers["mean"], buffers["var"], training=True
        )
        weight = jnp.arange(IN, dtype=float)[None]
        return instep.Loss((y**2 * weight).mean(), buffers={"mean": mean, "var": var})

    tx = instep.optim.sgd(0.1)
    buffers = {"mean": np.zeros(IN), "var": np.ones(IN)}
    state = instep.init_state(w, tx, buffers)
    state, _ = instep.make_train_step(loss_fn, tx, accumulate=K)(state, xs)
    assert_in_step(model.running_mean, state.buffers["mean"], "running_mean")
    assert_in_step(model.running_var, state.buffers["var"], "running_var")

    backwards = instep.init_state(w, tx, buffers)
    backwards, _ = instep.make_train_step(loss_fn, tx, accumulate=K)(backwards, xs[::-1])
    assert not np.allclose(backwards.buffers["mean"], state.buffers["mean"])


def test_flax_nnx_any_pytree_of_params():
    graphdef, params = nnx.split(nnx.Linear(IN, OUT, rngs=nnx.Rngs(0)), nnx.Param)

    def loss_fn(params, batch):
        x, y = batch
        return instep.losses.cross_entropy(nnx.merge(graphdef, params)(x), y)

    tx = instep.optim.adamw(1e-2)
    state, step = instep.init_state(params, tx), instep.make_train_step(loss_fn, tx)
    x, y = data()
    batch = x[0].astype(np.float32), y[0]
    losses = []
    for _ in range(30):
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.8 * losses[0]
    assert isinstance(nnx.merge(graphdef, state.params), nnx.Linear)


def test_randomness_is_a_function_of_key_step_and_microbatch():
    def loss_fn(params, buffers, batch, rng):
        return instep.Loss(params * batch.sum(), metrics=jax.random.uniform(rng))

    def draws():
        tx = optax.sgd(0.0)
        state = instep.init_state(jnp.ones(()), tx, rng=jax.random.key(7))
        step = instep.make_train_step(loss_fn, tx, accumulate=3)
        seen = []
        for _ in range(2):
            state, metrics = step(state, jnp.ones((3, 2)))
            seen.append(metrics.aux)
        return np.concatenate(seen)

    first = draws()
    assert len(set(first.tolist())) == 6
    assert_bitwise(first, draws())
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), 1), 2)
    assert first[5] == jax.random.uniform(key)


def test_eval_step_sums_exactly_over_ragged_batches(x64):
    def loss_fn(params, batch):
        x, y = batch
        losses = instep.losses.cross_entropy(x @ params["w"], y, reduction="none")
        return instep.Loss(losses.sum(), weight=float(len(y)))

    xs, ys = data()
    x, y = xs.reshape(-1, IN), ys.reshape(-1)
    eval_step = instep.make_eval_step(loss_fn)
    state = instep.init_state(weights(), optax.sgd(0.1))
    parts = [eval_step(state, (x[s], y[s])) for s in (slice(0, 20), slice(20, 24))]
    mean = sum(p.total for p in parts) / sum(p.weight for p in parts)
    p = torch_params()
    expected = F.cross_entropy(torch.tensor(x) @ p["w"], torch.tensor(y))
    assert_in_step(expected, mean)


def test_metrics_report_the_mean_loss_and_the_whole_weight():
    def loss_fn(params, batch):
        return instep.Loss((params["w"] * batch).sum(), weight=batch.sum())

    tx = optax.sgd(0.1)
    state = instep.init_state({"w": jnp.full(2, 3.0)}, tx)
    step = instep.make_train_step(loss_fn, tx, accumulate=2, clip_grad_norm=np.inf)
    batch = jnp.array([[1.0, 2.0], [0.0, 5.0]])
    _, metrics = step(state, batch)
    assert (float(metrics.loss), float(metrics.weight)) == (3.0, 8.0)
    assert float(metrics.grad_norm) == pytest.approx(np.hypot(1, 7) / 8)


def test_zero_weight_is_nan_and_mean_is_idempotent():
    params = {"w": jnp.ones(2)}

    def loss_fn(params, batch):
        return instep.Loss(params["w"].sum() * batch, weight=batch)

    acc = instep.zero_grad(params)
    zero, _ = instep.backward(loss_fn, acc, params, None, 0.0)
    assert np.isnan(instep.mean(zero).grads["w"]).all()
    acc, _ = instep.backward(loss_fn, acc, params, None, 3.0)
    acc, _ = instep.backward(loss_fn, acc, params, None, 5.0)
    once = instep.mean(acc)
    assert_bitwise(instep.mean(once), once)
    assert (int(once.count), float(once.loss)) == (2, 2.0)


def test_gradients_accumulate_in_float32_and_apply_in_the_dtype_of_the_parameter():
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    tx = instep.optim.sgd(0.5, momentum=0.9)
    state = instep.init_state(params, tx)
    assert instep.zero_grad(params).grads["w"].dtype == jnp.float32
    step = instep.make_train_step(lambda p, b: (p["w"] * b).sum(), tx, accumulate=2)
    state, metrics = step(state, jnp.ones((2, 2), jnp.bfloat16))
    assert state.params["w"].dtype == jnp.bfloat16
    assert state.opt_state.slots["momentum_buffer"]["w"].dtype == jnp.bfloat16
    assert metrics.loss.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(state.params["w"], np.float32), 0.5)


def test_clips_by_norm_before_value(x64):
    """clip_grad_norm_, then clip_grad_value_: the other order gives another gradient."""
    w = torch.tensor([0.0, 0.0], requires_grad=True)
    scale = torch.tensor([3.0, 0.1])
    (w * scale).sum().backward()
    torch.nn.utils.clip_grad_norm_([w], 1.0)
    torch.nn.utils.clip_grad_value_([w], 0.5)

    def loss_fn(params, batch):
        return (params * batch).sum()

    tx = instep.optim.sgd(1.0)
    step = instep.make_train_step(loss_fn, tx, clip_grad_norm=1.0, clip_grad_value=0.5)
    state, _ = step(instep.init_state(jnp.zeros(2), tx), jnp.array([3.0, 0.1]))
    assert_in_step(-w.grad, state.params)


def test_the_optimizer_receives_gradients_in_the_dtype_of_the_parameters():
    """Accumulated in float32; PyTorch's .grad is bfloat16."""
    seen = []
    tx = optax.GradientTransformation(
        lambda params: (), lambda g, state, params=None: (seen.append(g.dtype) or g, state)
    )
    state = instep.init_state(jnp.ones(2, jnp.bfloat16), tx)
    acc = instep.zero_grad(state.params)
    assert acc.grads.dtype == jnp.float32
    instep.step(tx, state, acc)
    assert seen == [jnp.bfloat16]
