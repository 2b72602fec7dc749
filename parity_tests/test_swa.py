"""Averaged models against torch.optim.swa_utils."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn
from torch.optim import swa_utils

import instep
from conftest import array, assert_bitwise, assert_in_step
from instep.optim import _swa as swa
from instep.parity._judge import ulp
from instep.parity._tolerance import ROUNDING_ULPS


class Net(nn.Module):
    """Parameters and buffers of every kind."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3, 4))
        self.b = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.zeros(5))
        self.register_buffer("count", torch.zeros(4, dtype=torch.int64))

    def write(self, n):
        rng = np.random.default_rng(n)
        with torch.no_grad():
            for tensor in (self.w, self.b, self.mean):
                tensor.copy_(torch.tensor(rng.normal(size=tuple(tensor.shape))))
            self.count.copy_(torch.tensor(rng.integers(-100, 100, size=4)))
        params = {"w": array(self.w).copy(), "b": array(self.b).copy()}
        return params, {"mean": array(self.mean).copy(), "count": array(self.count).copy()}


MEAN = [
    ("swa", {}, swa.swa_avg_fn),
    ("swa by leaf", {"avg_fn": swa_utils.get_swa_avg_fn()}, swa.swa_avg_fn),
    *(
        (f"ema {d}", {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(d)}, swa.ema_avg_fn(d))
        for d in (0.0, 0.3, 0.5, 0.9, 0.999, 1.0)
    ),
    ("ema by leaf", {"avg_fn": swa_utils.get_ema_avg_fn(0.9)}, swa.ema_avg_fn(0.9)),
]


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize(("options", "avg_fn"), [m[1:] for m in MEAN], ids=[m[0] for m in MEAN])
def test_ten_models(options, avg_fn, use_buffers, x64):
    """Integer buffers are averaged as numbers and cut towards zero, at every update.

    They are taken from the call that is not jitted: a fused multiply-add under jit may fall
    on the other side of the cut where PyTorch's two roundings meet an integer.
    """
    model = Net()
    there = swa_utils.AveragedModel(model, use_buffers=use_buffers, **options)
    params, buffers = model.write(0)
    here = swa.averaged_model(params, buffers)
    eager = functools.partial(swa.update_parameters, avg_fn=avg_fn, use_buffers=use_buffers)
    update, not_jitted = jax.jit(eager), here
    for n in range(10):
        params, buffers = model.write(n)
        there.update_parameters(model)
        here, not_jitted = update(here, params, buffers), eager(not_jitted, params, buffers)
        assert int(here.n_averaged) == int(there.n_averaged) == n + 1
        for name in params:
            assert_in_step(getattr(there.module, name), here.params[name], f"{n}, {name}")
        assert_in_step(there.module.mean, here.buffers["mean"], f"{n}, mean")
        counts = not_jitted.buffers["count"]
        np.testing.assert_array_equal(there.module.count, counts, f"model {n}")
        if n == 0 or not use_buffers:
            assert_bitwise(here.buffers, jax.tree.map(np.asarray, buffers))
    assert update._cache_size() == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("options", "avg_fn"), [m[1:] for m in MEAN], ids=[m[0] for m in MEAN])
def test_rounding_is_that_of_torch(options, avg_fn, dtype):
    """In low precision, from one update to the next."""
    rng = np.random.default_rng(0)
    model = nn.Linear(8, 8, bias=False, dtype=getattr(torch, dtype))
    there = swa_utils.AveragedModel(model, **options)
    here = swa.averaged_model({"w": jnp.zeros((8, 8), dtype)})
    for _ in range(6):
        value = rng.normal(size=(8, 8)).astype("f")
        with torch.no_grad():
            model.weight.copy_(torch.tensor(value))
        standing = jnp.array(there.module.weight.detach().float().numpy(), dtype)
        here = swa.AveragedModel({"w": standing}, None, here.n_averaged)
        there.update_parameters(model)
        here = swa.update_parameters(here, {"w": jnp.asarray(value, dtype)}, avg_fn=avg_fn)
        found = np.asarray(here.params["w"], np.float64)
        wanted = there.module.weight.detach().double().numpy()
        largest = float(np.abs(value).max())
        assert np.abs(found - wanted).max() <= ROUNDING_ULPS * ulp(largest, here.params["w"])


def test_without_buffers_and_without_memory_in_common():
    params = {"w": jnp.ones(3)}
    averaged = swa.averaged_model(params)
    assert averaged.buffers is None
    assert averaged.params["w"].unsafe_buffer_pointer() != params["w"].unsafe_buffer_pointer()
    averaged = swa.update_parameters(averaged, params)
    assert int(averaged.n_averaged) == 1 and len(jax.tree.leaves(averaged)) == 2


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=f"Invalid decay: {decay}.*0 <= decay <= 1"):
        swa.ema_avg_fn(decay)


def test_other_parameters_are_an_error_that_names_them():
    averaged = swa.averaged_model({"w": jnp.ones(3)}, {"mean": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"params does not match.*missing \['w'\].*\['v'\]"):
        swa.update_parameters(averaged, {"v": jnp.ones(3)})
    with pytest.raises(ValueError, match="buffers has other shapes.*mean"):
        swa.update_parameters(averaged, {"w": jnp.ones(3)}, {"mean": jnp.ones(3)})


# update_bn: two layers with BatchNorm between, batches of unequal size.

SIZES = (8, 6, 9, 4)


def bn_batches(scale=1.0):
    rng = np.random.default_rng(3)
    return [rng.normal(size=(n, 4)) * (i + scale) for i, n in enumerate(SIZES)]


def bn_forward(momentum, w):
    @jax.jit
    def forward(buffers, x):
        h = x
        new = {}
        for name in ("bn0", "bn1"):
            b = buffers[name]
            h, mean, var = instep.ops.batch_norm(
                h @ w[name], b["running_mean"], b["running_var"], training=True,
                momentum=momentum,
            )  # fmt: skip
            count = b["num_batches_tracked"] + 1
            new[name] = {"running_mean": mean, "running_var": var, "num_batches_tracked": count}
            h = jnp.tanh(h)
        return new | {"mask": buffers["mask"] * 2}

    return forward


@pytest.mark.parametrize("momentum", [0.1, 0.3, 1.0])
def test_update_bn_against_torch(momentum, x64):
    rng = np.random.default_rng(0)
    w = {name: rng.normal(size=(4, 4)) for name in ("bn0", "bn1")}
    layers = []
    for name in w:
        linear = nn.Linear(4, 4, bias=False)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(w[name].T))
        layers += [linear, nn.BatchNorm1d(4, affine=False, momentum=momentum), nn.Tanh()]
    model = nn.Sequential(*layers)
    for x in bn_batches(5.0):  # old statistics, which must not shine through
        model(torch.tensor(x))
    buffers = {
        name: {k: array(v).copy() for k, v in model[i].named_buffers()}
        for name, i in (("bn0", 1), ("bn1", 4))
    } | {"mask": np.ones(3)}

    swa_utils.update_bn([torch.tensor(x) for x in bn_batches()], model.eval())
    forward = bn_forward(momentum, w)
    here = swa.update_bn(forward, buffers, bn_batches(), momentum=momentum)

    for name, i in (("bn0", 1), ("bn1", 4)):
        for key, value in model[i].named_buffers():
            assert_in_step(value, here[name][key], f"{name}.{key}")
        assert int(here[name]["num_batches_tracked"]) == len(SIZES)
    assert_bitwise(here["mask"], np.ones(3))
    assert here["bn0"]["num_batches_tracked"].dtype == jnp.int64


def test_update_bn_with_flax():
    """Flax remembers the biased variance: the oracle is the mean of what it computes."""
    with jax.enable_x64(True):
        layer = nnx.BatchNorm(4, momentum=0.99, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
        graphdef, params, stats = nnx.split(layer, nnx.Param, nnx.BatchStat)
        stats = jax.tree.map(lambda x: x.astype(jnp.float64), stats)  # Flax makes them float32

        def forward(stats, x):
            merged = nnx.merge(graphdef, params, stats)
            merged(x, use_running_average=False)
            return nnx.state(merged, nnx.BatchStat)

        here = swa.update_bn(jax.jit(forward), stats, bn_batches(), momentum=1 - 0.99)
        found = nnx.to_pure_dict(here)
        batches = bn_batches()
        assert_in_step(np.mean([x.mean(0) for x in batches], axis=0), found["mean"], "mean")
        assert_in_step(np.mean([x.var(0) for x in batches], axis=0), found["var"], "var")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batches": []}, "batches is empty"),
        ({"momentum": 0.0}, r"Invalid momentum: 0.0.*1 minus Flax's"),
        ({"momentum": 0.9}, r"takes a share of 0 of the new statistics.*not momentum=0.9"),
        ({"select": "ema$"}, r"'ema\$' selects none of the leaves \['mask', "),
        ({"forward": lambda b, x: {}}, r"what forward returned does not match buffers"),
    ],
)
def test_update_bn_errors(options, told):
    buffers = {"running_mean": jnp.zeros(2), "mask": jnp.ones(2)}
    given = {"forward": lambda b, x: b, "buffers": buffers, "batches": [1.0]} | options
    with pytest.raises(ValueError, match=told):
        swa.update_bn(**given)


def test_averaging_inside_training(x64):
    """SWA next to a train step: the mean of the last models, exactly."""
    tx = instep.optim.sgd(0.1)
    state = instep.init_state(jnp.ones(3), tx)
    step = instep.make_train_step(lambda p, x: ((p - x) ** 2).sum(), tx)
    averaged, seen = swa.averaged_model(state.params), []
    for n in range(4):
        state, _ = step(state, jnp.full(3, float(n)))
        averaged = swa.update_parameters(averaged, state.params)
        seen.append(np.asarray(state.params))
    assert_in_step(np.mean(seen, axis=0), averaged.params)
