"""What a replica sees: its part of the batch, its statistics, its random numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch

import instep
from conftest import assert_bitwise, assert_in_step
from instep import losses, ops, sharding
from sharded_walk import (
    ADAMW,
    REPLICAS,
    assert_same,
    batches,
    case,
    mean_loss,
    mesh_of,
    mlp,
    numbers,
    walk,
)


def bn_params():
    shapes = {"in": (4, 4), "weight": (4,), "bias": (4,), "out": (4, 3)}
    return {name: numbers(i, *shape) for i, (name, shape) in enumerate(shapes.items())}


def bn_buffers():
    return {"mean": np.zeros(4), "var": np.ones(4), "count": np.zeros((), np.int64)}


def bn_loss(axis_name):
    def loss_fn(params, buffers, batch, rng):
        x, mean, var = ops.batch_norm(
            batch["x"] @ params["in"],
            *(buffers["mean"], buffers["var"], params["weight"], params["bias"]),
            training=True,
            axis_name=axis_name,
        )
        moved = {"mean": mean, "var": var, "count": buffers["count"] + 1}
        return instep.Loss(
            jnp.mean((jnp.tanh(x) @ params["out"] - batch["y"]) ** 2), buffers=moved
        )

    return loss_fn


def bn_batches(k, steps=4):
    return [
        {"x": numbers(i, k, 32, 4) + i, "y": numbers(9 + i, k, 32, 3)} for i in range(steps)
    ]


@case("replicas")
def sync_batch_norm_is_one_device_on_the_global_batch():
    options = {"buffers": bn_buffers(), "accumulate": 2, "clip_grad_norm": 1.0}
    one = walk(bn_loss(None), ADAMW, bn_params(), bn_batches(2), **options)
    sync = walk(bn_loss("data"), ADAMW, bn_params(), bn_batches(2), mesh_of(8), **options)
    how = sharding.data_parallel(whole_batch=True)
    whole = walk(bn_loss(None), ADAMW, bn_params(), bn_batches(2), mesh_of(8), how, **options)
    assert_same(one, sync)
    assert_same(one, whole)


@case("replicas")
def batch_norm_of_each_replica_is_that_of_torch():
    """DistributedDataParallel by hand: gradients averaged over 8, the buffers of rank 0."""
    start = bn_params()
    model = torch.nn.ModuleDict({"bn": torch.nn.BatchNorm1d(4)})
    into, out = (torch.nn.Parameter(torch.tensor(start[name])) for name in ("in", "out"))
    with torch.no_grad():
        model["bn"].weight.copy_(torch.tensor(start["weight"]))
        model["bn"].bias.copy_(torch.tensor(start["bias"]))
    trained = {"in": into, "weight": model["bn"].weight, "bias": model["bn"].bias, "out": out}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    k, buffers = 2, {n: b.clone() for n, b in model["bn"].named_buffers()}
    many = walk(
        bn_loss(None),
        ADAMW,
        start,
        bn_batches(k),
        mesh_of(8),
        buffers=bn_buffers(),
        accumulate=k,
    )
    for step, batch in enumerate(bn_batches(k)):
        optimizer.zero_grad()
        total, kept = 0.0, None
        for r in range(REPLICAS):
            for name, value in buffers.items():  # broadcast from rank 0
                model["bn"].get_buffer(name).copy_(value)
            for i in range(k):
                x, y = (torch.tensor(batch[n][i, 4 * r : 4 * r + 4]) for n in ("x", "y"))
                loss = (
                    ((torch.tanh(model["bn"](x @ into)) @ out - y) ** 2).mean() / k / REPLICAS
                )
                loss.backward()
                total += loss.item()
            if r == 0:
                kept = {n: b.clone() for n, b in model["bn"].named_buffers()}
        buffers = kept
        optimizer.step()
        view = many[step]["view"]
        assert_in_step(total, view["loss"], "loss")
        for name, p in trained.items():
            assert_in_step(p.grad, view["grads"][name], f"step {step}: gradient of {name}")
            assert_in_step(p, view["params"][name], f"step {step}: {name}")
        assert_in_step(buffers["running_mean"], view["buffers"]["mean"], f"step {step}: mean")
        assert_in_step(buffers["running_var"], view["buffers"]["var"], f"step {step}: var")
        assert int(buffers["num_batches_tracked"]) == view["buffers"]["count"]


@case("replicas")
def each_replica_draws_its_own_numbers():
    k, b, root = 2, 16, jax.random.key(3)

    def loss_fn(params, buffers, batch, rng):
        noise = jax.random.normal(rng, batch["x"].shape)
        loss = mean_loss(params, batch | {"x": batch["x"] + noise})
        return instep.Loss(loss, metrics={"first": noise[0, 0]})

    given = batches(k, steps=3, b=b)
    mesh = mesh_of(8)
    train_step = instep.make_train_step(loss_fn, ADAMW, accumulate=k, mesh=mesh)
    many = sharding.place(instep.init_state(mlp(), ADAMW, rng=root), mesh)
    one = instep.init_state(mlp(), ADAMW, rng=root)
    for step, batch in enumerate(given):
        acc, first = instep.zero_grad(one.params), np.zeros((k, REPLICAS))
        for r in range(REPLICAS):
            for i in range(k):
                rng = jax.random.fold_in(
                    jax.random.fold_in(jax.random.fold_in(root, r), step), i
                )
                part = jax.tree.map(
                    lambda x, i=i, r=r: jnp.asarray(x[i, 2 * r : 2 * r + 2]), batch
                )
                acc, out = instep.backward(loss_fn, acc, one.params, None, part, rng)
                first[i, r] = out.metrics["first"]
        one = instep.step(ADAMW, one, instep.mean(acc))
        many, metrics = train_step(many, batch)
        assert metrics.aux["first"].shape == (k, REPLICAS)
        assert_bitwise(first, np.asarray(metrics.aux["first"]))
        assert len(np.unique(first)) == k * REPLICAS
        assert_same([one.params], [jax.tree.map(np.asarray, many.params)])


@case("replicas")
def a_mesh_of_one_device_is_no_mesh():
    def loss_fn(params, buffers, batch, rng):
        noise = jax.random.normal(rng, batch["x"].shape)
        return mean_loss(params, batch | {"x": batch["x"] + noise})

    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    options = {"rng": jax.random.key(0), "accumulate": 2}
    one = walk(loss_fn, ADAMW, mlp(), batches(2), **options)
    assert_same(one, walk(loss_fn, ADAMW, mlp(), batches(2), mesh, **options))


@case("replicas")
def in_step_with_torch_by_the_harness():
    net = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    given = [
        (torch.tensor(numbers(i, 16, 16)), torch.tensor(numbers(9 + i, 16, 4)))
        for i in range(6)
    ]
    loop = instep.TorchLoop(
        net,
        lambda model, batch: torch.nn.functional.mse_loss(model(batch[0]), batch[1]),
        torch.optim.AdamW(net.parameters(), lr=1e-2),
        given,
        accumulate=2,
        clip_grad_norm=1.0,
    )

    def loss_fn(params, batch):
        h = jnp.tanh(ops.linear(batch[0], params["0.weight"], params["0.bias"]))
        return losses.mse_loss(ops.linear(h, params["2.weight"], params["2.bias"]), batch[1])

    params = {name: jnp.asarray(p.detach().numpy()) for name, p in net.named_parameters()}
    half = instep.JaxLoop(
        loss_fn, ADAMW, params, accumulate=2, clip_grad_norm=1.0, mesh=mesh_of(8)
    )
    report = instep.parity.run(instep.Pair(loop, half), steps=3, precisions=[])
    assert report.in_step, report
