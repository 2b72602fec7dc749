"""Laid over a mesh in any way, a step is the step of one device."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

import instep
from conftest import assert_bitwise, assert_in_step
from hlo import collectives
from instep import sharding
from sharded_walk import (
    ADAMW,
    LAYOUTS,
    OPTIMIZERS,
    TENSOR,
    VARIANTS,
    assert_same,
    batches,
    case,
    compiled,
    equal_to_one_device,
    mean_loss,
    mesh_of,
    mlp,
    numbers,
    ragged_loss,
    walk,
)


@case("data_parallel")
def data_parallel_equals_one_device():
    equal_to_one_device(mesh_of(8), variants=VARIANTS)


@case("data_parallel")
def over_both_axes_of_a_mesh():
    equal_to_one_device(mesh_of(2, 4), variants=["ragged"])


@case("data_parallel")
def whole_batch_equals_one_device():
    equal_to_one_device(mesh_of(8), sharding.data_parallel(whole_batch=True), ["clip"])


def overflowing(params, batch):
    loss = mean_loss(params, batch)
    return loss * jnp.where(jnp.any(batch["x"] > 1e3), jnp.inf, 1.0)


@case("data_parallel")
def a_scaler_skips_on_every_replica():
    given = batches(2)
    given[1]["x"][1, 3, 0] = given[3]["x"][0, 15, 5] = 1e4  # one replica of the 8
    scaler = instep.GradScaler(init_scale=8.0, growth_interval=2)
    tx = instep.optim.adamw(instep.schedules.step_lr(1e-2, 2))
    options = {"accumulate": 2, "clip_grad_norm": 0.1, "scaler": scaler}
    one = walk(overflowing, tx, mlp(), given, **options)
    many = walk(overflowing, tx, mlp(), given, mesh_of(8), **options)
    for a, b in zip(one, many, strict=True):
        assert a["view"]["skipped"] == b["view"]["skipped"]
        assert_bitwise(a["state"].scaler, b["state"].scaler)
        assert_same([a["state"]], [b["state"]])
    assert [bool(b["view"]["skipped"]) for b in many] == [False, True, False, True, False]


def quadratic(params, batch):
    error = batch["x"] @ params["w"] - batch["y"]
    return jnp.mean(error.astype(jnp.float32) ** 2)


@case("data_parallel")
def a_policy_casts_on_every_replica():
    """Small whole numbers, whose sums are exact, and 1 + 2**-10, which bfloat16 rounds."""
    draw = np.random.default_rng(0).integers
    w = np.where(draw(0, 2, (16, 8)), 1 + 2.0**-10, 0.0)
    batch = {"x": draw(0, 2, (2, 16, 16)) * 1.0, "y": draw(0, 8, (2, 16, 8)) * 1.0}
    tx = instep.optim.sgd(2.0**-6)

    def step(policy, mesh=None, how=None):
        (seen,) = walk(quadratic, tx, {"w": w}, [batch], mesh, how, accumulate=2, policy=policy)
        return seen["view"]

    low = instep.Policy(compute="bfloat16")
    one = step(low)
    assert np.any(one["grads"]["w"] != step(None)["grads"]["w"])
    tensor = sharding.by_name([("w", P(None, "model"))])
    for mesh, how in (
        (mesh_of(8), None),
        (mesh_of(8), sharding.fsdp(min_size=64)),
        (mesh_of(2, 4), tensor),
    ):
        many = step(low, mesh, how)
        assert_bitwise(one["grads"], many["grads"])
        assert_bitwise(one["params"], many["params"])


@case("data_parallel")
def one_reduction_after_the_accumulation():
    for k in (1, 4):
        step = compiled(
            ragged_loss,
            ADAMW,
            mlp(),
            batches(k)[0],
            mesh_of(8),
            accumulate=k,
            clip_grad_norm=1.0,
        )
        outside, inside = collectives(step.as_text())
        assert (dict(outside), dict(inside)) == ({"all-reduce": 1}, {}), (outside, inside)


@case("data_parallel")
def whole_batch_reduces_in_every_microbatch():
    how = sharding.data_parallel(whole_batch=True)
    step = compiled(ragged_loss, ADAMW, mlp(), batches(4)[0], mesh_of(8), how, accumulate=4)
    outside, inside = collectives(step.as_text())
    assert inside["all-reduce"] >= 1 and not outside, (outside, inside)


@case("data_parallel")
def a_mean_with_a_mask_is_a_mean_of_means():
    """As in DistributedDataParallel; the whole batch, or sums and weights, are exact."""

    def masked_mean(params, batch):
        loss = ragged_loss(params, batch)
        return loss.total / loss.weight

    given = batches(b=64, steps=2)
    one = walk(masked_mean, ADAMW, mlp(), given)
    parts = walk(masked_mean, ADAMW, mlp(), given, mesh_of(8))
    whole = walk(
        masked_mean, ADAMW, mlp(), given, mesh_of(8), sharding.data_parallel(whole_batch=True)
    )
    sums = walk(ragged_loss, ADAMW, mlp(), given, mesh_of(8))
    assert_same(one, whole)
    assert_same(one, sums)
    params = jax.tree.map(jnp.asarray, mlp())
    pieces = [jax.tree.map(lambda x, r=r: x[8 * r : 8 * r + 8], given[0]) for r in range(8)]
    assert_in_step(np.mean([masked_mean(params, p) for p in pieces]), parts[0]["view"]["loss"])
    assert abs(parts[0]["view"]["loss"] / one[0]["view"]["loss"] - 1) > 1e-3


@case("fsdp")
def fsdp_equals_one_device():
    how = sharding.fsdp(min_size=64)
    equal_to_one_device(mesh_of(8), how, ["clip", "ragged", "trainable"])


@case("fsdp")
def fsdp_no_sync_equals_one_device():
    equal_to_one_device(mesh_of(8), sharding.fsdp(min_size=64, no_sync=True))


@case("fsdp")
def fsdp_of_the_whole_batch_equals_one_device():
    equal_to_one_device(mesh_of(8), sharding.fsdp(min_size=64, whole_batch=True), ["ragged"])


@case("fsdp")
def an_eighth_of_the_state_on_each_device():
    params = {"a": numbers(0, 256, 256), "b": numbers(1, 256, 256)}

    def loss_fn(params, batch):
        return jnp.mean((jnp.tanh(batch @ params["a"]) @ params["b"]) ** 2)

    for k in (1, 4):
        batch = numbers(2, *((16,) if k == 1 else (k, 16)), 256)
        kwargs = {"accumulate": k}
        whole = compiled(loss_fn, ADAMW, params, batch, mesh_of(8), **kwargs).memory_analysis()
        step = compiled(loss_fn, ADAMW, params, batch, mesh_of(8), sharding.fsdp(), **kwargs)
        part = step.memory_analysis()
        batch_bytes = batch.nbytes // 8
        state = 3 * 2 * 256 * 256 * 8  # parameters and both moments
        assert 1.0 <= (whole.argument_size_in_bytes - batch_bytes) / state < 1.001
        assert 1.0 <= (part.argument_size_in_bytes - batch_bytes) / (state / 8) < 1.01
        assert part.alias_size_in_bytes >= state / 8  # donated: in place
        gathered = {"all-gather": 2, "reduce-scatter": 2}
        outside, inside = collectives(step.as_text())
        assert outside["all-gather"] == 2, (outside, inside)  # once: parameters stay the same
        assert (inside if k > 1 else outside)["reduce-scatter"] == 2, (outside, inside)
        assert sum(inside.values()) == (2 if k > 1 else 0)
        if k > 1:  # gradients are held in eighths too
            how = sharding.fsdp(no_sync=True)
            whole = compiled(loss_fn, ADAMW, params, batch, mesh_of(8), how, **kwargs)
            saved = whole.memory_analysis().temp_size_in_bytes - part.temp_size_in_bytes
            assert saved > 2 * 256 * 256 * 8 / 2, saved
            outside, inside = collectives(whole.as_text())
            assert {n: outside[n] for n in gathered} == gathered and not inside


@case("fsdp")
def small_leaves_are_summed_once():
    step = compiled(
        mean_loss,
        ADAMW,
        mlp(),
        batches(4)[0],
        mesh_of(8),
        sharding.fsdp(min_size=64),
        accumulate=4,
    )
    outside, inside = collectives(step.as_text())
    assert dict(inside) == {"reduce-scatter": 2}, inside
    assert dict(outside) == {"all-gather": 2, "all-reduce": 1}, outside


@case("fsdp")
def made_on_the_mesh():
    """``init_state`` under jit is ``place`` of ``instep.init_state``, leaf by leaf."""
    how, mesh = sharding.fsdp(min_size=64), mesh_of(8)

    def make():
        return jax.tree.map(jnp.asarray, mlp())

    made = sharding.init_state(make, ADAMW, mesh, how, rng=jax.random.key(0))
    placed = sharding.place(instep.init_state(mlp(), ADAMW, rng=jax.random.key(0)), mesh, how)
    for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(placed), strict=True):
        assert a.sharding == b.sharding
    assert_bitwise(dataclasses.replace(made, rng=None), dataclasses.replace(placed, rng=None))
    assert made.params["up"]["weight"].sharding.spec == P(None, "data")
    assert made.opt_state.slots["exp_avg"]["up"]["weight"].sharding.spec == P(None, "data")
    assert made.opt_state.slots["exp_avg"]["up"]["weight"].addressable_shards[0].data.shape == (
        16,
        4,
    )


@case("tensor")
def tensor_parallel_equals_one_device():
    equal_to_one_device(mesh_of(2, 4), sharding.by_name(TENSOR))


@case("tensor")
def tensor_parallel_of_the_whole_batch_equals_one_device():
    equal_to_one_device(mesh_of(2, 4), sharding.by_name(TENSOR, whole_batch=True), ["clip"])


@case("tensor")
def both_axes_split_parameters():
    rules = [
        (r"up\.weight", P("data", "model")),
        (r"down\.weight", P(("model", "data"))),
        *TENSOR[1:],
    ]
    equal_to_one_device(mesh_of(2, 4), sharding.by_name(rules))
    equal_to_one_device(mesh_of(2, 4), sharding.by_name(rules, no_sync=True), ["trainable"])


@case("tensor")
def gradients_are_summed_over_data_once():
    mesh, how = mesh_of(2, 4), sharding.by_name(TENSOR)
    step = compiled(mean_loss, ADAMW, mlp(), batches(4)[0], mesh, how, accumulate=4)
    over_data = [
        line for line in step.as_text().splitlines() if "replica_groups={{0,4},{1,5}" in line
    ]
    outside, inside = collectives(step.as_text())
    assert len(over_data) == 1 and "psum" in over_data[0], over_data
    assert outside == {"all-reduce": 1}, (outside, inside)  # that one
    assert inside["all-reduce"] >= 1  # of activations, over "model"
    part = step.memory_analysis().argument_size_in_bytes
    whole = compiled(
        mean_loss, ADAMW, mlp(), batches(4)[0], mesh, accumulate=4
    ).memory_analysis()
    assert part < whole.argument_size_in_bytes


@case("optimizers")
def every_optimizer_is_the_same_rule():
    options = {"accumulate": 2, "clip_grad_norm": 1.0}
    for name, tx in OPTIMIZERS.items():
        one = walk(mean_loss, tx, mlp(), batches(2), **options)
        for layout, on in LAYOUTS.items():
            try:
                assert_same(one, walk(mean_loss, tx, mlp(), batches(2), *on(), **options))
            except AssertionError as error:
                raise AssertionError(f"{name}, {layout}: {error}") from error


@case("optimizers")
def muon_orthogonalises_the_whole_matrix():
    """Its products are rounded to bfloat16, so its updates are compared to that precision."""
    tx = instep.optim.muon(1.0, weight_decay=0.0)
    params = {"up": {"weight": numbers(0, 16, 32)}, "down": {"weight": numbers(2, 32, 8)}}

    def loss_fn(params, batch):
        h = jnp.tanh(batch["x"] @ params["up"]["weight"])
        return jnp.mean((h @ params["down"]["weight"] - batch["y"]) ** 2)

    def updates(mesh=None, how=None):
        after = walk(loss_fn, tx, params, batches(2, steps=1), mesh, how, accumulate=2)[0]
        return jax.tree.map(np.subtract, after["state"].params, params)

    def off(a, b):
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return max(np.abs(x - y).max() / np.abs(x).max() for x, y in pairs)

    one = updates()
    rules = [TENSOR[0], TENSOR[2]]
    for layout in (
        (mesh_of(8), None),
        (mesh_of(8), sharding.fsdp(min_size=64)),
        (mesh_of(2, 4), sharding.by_name(rules)),
    ):
        assert off(one, updates(*layout)) <= float(jnp.finfo(jnp.bfloat16).eps)
    halves = [{"w": params["up"]["weight"][:, i::2]} for i in range(2)]  # the rule on parts
    made = [tx.update(h, tx.init(h), h)[0]["w"] for h in jax.tree.map(jnp.asarray, halves)]
    whole = {"w": jnp.asarray(params["up"]["weight"])}
    both = tx.update(whole, tx.init(whole), whole)[0]["w"]
    assert off(np.asarray(both[:, ::2]), np.asarray(made[0])) > 0.1


@case("optimizers")
def lbfgs_evaluates_the_loss_on_the_mesh():
    tx = instep.optim.lbfgs(lr=0.1, max_iter=3)
    one = walk(mean_loss, tx, mlp(), batches(steps=1))
    many = walk(mean_loss, tx, mlp(), batches(steps=1), mesh_of(8))
    assert_same([one[0]["state"].params], [many[0]["state"].params])
