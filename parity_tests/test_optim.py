"""instep.optim against torch.optim: every parameter and every state tensor at every step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import instep
from conftest import array, assert_bitwise, assert_in_step


SGD = [
    {},
    {"lr": 0.0},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1, "maximize": True},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"lr": 0.1, "weight_decay": 0.5},
    {"lr": 0.1, "weight_decay": 0.5, "maximize": True},
]
ADAM = [
    {},
    {"lr": 0.01, "betas": (0.5, 0.9)},
    {"lr": 0.01, "betas": (0.0, 0.0)},
    {"lr": 0.01, "betas": (0.9, 0.999999)},
    {"lr": 0.01, "eps": 0.1},
    {"lr": 0.01, "weight_decay": 0.1},
    {"lr": 0.01, "amsgrad": True},
    {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1, "maximize": True},
]
CASES = [
    *(("SGD", "sgd", case) for case in SGD),
    *(("Adam", "adam", case) for case in ADAM),
    *(("AdamW", "adamw", case) for case in ADAM),
]
IDS = [f"{name}-{i}" for i, (name, _, _) in enumerate(CASES)]
SHAPES = {"scalar": (), "vector": (7,), "matrix": (4, 5), "kernel": (2, 3, 2, 2)}
STEPS = 50


def start():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def gradients(step):
    """Gradients that shrink, as those of a loss do, so that amsgrad's maximum matters."""
    rng = np.random.default_rng(100 + step)
    return {n: rng.normal(size=s) / (1 + 0.1 * step) for n, s in SHAPES.items()}


@pytest.mark.parametrize(("torch_name", "name", "options"), CASES, ids=IDS)
def test_float64_50_steps(torch_name, name, options, x64):
    p = {n: torch.tensor(v, requires_grad=True) for n, v in start().items()}
    optimizer = getattr(torch.optim, torch_name)(p.values(), **options)
    tx = getattr(instep.optim, name)(**options)
    params = jax.tree.map(jnp.asarray, start())
    opt_state = tx.init(params)
    update = jax.jit(tx.update)
    for step in range(STEPS):
        for n, g in gradients(step).items():
            p[n].grad = torch.tensor(g)
        optimizer.step()
        updates, opt_state = update(gradients(step), opt_state, params)
        params = optax.apply_updates(params, updates)
        for n in p:
            assert_in_step(p[n], params[n], f"step {step}: {n}")
            slots = optimizer.state[p[n]]
            assert set(slots) == set(opt_state.slots) - {"started"}
            for slot, value in slots.items():
                ours = opt_state.slots[slot][n].astype(float)
                assert_in_step(value.double(), ours, f"step {step}: {slot} of {n}")
    moved = not np.array_equal(params["matrix"], start()["matrix"])
    assert moved == (options.get("lr") != 0.0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("torch_name", "name", "options"), CASES, ids=IDS)
def test_low_precision_rounds_no_worse_than_torch(torch_name, name, options, precision):
    """Three steps, against PyTorch's in float64 from the same bits."""
    from instep.parity._tolerance import ROUNDING_FACTOR, ROUNDING_ULPS

    low = getattr(torch, precision)

    def torch_step(dtype):
        p = {
            n: torch.tensor(v, dtype=getattr(torch, precision)).to(dtype)
            for n, v in start().items()
        }
        optimizer = getattr(torch.optim, torch_name)(p.values(), **options)
        for step in range(3):
            for n, g in gradients(step).items():
                p[n].grad = torch.tensor(g, dtype=low).to(dtype)
            optimizer.step()
        return {n: v.double().numpy() for n, v in p.items()}

    tx = getattr(instep.optim, name)(**options)
    params = jax.tree.map(lambda v: jnp.asarray(v, precision), start())
    opt_state, update = tx.init(params), jax.jit(tx.update)
    for step in range(3):
        grads = jax.tree.map(lambda g: jnp.asarray(g, precision), gradients(step))
        updates, opt_state = update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)

    oracle, torch_low = torch_step(torch.float64), torch_step(low)
    for n, exact in oracle.items():
        ulp = float(jnp.finfo(precision).eps) * 2.0 ** np.floor(np.log2(np.abs(exact).max()))
        both = np.asarray(params[n], float), torch_low[n]
        error, torch_error = (np.sqrt(np.mean((x - exact) ** 2)) for x in both)
        bound = ROUNDING_FACTOR * torch_error + ROUNDING_ULPS * ulp
        assert error <= bound, f"{n}: {error:.3g} > {bound:.3g} (torch {torch_error:.3g})"


def test_absent_gradient_changes_nothing(x64):
    """p.grad is None: no decay, no state, no step, while the others go on."""
    p = {n: torch.tensor(v, requires_grad=True) for n, v in start().items()}
    optimizer = torch.optim.AdamW(p.values(), lr=0.1)
    tx = instep.optim.adamw(lr=0.1)
    params = jax.tree.map(jnp.asarray, start())
    opt_state = tx.init(params)
    for step in range(4):
        grads = gradients(step) | ({"matrix": None} if step % 2 else {})
        for n, g in grads.items():
            p[n].grad = None if g is None else torch.tensor(g)
        optimizer.step()
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        for n in p:
            assert_in_step(p[n], params[n], n)
    steps = opt_state.slots["step"]
    assert (int(steps["matrix"]), int(steps["vector"])) == (2, 4)


def test_learning_rate_is_data(x64):
    """Read and written as param_groups[0]["lr"] is; neither retraces."""
    p = {n: torch.tensor(v, requires_grad=True) for n, v in start().items()}
    optimizer = torch.optim.SGD(p.values(), lr=0.1, momentum=0.9)
    tx = instep.optim.sgd(0.1, momentum=0.9)
    params = jax.tree.map(jnp.asarray, start())
    opt_state = tx.init(params)
    traces = 0

    @jax.jit
    def update(grads, opt_state, params):
        nonlocal traces
        traces += 1
        return tx.update(grads, opt_state, params)

    for step, lr in enumerate((0.1, 0.03, 0.7)):
        optimizer.param_groups[0]["lr"] = lr
        opt_state = instep.optim.set_hyperparams(opt_state, lr=lr)
        assert float(instep.optim.hyperparams(opt_state)["lr"]) == lr
        for n, g in gradients(step).items():
            p[n].grad = torch.tensor(g)
        optimizer.step()
        updates, opt_state = update(gradients(step), opt_state, params)
        params = optax.apply_updates(params, updates)
        for n in p:
            assert_in_step(p[n], params[n], n)
    assert traces == 1


def test_made_before_x64_is_switched_on_keeps_double_precision():
    lr = instep.schedules.cosine_annealing_lr(0.1, 7)
    made_in_float32 = [instep.optim.adamw(1e-3 / 3), instep.optim.sgd(lr, momentum=0.9)]
    with jax.enable_x64(True):
        made_in_float64 = [instep.optim.adamw(1e-3 / 3), instep.optim.sgd(lr, momentum=0.9)]
        for a, b in zip(made_in_float32, made_in_float64, strict=True):
            params = jax.tree.map(jnp.asarray, start())
            grads = gradients(0)
            assert_bitwise(
                a.update(grads, a.init(params), params), b.update(grads, b.init(params), params)
            )


def test_composes_with_optax():
    """Powers of two, so that equality is exact: clip to 0.5, decay of the weight alone."""
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    grads = jax.tree.map(jnp.ones_like, params)
    decayed = instep.optim.sgd(0.125, weight_decay=0.5)
    tx = optax.chain(
        optax.clip(0.5), optax.masked(decayed, {"w": True, "b": False}), optax.scale(2.0)
    )
    updates, opt_state = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["w"], -2.0 * 0.125 * (0.5 + 0.5))
    np.testing.assert_array_equal(updates["b"], 1.0)
    assert float(instep.optim.hyperparams(opt_state)["lr"]) == 0.125


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: instep.optim.sgd(lr=-0.1), r"Invalid lr: -0.1. It must satisfy lr >= 0.0"),
        (lambda: instep.optim.sgd(lr=float("nan")), r"Invalid lr: nan"),
        (lambda: instep.optim.sgd(lr=np.ones(2)), r"lr must be a scalar; got shape \(2,\)"),
        (lambda: instep.optim.sgd(momentum=-1), r"Invalid momentum: -1.0"),
        (lambda: instep.optim.sgd(weight_decay=-1), r"Invalid weight_decay: -1.0"),
        (lambda: instep.optim.sgd(nesterov=True), r"momentum > 0 and dampening = 0; got mom"),
        (lambda: instep.optim.adam(betas=(1.0, 0.9)), r"Invalid betas\[0\]: 1.0.*0.0 <= "),
        (lambda: instep.optim.adam(betas=(0.9, -0.1)), r"Invalid betas\[1\]: -0.1"),
        (lambda: instep.optim.adamw(eps=-1e-8), r"Invalid eps: -1e-08"),
    ],
)
def test_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["momentum", "dampening", "weight_decay"])
def test_only_the_learning_rate_may_be_a_schedule(name):
    with pytest.raises(TypeError, match=f"{name} must be a number.*Only lr may be a schedule"):
        instep.optim.sgd(**{name: lambda count: 0.1})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tx, s: tx.update({"w": jnp.ones(2)}, s), "needs the old ones"),
        (lambda tx, s: instep.optim.set_hyperparams(s, beta=1), r"\['beta'\].*\['lr'\]"),
        (
            lambda tx, s: instep.optim.hyperparams({}),
            "transformation, found 0",
        ),
        (lambda tx, s: instep.optim.hyperparams((s, s)), "transformation, found 2"),
    ],
)
def test_misuse(call, message):
    tx = instep.optim.adam()
    with pytest.raises(ValueError, match=message):
        call(tx, tx.init({"w": jnp.ones(2)}))


def test_torch_only_options_are_refused_by_name():
    for name in ("foreach", "fused", "capturable", "differentiable"):
        with pytest.raises(TypeError, match=name):
            instep.optim.adam(**{name: True})


def test_the_comparison_has_teeth(x64):
    """One part in 1e11 is seen."""
    with pytest.raises(AssertionError, match="ratio"):
        assert_in_step(np.ones(3), np.ones(3) * (1 + 1e-11))
    assert array(torch.ones(1)).dtype == np.float64
