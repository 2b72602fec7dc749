"""``policy=`` of a plain JAX loss_fn, beside the same casts written out in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import instep
from conftest import assert_bitwise
from instep import bridge


DATA = np.random.default_rng(0)
X = DATA.normal(size=(2, 8, 5)).astype(np.float32)  # two microbatches
Y = DATA.normal(size=(2, 8, 3)).astype(np.float32)
PARAMS = {
    "w": DATA.normal(size=(5, 3)).astype(np.float32),
    "b": np.zeros(3, np.float32),
}
COMPUTE = {"bf16": "bfloat16", "fp16": "float16"}


def loss_fn(params, batch):
    difference = batch["x"] @ params["w"] + params["b"] - batch["y"]
    return (difference.astype(jnp.float32) ** 2).mean()


def by_hand(policy):
    """The gradient with the casts written out, and no policy."""

    def cast_loss(params):
        low = jax.tree.map(lambda p: p.astype(COMPUTE[policy]), params)
        x, y = (jnp.asarray(a[0], COMPUTE[policy]) for a in (X, Y))
        return loss_fn(low, {"x": x, "y": y})

    return jax.jit(jax.value_and_grad(cast_loss))(PARAMS)


@pytest.mark.parametrize("policy", COMPUTE)
def test_gradients_are_those_of_the_casts_inside(policy):
    """SGD at rate 1 shows the gradient, in float32; a scale of 2**4 is exact."""
    scaler = instep.GradScaler(init_scale=2.0**4) if policy == "fp16" else None
    tx = instep.optim.sgd(1.0)
    step = instep.make_train_step(loss_fn, tx, policy=policy)
    state = instep.init_state(PARAMS, tx, scaler=scaler)
    state, metrics = step(state, {"x": X[0], "y": Y[0]})
    loss, grads = by_hand(policy)
    assert metrics.loss == loss and metrics.loss.dtype == jnp.float32
    assert_bitwise(state.params, jax.tree.map(lambda p, g: jnp.asarray(p) - g, PARAMS, grads))


def test_pytorch_with_the_same_casts():
    """Small whole numbers, which nothing rounds: to the bit."""
    x, y = np.float32([[1, 2], [3, -1]]), np.float32([[1], [2]])
    w = torch.tensor([[0.5], [0.25]], requires_grad=True)
    tx = instep.optim.sgd(2.0**-3)
    optimizer = torch.optim.SGD([w], lr=2.0**-3)
    state = instep.init_state({"w": w.detach().numpy().copy()}, tx)

    def loss(params, batch):
        return ((batch["x"] @ params["w"] - batch["y"]) ** 2).sum()

    step = instep.make_train_step(loss, tx, policy="bf16")
    for _ in range(2):
        optimizer.zero_grad()
        low = [torch.tensor(a).bfloat16() for a in (x, y)]
        ((low[0] @ w.bfloat16() - low[1]) ** 2).sum().float().backward()
        assert w.grad.dtype == torch.float32
        optimizer.step()
        state, _ = step(state, {"x": x, "y": y})
        assert_bitwise(state.params["w"], w.detach().numpy())


def seen_dtypes(policy, batch, buffers=None, params=PARAMS, **options):
    """What loss_fn gets, by name."""
    seen = {}

    def spy(params, buffers, batch, rng):
        for tree in (params, buffers, batch):
            seen.update({name: x.dtype.name for name, x in (tree or {}).items()})
        return instep.Loss(params["w"].sum(), buffers=buffers)

    tx = instep.optim.sgd(1.0)
    step = instep.make_train_step(spy, tx, policy=policy, **options)
    state, metrics = step(instep.init_state(params, tx, buffers), batch)
    return seen | {f"new {name}": x.dtype.name for name, x in state.params.items()} | {
        f"new {name}": x.dtype.name for name, x in (state.buffers or {}).items()
    } | {"loss": metrics.loss.dtype.name}  # fmt: skip


def test_what_is_cast():
    batch = {"x": X[0], "labels": np.arange(8), "count": np.float32(3001)}
    found = seen_dtypes("bf16", batch, {"mean": np.zeros(3, np.float32)})
    assert found == {
        "w": "bfloat16", "b": "bfloat16", "x": "bfloat16", "count": "bfloat16",
        "labels": "int32", "mean": "float32", "new w": "float32", "new b": "float32",
        "new mean": "float32", "loss": "float32",
    }  # fmt: skip


@pytest.mark.parametrize(
    "selector", [r"^x$", lambda name, leaf: name == "x", {"x": True, "count": False}]
)
def test_leaves_of_the_batch_are_left_out(selector):
    policy = instep.Policy(compute="bfloat16", batch=selector)
    found = seen_dtypes(policy, {"x": X[0], "count": np.float32(3001)})
    assert (found["x"], found["count"]) == ("bfloat16", "float32")


def test_compute_none_leaves_dtypes_alone():
    found = seen_dtypes(instep.Policy(compute=None), {"x": X[0]})
    assert (found["w"], found["x"]) == ("float32", "float32")


def grads_of(accumulate, params, k):
    """The sum of k gradients of 1, 2**-12, 2**-12, ...: SGD at rate 1 shows it."""
    tx = instep.optim.sgd(1.0)
    policy = instep.Policy(params["w"].dtype.name, "bfloat16", accumulate=accumulate)
    step = instep.make_train_step(
        lambda p, x: instep.Loss((p["w"] * x).sum(), 1 / k), tx, accumulate=k, policy=policy
    )
    state = instep.init_state(params, tx)
    x = np.full((k, 1), 2.0**-12, np.float32)
    x[0] = 1
    return -step(state, x)[0].params["w"]


def test_gradients_are_summed_in_float32():
    """In bfloat16 1 + 2**-12 is 1, whatever the number of microbatches."""
    k = 256
    made = grads_of("float32", {"w": np.zeros(1, np.float32)}, k)
    assert made == 1 + 255 * 2.0**-12 and made.dtype == jnp.float32
    assert jnp.asarray(1 + 2.0**-12, jnp.bfloat16) == 1


def test_gradients_are_summed_in_float64():
    """Of float32 parameters: k terms below half of an ulp of the first, which float32 loses."""

    def sums(accumulate):
        params = {"w": jnp.zeros(1, jnp.float32)}
        acc = instep.zero_grad(params, accumulate=accumulate)
        for x in (1.0, *[2.0**-25] * 4):
            batch = jnp.float32(x)
            acc, _ = instep.backward(lambda p, x: (p["w"] * x).sum(), acc, params, None, batch)
        return float(acc.grads["w"][0])

    with jax.enable_x64(True):
        assert sums("float64") == 1 + 2.0**-23 and sums("float32") == 1.0


def test_float16_underflows_without_a_scale_that_is_large_enough():
    """Why it is an error without a scaler: a gradient of 2**-26 is 0 in float16."""
    tx = instep.optim.sgd(1.0)

    def update(scale):
        step = instep.make_train_step(
            lambda p, x: (p["w"] * x).sum().astype(jnp.float32) * 2.0**-26, tx, policy="fp16"
        )
        state = instep.init_state({"w": np.zeros(1, np.float32)}, tx, scaler=scale)
        return float(step(state, np.ones(1, np.float32))[0].params["w"][0])

    assert update(instep.GradScaler(init_scale=2.0**16)) == -(2.0**-26)
    assert update(instep.GradScaler(init_scale=1.0, growth_interval=2**31 - 1)) == 0.0


def test_eval_step():
    state = instep.init_state(PARAMS, instep.optim.sgd(1.0))
    out = instep.make_eval_step(loss_fn, policy="fp16")(state, {"x": X[0], "y": Y[0]})
    low = {k: jnp.asarray(v, jnp.float16) for k, v in PARAMS.items()}
    batch = {"x": jnp.asarray(X[0], jnp.float16), "y": jnp.asarray(Y[0], jnp.float16)}
    assert_bitwise(out.total, jax.jit(loss_fn)(low, batch))
    plain = instep.make_eval_step(loss_fn)(state, {"x": X[0], "y": Y[0]})
    assert out.total != plain.total


def test_jax_loop_is_the_same_step():
    tx = instep.optim.sgd(0.5)
    batch = {"x": X, "y": Y}
    loop = instep.JaxLoop(loss_fn, tx, PARAMS, batches=[batch], accumulate=2, policy="bf16")
    state = instep.train(loop, 1)
    step = instep.make_train_step(loss_fn, tx, accumulate=2, policy="bf16")
    other, _ = step(instep.init_state(PARAMS, tx), batch)
    assert_bitwise(state.params, other.params)


def test_a_policy_is_data():
    assert instep.Policy(compute=jnp.bfloat16) == instep.Policy(compute="bfloat16")
    policy = instep.Policy(np.float64, jnp.bfloat16, "float32", np.dtype("float64"))
    assert vars(policy) == {
        "param": "float64", "compute": "bfloat16", "output": "float32",
        "accumulate": "float64", "batch": None,
    }  # fmt: skip
    hash(policy)


def torch_loop(**options):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return instep.TorchLoop(
        model, lambda m, x: m(x).mean(), optimizer, [torch.ones(3, 2)], **options
    )


def step_with(policy, params=PARAMS):
    tx = instep.optim.sgd(1.0)
    step = instep.make_train_step(loss_fn, tx, policy=policy)
    step(instep.init_state(params, tx), {"x": X[0], "y": Y[0]})


LOW = {name: jnp.asarray(p, jnp.bfloat16) for name, p in PARAMS.items()}
ERRORS = [
    (lambda: step_with("fp32"), ValueError, "no policy 'fp32': there are 'bf16', 'fp16', and"),
    (lambda: instep.make_eval_step(loss_fn, policy="x"), ValueError, "no policy 'x'"),
    (lambda: instep.JaxLoop(loss_fn, None, PARAMS, policy="x"), ValueError, "no policy 'x'"),
    (lambda: instep.from_torch(torch_loop(), policy="x"), ValueError, "no policy 'x'"),
    (lambda: step_with(jnp.bfloat16), TypeError, "policy is None, 'bf16', 'fp16' or an instep"),
    (
        lambda: instep.Policy(accumulate="bfloat16"),
        ValueError,
        "accumulate='bfloat16' has 16 bits: .* Use 'float32' or 'float64'",
    ),
    (lambda: instep.Policy(accumulate="float16"), ValueError, "'float16' has 16 bits"),
    (lambda: instep.Policy(compute="int8"), ValueError, "compute='int8' is not floating"),
    (lambda: instep.Policy(compute="bf16"), ValueError, "compute='bf16' is no dtype. Use a"),
    (lambda: instep.Policy(param=None), ValueError, "param=None is not floating"),
    (
        lambda: step_with("bf16", LOW),
        TypeError,
        r"parameters in float32; of 2, 2 are in another dtype: {'b': 'bfloat16', ",
    ),
    (
        lambda: step_with("fp16"),
        ValueError,
        "float16, .* the state has no scaler. Give init_st",
    ),
    (
        lambda: instep.from_torch(torch_loop(), policy="fp16"),
        ValueError,
        "the state has no scaler. Give .* a TorchLoop a torch.amp.GradScaler",
    ),
    (
        lambda: instep.from_torch(
            torch_loop(scaler=torch.amp.GradScaler("cpu", enabled=False)), policy="fp16"
        ),
        ValueError,
        "has no scaler",
    ),
    (
        lambda: instep.from_torch(torch_loop(), policy=instep.Policy("bfloat16", None)),
        TypeError,
        "keeps parameters in bfloat16; of 2, 2 are in another dtype: {'weight': 'float32'",
    ),
    (
        lambda: bridge.autocast(torch_loop(), instep.Policy(compute="bfloat16", batch="x")),
        ValueError,
        "batch='x'. has no meaning under torch.autocast",
    ),
    (
        lambda: bridge.autocast(torch_loop(), instep.Policy(compute="float64")),
        ValueError,
        "computes in bfloat16 or float16, not in float64",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
