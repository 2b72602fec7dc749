"""How a step on a mesh is called: memory, traces, meshes in force, requests."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

import instep
from instep import sharding
from sharded_walk import (
    ADAMW,
    LAYOUTS,
    OPTIMIZERS,
    REPLICAS,
    assert_same,
    batches,
    case,
    mean_loss,
    mesh_of,
    mlp,
    numbers,
    ragged_loss,
    refused,
    walk,
)


@case("calls")
def donated_and_compiled_once():
    traces = 0

    def loss_fn(params, batch):
        nonlocal traces
        traces += 1
        return mean_loss(params, batch)

    layouts = {
        **{name: on() for name, on in LAYOUTS.items()},
        "both": (mesh_of(2, 4), sharding.by_name([("up.weight", P(("data", "model"), None))])),
        "adafactor": (mesh_of(8), sharding.fsdp(min_size=64)),
    }
    for name, (mesh, how) in layouts.items():
        tx = OPTIMIZERS.get(name, ADAMW)
        params, given = jax.tree.map(jnp.asarray, mlp()), batches(2)
        train_step = instep.make_train_step(loss_fn, tx, accumulate=2, mesh=mesh, sharding=how)
        for placed in (True, False):  # a state that is not placed is taken too, and kept
            first = state = instep.init_state(params, tx)
            state = sharding.place(state, mesh, how) if placed else state
            second = state
            for batch in given:
                before = traces
                state, _ = train_step(state, batch)
                assert traces == before or batch is given[0], name
            assert train_step.jitted._cache_size() == 1, name
            leaves = jax.tree.leaves(first if placed else params)
            assert not any(x.is_deleted() for x in leaves)
            if placed:
                assert all(x.is_deleted() for x in jax.tree.leaves(second)), name
            np.testing.assert_array_equal(params["up"]["weight"], mlp()["up"]["weight"])
        opt_state = state.opt_state
        if name != "groups":  # a new rate is a leaf of one device: nothing is traced again
            opt_state = instep.optim.set_hyperparams(opt_state, lr=1e-3)
        before = traces
        train_step(dataclasses.replace(state, opt_state=opt_state), given[0])
        assert traces == before and train_step.jitted._cache_size() == 1, name


@case("calls")
def kept_without_donation_and_traced_inside():
    mesh, given = mesh_of(8), batches(2)
    train_step = instep.make_train_step(mean_loss, ADAMW, accumulate=2, mesh=mesh, donate=False)
    start = sharding.place(instep.init_state(mlp(), ADAMW), mesh)
    state = start
    for batch in given:
        state, _ = train_step(state, batch)
    assert not any(x.is_deleted() for x in jax.tree.leaves(start))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *given)
    scanned, _ = jax.jit(lambda s, b: jax.lax.scan(train_step, s, b))(start, stacked)
    assert_same([jax.tree.map(np.asarray, state)], [jax.tree.map(np.asarray, scanned)])


@case("calls")
def any_mesh_in_force():
    """``jax.set_mesh`` of explicit axes, and batches that lie on such a mesh."""
    mesh, given = mesh_of(8), batches(2)
    one = walk(mean_loss, ADAMW, mlp(), given, accumulate=2)
    train_step = instep.make_train_step(mean_loss, ADAMW, accumulate=2, mesh=mesh)
    with jax.set_mesh(mesh):
        state = instep.init_state(mlp(), ADAMW)
        for batch in given:
            explicit = jax.sharding.NamedSharding(mesh, P(None, "data"))
            state, _ = train_step(state, jax.device_put(batch, explicit))
    assert_same([one[-1]["state"]], [jax.tree.map(np.asarray, state)])


@case("calls")
def a_short_window_and_a_number_for_all():
    def loss_fn(params, batch):
        return instep.Loss(ragged_loss(params, batch).total / batch["n"], 1.0 / REPLICAS)

    given = batches(4)
    for batch in given:
        batch["n"] = np.full(4, 5.0)
    given[-1] = jax.tree.map(lambda x: x[:3], given[-1])
    options = {"accumulate": 4, "drop_last": False}
    many = walk(loss_fn, ADAMW, mlp(), given, mesh_of(8), **options)

    def on_one(params, batch):
        return ragged_loss(params, batch).total / batch["n"]

    assert_same(walk(on_one, ADAMW, mlp(), given, **options), many)


@case("calls")
def requests_that_do_not_fit():
    mesh, two, make = mesh_of(8), mesh_of(2, 4), instep.make_train_step
    state = instep.init_state(mlp(), ADAMW)

    def place(rules, on=two):
        sharding.place(state, on, sharding.by_name(rules))

    def call(batch, **kwargs):
        make(mean_loss, ADAMW, mesh=mesh, **kwargs)(state, batch)

    odd = batches(b=12)[0]
    refused(ValueError, ["12", "8 replicas", "12 % 8 = 4", "16", "weight 0"], call, odd)
    refused(ValueError, ["12", "8"], sharding.shard_batch, odd, mesh)
    refused(
        ValueError,
        ["axis 1", "16", "8"],
        call,
        batches(2)[0] | {"y": numbers(0, 2, 8, 8)},
        accumulate=2,
    )
    refused(ValueError, ["no leaf"], call, {"x": np.float64(1.0)})
    refused(
        ValueError,
        ["'model'", "'data': 8"],
        make,
        mean_loss,
        ADAMW,
        mesh=mesh,
        sharding=sharding.data_parallel("model"),
    )
    refused(ValueError, ["'model'", "'data': 8"], place, [("up.weight", P("model"))], mesh)
    refused(
        ValueError, ["'side.weight'", "up.weight", "drop"], place, [("side.weight", P("model"))]
    )
    refused(
        ValueError, ["up.bias", "(32,)", "2 entries"], place, [("up.bias", P(None, "model"))]
    )
    refused(
        ValueError,
        ["axis 0", "(12,)", "12 % 8"],
        sharding.place,
        instep.init_state({"w": np.ones(12)}, ADAMW),
        mesh,
        sharding.by_name([("w", P("data"))]),
    )
    refused(
        ValueError,
        ["min_size=4096", "data_parallel"],
        sharding.place,
        state,
        mesh,
        sharding.fsdp(),
    )
    refused(ValueError, ["mesh="], make, mean_loss, ADAMW, sharding=sharding.fsdp())
    refused(TypeError, ["jax.make_mesh"], make, mean_loss, ADAMW, mesh=8)
    refused(TypeError, ["sharding.fsdp"], make, mean_loss, ADAMW, mesh=mesh, sharding="fsdp")
