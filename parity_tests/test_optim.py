"""instep.optim as JAX code: data, absent gradients, composition, errors.

The values are those of test_optim_db.py.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import torch

import instep
from conftest import array, assert_bitwise, assert_in_step
from instep.bridge import tensor_to_array
from instep.parity._judge import ulp
from optimizers import OURS, optim_db


SHAPES = {"scalar": (), "vector": (7,), "matrix": (4, 5), "kernel": (2, 3, 2, 2)}


def start():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def gradients(step):
    """Gradients that shrink, as those of a loss do, so that amsgrad's maximum matters."""
    rng = np.random.default_rng(100 + step)
    return {n: rng.normal(size=s) / (1 + 0.1 * step) for n, s in SHAPES.items()}


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("torch_name", "ours", "key"),
    [
        ("SGD", lambda m: instep.optim.sgd(0.1, momentum=m), "momentum"),
        ("SGD", lambda m: instep.optim.sgd(0.1, momentum=m, nesterov=True), "nesterov"),
        ("RMSprop", lambda m: instep.optim.rmsprop(0.1, momentum=m), "momentum"),
        ("Adam", lambda m: instep.optim.adam(0.1, (m, 0.99)), "betas"),
        ("AdamW", lambda m: instep.optim.adamw(0.1, (m, 0.99)), "betas"),
        ("Adamax", lambda m: instep.optim.adamax(0.1, (m, 0.99)), "betas"),
        ("NAdam", lambda m: instep.optim.nadam(0.1, (m, 0.99)), "betas"),
        ("RAdam", lambda m: instep.optim.radam(0.1, (m, 0.99)), "betas"),
    ],
)
def test_momentum_may_be_a_schedule(torch_name, ours, key, dtype, request):
    """As CyclicLR and OneCycleLR set it in the groups of PyTorch's optimizer."""
    if dtype == "float64":
        request.getfixturevalue("x64")
    p = {n: torch.tensor(v, dtype=getattr(torch, dtype)) for n, v in start().items()}
    options = {"betas": (0.5, 0.99)} if key == "betas" else {"momentum": 0.5}
    options |= {"nesterov": True} if key == "nesterov" else {}
    optimizer = getattr(torch.optim, torch_name)(p.values(), lr=0.1, **options)
    tx = ours(lambda count: 0.5 + 0.1 * jnp.asarray(count, float))
    params = {n: jnp.asarray(v, dtype) for n, v in start().items()}
    opt_state = tx.init(params)
    for step in range(4):
        now = 0.5 + 0.1 * step
        group = optimizer.param_groups[0]
        group.update({"betas": (now, 0.99)} if key == "betas" else {"momentum": now})
        for n, g in gradients(step).items():
            p[n].grad = torch.tensor(g, dtype=p[n].dtype)
        optimizer.step()
        grads = {n: jnp.asarray(g, dtype) for n, g in gradients(step).items()}
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        for n in p:
            if dtype == "float64":
                assert_in_step(p[n], params[n], n)
            else:
                error = abs(np.asarray(params[n]) - p[n].numpy()).max()
                assert error <= 4 * ulp(abs(p[n]).max().item(), p[n].numpy()), n


def test_a_schedule_that_cycles_the_momentum_sets_it(x64):
    """OneCycleLR's default, with every optimizer that has momentum or betas."""
    lr = instep.schedules.one_cycle_lr(0.1, total_steps=10)
    for tx, name in [
        (instep.optim.sgd(lr, momentum=0.5), "momentum"),
        (instep.optim.sgd(lr), "momentum"),
        (instep.optim.adamw(lr), "beta1"),
    ]:
        params = jax.tree.map(jnp.asarray, start())
        opt_state = tx.init(params)
        assert float(instep.optim.hyperparams(opt_state)[name]) == pytest.approx(0.95)
        _, opt_state = tx.update(gradients(0), opt_state, params)
        assert float(instep.optim.hyperparams(opt_state)[name]) < 0.95
    with pytest.raises(ValueError, match="cycles the momentum too.*cycle_momentum=False"):
        instep.optim.adagrad(lr)


EVERY = [(name, make) for name, make in OURS.items() if name != "Muon"]


@pytest.mark.parametrize(("name", "make"), EVERY, ids=lambda x: x if isinstance(x, str) else "")
def test_eight_rates_in_one_call(name, make, x64):
    """vmap over lr: as an argument of the constructor, and as data in the state."""
    rates = jnp.linspace(1e-3, 0.1, 8)
    params, grads = jax.tree.map(jnp.asarray, start()), gradients(0)

    def one(lr):
        tx = make(lr=lr)
        return tx.update(grads, tx.init(params), params)[0]

    def other(lr):
        tx = make(lr=0.5)
        opt_state = instep.optim.set_hyperparams(tx.init(params), lr=lr)
        return tx.update(grads, opt_state, params)[0]

    together = jax.jit(jax.vmap(one))(rates)
    as_data = jax.jit(jax.vmap(other))(rates)
    for i, lr in enumerate(rates):
        tx = make(lr=float(lr))
        alone, _ = tx.update(grads, tx.init(params), params)
        for n in alone:
            p = params[n]
            assert_in_step(p + alone[n], p + together[n][i], n)
            assert_in_step(p + alone[n], p + as_data[n][i], n)


@pytest.mark.parametrize(("name", "make"), EVERY, ids=lambda x: x if isinstance(x, str) else "")
def test_scan_and_checkpoint(name, make, x64, tmp_path):
    """Ten steps by scan, and five, a file and five more."""
    tx = make(lr=instep.schedules.cosine_annealing_lr(0.01, 20))
    params = jax.tree.map(jnp.asarray, start())
    batches = jax.tree.map(lambda *g: jnp.stack(g), *[gradients(step) for step in range(10)])

    @jax.jit
    def step(carry, grads):
        params, opt_state = carry
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    by_scan, _ = jax.lax.scan(step, (params, tx.init(params)), batches)
    carry = params, tx.init(params)
    with ocp.StandardCheckpointer() as checkpointer:
        for i in range(10):
            carry, _ = step(carry, jax.tree.map(lambda g: g[i], batches))  # noqa: B023
            if i == 4:
                checkpointer.save(tmp_path / "state", carry)
                checkpointer.wait_until_finished()
                carry = checkpointer.restore(tmp_path / "state", carry)
    for a, b in zip(jax.tree.leaves(by_scan), jax.tree.leaves(carry), strict=True):
        assert_in_step(a, b)


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


@pytest.mark.parametrize("name", OURS)
def test_each_composes_with_chain_masked_and_partition(name, x64):
    """One part by this optimizer, the other by SGD: as each of them alone."""
    params = {"w": jnp.asarray(start()["matrix"]), "b": jnp.asarray(start()["vector"])}
    grads = jax.tree.map(lambda p: jnp.cos(p), params)
    make, sgd = OURS[name], instep.optim.sgd(0.5)
    own = {"w": params["w"]}
    alone, _ = make().update({"w": grads["w"]}, make().init(own), own)
    for tx in (
        optax.partition({"this": make(), "sgd": sgd}, {"w": "this", "b": "sgd"}),
        optax.chain(
            optax.masked(make(), {"w": True, "b": False}),
            optax.masked(optax.scale(-0.5), {"w": False, "b": True}),
        ),
        instep.optim.param_groups([("^w$", make()), ("^b$", sgd)]),
    ):
        updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
        assert_in_step(alone["w"], updates["w"])
        assert_in_step(-0.5 * grads["b"], updates["b"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: instep.optim.sgd(lr=-0.1), r"Invalid lr: -0.1. It must lie in \[0, inf\)"),
        (lambda: instep.optim.sgd(lr=float("nan")), r"Invalid lr: nan"),
        (lambda: instep.optim.sgd(lr=np.ones(2)), r"lr must be a scalar; got shape \(2,\)"),
        (lambda: instep.optim.sgd(momentum=-1), r"Invalid momentum: -1.0"),
        (lambda: instep.optim.sgd(weight_decay=-1), r"Invalid weight_decay: -1.0"),
        (lambda: instep.optim.sgd(nesterov=True), r"momentum > 0 and dampening = 0; got mom"),
        (lambda: instep.optim.adam(betas=(1.0, 0.9)), r"Invalid betas\[0\]: 1.0.*\[0, 1\)"),
        (lambda: instep.optim.adam(betas=(0.9, -0.1)), r"Invalid betas\[1\]: -0.1"),
        (lambda: instep.optim.adamw(eps=-1e-8), r"Invalid eps: -1e-08"),
        (lambda: instep.optim.adamw(torch.ones(2)), r"lr must be a scalar; got shape \(2,\)"),
    ],
)
def test_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["dampening", "weight_decay"])
def test_no_other_value_may_be_a_schedule(name):
    with pytest.raises(TypeError, match=f"{name} must be a number.*Only lr, momentum and"):
        instep.optim.sgd(**{name: lambda count: 0.1})


def test_a_tensor_of_one_element_is_its_number():
    tx = instep.optim.adamw(
        torch.tensor(0.5), betas=(torch.tensor([0.5]), torch.tensor([0.25]))
    )
    opt_state = tx.init({"w": jnp.ones(2)})
    assert float(instep.optim.hyperparams(opt_state)["lr"]) == 0.5


def test_parameters_are_not_an_argument():
    with pytest.raises(TypeError, match=r"lr must be a number; got a dict.*tx.init\(params\)"):
        instep.optim.sgd({"w": jnp.ones(2)})
    with pytest.raises(TypeError, match=r"a group is a pair"):
        instep.optim.param_groups([{"params": "w", "lr": 0.1}])
    with pytest.raises(TypeError, match="got 'cuda'.*the device, has no meaning"):
        instep.GradScaler("cuda")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda tx, s: tx.update({"w": jnp.ones((1, 1))}, s, {"w": jnp.ones(2)}),
            r"a gradient of shape \(1, 1\) for a parameter of \(2,\)",
        ),
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


@pytest.mark.parametrize("name", OURS)
def test_bfloat16_is_rounded_once(name):
    """Computed in float32, as if the parameter and its state had been given in it."""
    low = {"w": jnp.asarray(start()["matrix"], jnp.bfloat16)}
    wide = {"w": low["w"].astype(jnp.float32)}
    tx = OURS[name](**({"eps": (1e-3, 1e-3)} if name == "Adafactor" else {}))
    state = tx.init(low)
    for step in range(3):
        grads = {"w": jnp.asarray(gradients(step)["matrix"], jnp.bfloat16)}
        raised = jax.tree.map(
            lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, (grads, state)
        )
        exact, _ = tx.update(*raised, wide)
        updates, state = tx.update(grads, state, low)
        wanted = (wide["w"] + exact["w"]).astype(jnp.bfloat16) - low["w"]
        np.testing.assert_array_equal(np.asarray(updates["w"]), np.asarray(wanted))


@pytest.mark.parametrize(
    ("name", "slot"), [("ASGD", "eta"), ("ASGD", "mu"), ("NAdam", "mu_product")]
)
def test_scalars_of_the_state_are_not_those_of_a_bfloat16_parameter(name, slot):
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    tx = OURS[name]()
    opt_state = tx.init(params)
    assert opt_state.slots[slot]["w"].dtype == jnp.float32
    _, opt_state = tx.update(params, opt_state, params)
    assert opt_state.slots[slot]["w"].dtype == jnp.float32


def test_a_state_of_something_else_is_an_error():
    params = {"w": jnp.ones(2)}
    with pytest.raises(TypeError, match="opt_state is a tuple, not what tx.init made"):
        instep.optim.adam().update(params, optax.adam(0.1).init(params), params)


@pytest.mark.parametrize("name", OURS)
def test_torch_only_options_are_refused_by_name(name):
    for option in ("foreach", "fused", "capturable", "differentiable"):
        with pytest.raises(TypeError, match=option):
            OURS[name](**{option: True})


@pytest.mark.parametrize("name", OURS)
def test_arguments_are_torch_s(name):
    """Names, defaults and, as far as they may be positional, the order."""
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    ours = inspect.signature(OURS[name]).parameters
    meaningless = {"params", "foreach", "fused", "capturable", "differentiable"}
    wanted = [n for n in theirs if n not in meaningless]
    extra = {"decoupled_weight_decay"} if name == "Adam" else set()
    assert set(ours) - set(wanted) <= extra
    assert [n for n in ours if n in wanted] == wanted
    for n in wanted:
        assert ours[n].default == theirs[n].default, n


# Errors of PyTorch about how parameters are handed over, which has no counterpart here.
NO_COUNTERPART = {
    "invalid param type": "any pytree of arrays is a tree of parameters",
    "a param group cannot have duplicate parameters": "a leaf has one place in a tree",
    "duplicate parameters should not occur across param groups either": "test_param_groups",
    "all optimizer params should be with/without names": "leaves have names",
    "all optimizer param groups should be with/without names.": "leaves have names",
    "dense params required": "JAX has no sparse parameters",
    "dense params required in param_groups": "JAX has no sparse parameters",
}


def error_inputs():
    for info in optim_db:
        for sample in info.optim_error_inputs_func("cpu", torch.float32):
            options = sample.optimizer_error_input
            if options.desc not in NO_COUNTERPART:
                yield pytest.param(
                    info.optim_cls.__name__, options, id=f"{info.name}-{options.desc}"
                )


@pytest.mark.parametrize(("name", "sample"), list(error_inputs()))
def test_error_inputs_of_torch_are_errors_here(name, sample):
    """At construction; those about a parameter when the optimizer first sees it."""
    make = OURS.get(name, instep.optim.lbfgs)
    given = next(iter(sample.kwargs), None)
    if sample.params is None:
        with pytest.raises((ValueError, TypeError)) as raised:
            make(**sample.kwargs)
        assert any(word in str(raised.value) for word in sample.kwargs), given
        return
    tx = make(**{n: v for n, v in sample.kwargs.items() if n != "adjust_lr_fn"})
    if "adjust_lr_fn" in sample.kwargs:
        with pytest.raises(ValueError, match="adjust_lr_fn.*arbitrary"):
            make(**sample.kwargs)
        return
    with pytest.raises((ValueError, TypeError), match="complex64|matrices only.*2, 3, 4"):
        tx.init([tensor_to_array(p) for p in sample.params])


def test_the_comparison_has_teeth(x64):
    """One part in 1e11 is seen."""
    with pytest.raises(AssertionError, match="ratio"):
        assert_in_step(np.ones(3), np.ones(3) * (1 + 1e-11))
    assert array(torch.ones(1)).dtype == np.float64
