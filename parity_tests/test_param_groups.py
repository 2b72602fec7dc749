"""param_groups against the parameter groups of torch.optim, and absent gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import instep
from conftest import assert_in_step
from instep.optim import (
    adam,
    adamw,
    add_param_group,
    hyperparams,
    param_groups,
    set_hyperparams,
)
from optimizers import OURS, SHAPES, give_gradients, start, touched


def gradients(step):
    rng = np.random.default_rng(100 + step)
    return {n: rng.normal(size=s) for n, s in SHAPES.items()}


def torch_parameters():
    return {n: torch.tensor(v, requires_grad=True) for n, v in start("").items()}


def compare(p, params, what=""):
    for n in p:
        assert_in_step(p[n], params[n], f"{what}{n}")


def test_groups_have_options_and_rates_of_their_own(x64):
    p = torch_parameters()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p["kernel"], p["matrix"]], "weight_decay": 0.1, "betas": (0.5, 0.9)},
            {"params": [p["vector"], p["scalar"]], "lr": 0.1},
        ],
        lr=0.01,
    )
    tx = param_groups(
        [
            (lambda name, leaf: leaf.ndim > 1, adamw(0.01, (0.5, 0.9), weight_decay=0.1)),
            ("^(vector|scalar)$", adamw(0.1)),
        ]
    )
    params = jax.tree.map(jnp.asarray, start(""))
    opt_state, update = tx.init(params), jax.jit(tx.update)
    for step in range(20):
        if step == 10:
            optimizer.param_groups[1]["lr"] = 0.003
            opt_state = set_hyperparams(opt_state, group=1, lr=0.003)
            assert float(hyperparams(opt_state, group=0)["lr"]) == 0.01
            assert float(hyperparams(opt_state, group=1)["lr"]) == 0.003
        for n, g in gradients(step).items():
            p[n].grad = torch.tensor(g)
        optimizer.step()
        updates, opt_state = update(gradients(step), opt_state, params)
        params = optax.apply_updates(params, updates)
        compare(p, params, f"step {step}: ")
    assert update._cache_size() == 1


def test_a_group_added_in_mid_training_starts_at_step_0(x64):
    p = torch_parameters()
    optimizer = torch.optim.Adam([p["kernel"], p["matrix"]], lr=0.01)
    wide, rest = "kernel|matrix", "vector|scalar"
    tx = param_groups([(wide, adam(0.01)), (rest, None)])
    params = jax.tree.map(jnp.asarray, start(""))
    opt_state = tx.init(params)
    for step in range(5):
        if step == 3:
            compare(p, params)
            assert_in_step(start("")["vector"], params["vector"])
            optimizer.add_param_group({"params": [p["vector"], p["scalar"]], "lr": 0.1})
            tx = param_groups([(wide, adam(0.01)), (rest, adam(0.1))])
            opt_state = add_param_group(tx, opt_state, params)
        for n, g in gradients(step).items():
            p[n].grad = torch.tensor(g)
        optimizer.step()
        updates, opt_state = jax.jit(tx.update)(gradients(step), opt_state, params)
        params = optax.apply_updates(params, updates)
        compare(p, params, f"step {step}: ")
    old, new = opt_state.groups
    assert int(old.slots["step"]["kernel"]) == 5 == int(optimizer.state[p["kernel"]]["step"])
    assert int(new.slots["step"]["vector"]) == 2 == int(optimizer.state[p["vector"]]["step"])


@pytest.mark.parametrize("name", [n for n in OURS if n not in ("Muon", "SparseAdam")])
def test_absent_gradient_changes_nothing(name, x64):
    """p.grad is None: no decay, no state, no step, while the others go on."""
    options = {"SGD": {"momentum": 0.9, "dampening": 0.5}}.get(name, {})
    decay = {} if name == "Rprop" else {"weight_decay": 0.1}
    p = torch_parameters()
    optimizer = getattr(torch.optim, name)(p.values(), **options, **decay)
    tx = OURS[name](**options, **decay)
    params = jax.tree.map(jnp.asarray, start(""))
    opt_state = tx.init(params)
    for step in range(4):
        grads = gradients(step) | ({} if step % 2 else {"matrix": None})
        for n, g in grads.items():
            p[n].grad = None if g is None else torch.tensor(g)
        optimizer.step()
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        compare(p, params, f"step {step}: ")
    if "step" in opt_state.slots:
        steps = opt_state.slots["step"]
        assert (int(steps["matrix"]), int(steps["vector"])) == (2, 4)


def test_row_masks_reach_the_group_that_asks_for_them(x64):
    p = torch_parameters()
    del p["scalar"]
    sparse = torch.optim.SparseAdam([p["matrix"]])
    dense = torch.optim.SGD([p["kernel"], p["vector"]], 0.1)
    tx = param_groups(
        [("matrix", instep.optim.sparse_adam()), ("kernel|vector", instep.optim.sgd(0.1))]
    )
    params = {n: jnp.asarray(v.detach().numpy()) for n, v in p.items()}
    opt_state = tx.init(params)
    for step in range(3):
        grads = {n: gradients(step)[n] for n in p}
        rows = {"matrix": touched("SparseAdam", step)["matrix"], "kernel": None, "vector": None}
        for n, g in grads.items():
            p[n].grad = torch.tensor(g)
        give_gradients(p, {"matrix": p["matrix"].grad}, rows)
        sparse.step()
        dense.step()
        updates, opt_state = tx.update(grads, opt_state, params, touched=rows)
        params = optax.apply_updates(params, updates)
        compare(p, params, f"step {step}: ")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [("w", adam()), ("^(w|b)$", adam())],
            r"exactly one group; found w in groups \[0, 1\]",
        ),
        ([("w", adam())], r"exactly one group; found b in none.*\(selector, None\)"),
        ([("nothing", adam())], r"'nothing' selects none of the leaves \['b', 'w'\]"),
        ([({"w": True}, adam())], r"the mask does not fit: missing \['b'\]"),
    ],
)
def test_overlap_and_no_match_are_errors(groups, message):
    with pytest.raises(ValueError, match=message):
        param_groups(groups).init({"w": jnp.ones(2), "b": jnp.ones(2)})


def test_groups_count_whatever_they_hold():
    """group=i is param_groups[i], also behind a group of optax's or one that is not trained."""
    params = {n: jnp.ones(2) for n in "abcd"}
    sgd = instep.optim.sgd
    tx = param_groups([("a", None), ("b", sgd(0.5)), ("c", optax.sgd(1.0)), ("d", sgd(2.0))])
    opt_state = set_hyperparams(tx.init(params), group=3, lr=4.0)
    assert float(hyperparams(opt_state, group=1)["lr"]) == 0.5
    updates, _ = tx.update(params, opt_state, params)
    assert {n: float(u[0]) for n, u in updates.items()} == {"a": 0, "b": -0.5, "c": -1, "d": -4}


@pytest.mark.parametrize("make", [instep.optim.lbfgs, optax.lbfgs])
def test_a_group_that_evaluates_the_loss_sees_all_parameters(make):
    def loss_fn(params, batch):
        return ((params["w"] * 3.0 + params["b"] - batch) ** 2).sum()

    tx = param_groups([("w", make()), ("b", None)])
    state = instep.init_state({"w": jnp.ones(2), "b": jnp.full(2, 2.0)}, tx)
    step = instep.make_train_step(loss_fn, tx)
    for _ in range(5):
        state, metrics = step(state, jnp.full(2, 8.0))
    assert float(metrics.loss) < 1e-6
    np.testing.assert_array_equal(state.params["b"], 2.0)


def test_a_scaler_and_a_closure_do_not_go_together():
    tx = instep.optim.lbfgs()
    state = instep.init_state({"w": jnp.ones(2)}, tx, scaler=instep.GradScaler())
    step = instep.make_train_step(lambda p, x: (p["w"] * x).sum(), tx)
    with pytest.raises(ValueError, match="evaluates the loss again, which a GradScaler"):
        step(state, jnp.ones(2))


def test_misuse():
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    one = param_groups([("w", adam()), ("b", None)])
    two = param_groups([("w", adam()), ("b", adam())])
    with pytest.raises(ValueError, match="at least one"):
        param_groups([])
    with pytest.raises(ValueError, match="2 groups and opt_state trains 2 already"):
        add_param_group(two, two.init(params), params)
    with pytest.raises(ValueError, match="group 0 has other parameters"):
        add_param_group(param_groups([("b", adam()), ("w", adam())]), one.init(params), params)
    with pytest.raises(TypeError, match="OptimizerState; groups can be added"):
        add_param_group(two, adam().init(params), params)
    with pytest.raises(ValueError, match=r"found 2.*group=0, 1"):
        hyperparams(two.init(params))
    assert (
        float(hyperparams(param_groups([("w", None), ("b", adam(0.5))]).init(params), 1)["lr"])
        == 0.5
    )
    with pytest.raises(ValueError, match=r"scalars; got shapes .*\(2,\)"):
        set_hyperparams(two.init(params), group=1, lr=np.ones(2))
    with pytest.raises(ValueError, match=r"betas\[0\] is beta1"):
        set_hyperparams(two.init(params), group=1, betas=(0.5, 0.9))
    with pytest.raises(ValueError, match=r"no group=2 in this state; it has 2"):
        set_hyperparams(two.init(params), group=2, lr=0.1)
    with pytest.raises(ValueError, match="needs params"):
        two.update(params, two.init(params))
