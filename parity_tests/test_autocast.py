"""Loops under torch.autocast, and ``policy=``, against PyTorch's own: what is cast, and how."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import instep
from conftest import array
from instep import bridge, parity
from instep.bridge._from_torch import lowered_loss
from instep.bridge.lower import _compile
from instep.bridge.lower._table import Rule, rule_of
from instep.parity._judge import measure_rounding
from instep.parity._records import Status


sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import autocast_page


WORDS, WIDTH = 11, 16


class Transformer(nn.Module):
    """One layer with a softmax, a LayerNorm and a GELU, written out."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, tokens_BT):
        x = self.embed(tokens_BT)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + (q @ k.transpose(1, 2) / WIDTH**0.5).softmax(-1) @ v
        return self.head(x + self.mlp(x))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, tokens_BT):
        return self.head(self.lstm(self.embed(tokens_BT))[0])


def mlp():
    return nn.Sequential(
        nn.Linear(6, WIDTH), nn.GELU(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)
    )


def cnn():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(72, 5),
    )  # fmt: skip


def vectors():
    return torch.randn(256, 6), torch.randint(0, 5, (256,))


def images():
    return torch.randn(8, 3, 8, 8), torch.randint(0, 5, (8,))


def words():
    return torch.randint(0, WORDS, (4, 6)), torch.randint(0, WORDS, (4, 6))


def loss_fn(model, batch):
    logits = model(batch[0])
    return F.cross_entropy(logits.flatten(0, -2), batch[1].flatten())


def loss_bf16(model, batch):
    """As people write it."""
    with torch.autocast("cpu", torch.bfloat16):
        return loss_fn(model, batch)


MODELS = {
    "mlp": (mlp, vectors),
    "cnn": (cnn, images),
    "transformer": (Transformer, words),
    "lstm": (Lstm, words),
}


def loop_of(name, loss=loss_bf16, **options):
    torch.manual_seed(0)
    make, draw = MODELS[name]
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return instep.TorchLoop(model, loss, optimizer, [draw() for _ in range(4)], **options)


@pytest.mark.parametrize("name", MODELS)
def test_in_step(name):
    """In float64 autocast casts nothing; in float32 bfloat16 rounds, on both sides."""
    report = parity.run(loop_of(name), steps=2, checks=False)
    assert report.in_step, str(report)


# Each operator alone, on PyTorch's lists for the CPU and beside them.


class Op(NamedTuple):
    fn: Callable
    shapes: tuple
    made: str  # under autocast, of float32


LOW, WIDE = "low", "float32"
OPS = {
    "linear": Op(F.linear, ((4, 6), (3, 6), (3,)), LOW),
    "linear, many rows": Op(F.linear, ((4096, 2), (3, 2), (3,)), LOW),
    "conv2d, many places": Op(F.conv2d, ((4, 1, 34, 34), (2, 1, 3, 3), (2,)), LOW),
    "expand, many rows": Op(lambda x, y: (x @ y).expand(4096, 3) * 1.0, ((1, 2), (2, 3)), LOW),
    "matmul": Op(torch.matmul, ((2, 4, 6), (6, 3)), LOW),
    "conv2d": Op(F.conv2d, ((2, 3, 5, 5), (4, 3, 3, 3)), LOW),
    "attention": Op(
        F.scaled_dot_product_attention, ((2, 2, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4)), LOW
    ),
    "softmax of a product": Op(lambda x, y: (x @ y).softmax(-1), ((4, 6), (6, 5)), LOW),
    "layer_norm of a product": Op(
        lambda x, y, w: F.layer_norm(x @ y, (5,), w), ((4, 6), (6, 5), (5,)), LOW
    ),
    "mse_loss of a product": Op(
        lambda x, y, t: F.mse_loss(x @ y, t), ((4, 6), (6, 5), (4, 5)), WIDE
    ),
    "log_softmax alone": Op(lambda x: x.log_softmax(-1), ((4, 6),), WIDE),
    "prod of a product": Op(lambda x, y: (x @ y).prod(-1), ((4, 6), (6, 5)), WIDE),
    "float32 with a product": Op(lambda x, y, z: x @ y + z, ((4, 6), (6, 5), (5,)), WIDE),
    "cat of both": Op(lambda x, y, z: torch.cat([x @ y, z]), ((4, 6), (6, 5), (2, 5)), WIDE),
    "stack of both": Op(
        lambda x, y, z: torch.stack([x @ y, z]), ((4, 6), (6, 5), (4, 5)), WIDE
    ),
    "autocast off inside": Op(
        lambda x, y: _off(lambda: (x @ y).softmax(-1)), ((4, 6), (6, 5)), WIDE
    ),
}


def _off(fn):
    with torch.autocast("cpu", enabled=False):
        return fn()


# XLA leaves out a cast to bfloat16 and back, which rounds less than PyTorch does.
AS_WRITTEN = {"xla_allow_excess_precision": False}


def test_excess_precision():
    """A product that is cast to float32 is not rounded, unless it is asked for."""
    torch.manual_seed(1)
    a, b = torch.randn(4, 6).bfloat16(), torch.randn(6, 5).bfloat16()
    x, y = bridge.tensor_to_array(a), bridge.tensor_to_array(b)

    def product(x, y):
        return (x @ y).astype(jnp.float32)

    right = array((a @ b).float())
    assert (jax.jit(product, compiler_options=AS_WRITTEN)(x, y) == right).all()
    exact = array(a.double() @ b.double())
    error = abs(array(jax.jit(product)(x, y)) - exact).max()
    assert error <= 1e-3 * abs(right - exact).max()


class Under(nn.Module):
    def __init__(self, fn, dtype):
        super().__init__()
        self.fn, self.dtype = fn, dtype

    def forward(self, *xs):
        with torch.autocast("cpu", self.dtype):
            return self.fn(*xs)


def with_gradients(fn, xs, cotangent):
    """In PyTorch: the result, and the gradient of every input."""
    xs = [x.clone().requires_grad_() for x in xs]
    made = fn(*xs)
    weighted = (made.to(cotangent.dtype) * cotangent).sum()
    return [array(x) for x in (made.detach().float(), *torch.autograd.grad(weighted, xs))], made


@pytest.mark.parametrize(
    ("name", "dtype"), [(n, "bfloat16") for n in OPS] + [(n, "float16") for n in [*OPS][:2]]
)
def test_operators(name, dtype):
    """The dtype that PyTorch makes, and rounding that is no worse than its own."""
    torch.manual_seed(1)
    op = OPS[name]
    xs = [torch.randn(shape) for shape in op.shapes]
    module = Under(op.fn, getattr(torch, dtype))
    cotangent = torch.randn(op.fn(*xs).shape)
    own, made = with_gradients(module, xs, cotangent)
    oracle, _ = with_gradients(op.fn, [x.double() for x in xs], cotangent.double())
    lowered = instep.lower(module, tuple(xs))

    def ours(*xs):
        made = lowered({}, {}, *xs)[0]
        return (made.astype(jnp.float32) * array(cotangent)).sum(), made

    (_, there), grads = jax.jit(
        jax.value_and_grad(ours, argnums=tuple(range(len(xs))), has_aux=True),
        compiler_options=AS_WRITTEN,
    )(*map(array, xs))
    assert there.dtype.name == str(made.dtype).removeprefix("torch.")
    assert there.dtype.name == (dtype if op.made == LOW else op.made)
    values = [there.astype(jnp.float32), *grads]
    for i, (right, jax_value, torch_value) in enumerate(zip(oracle, values, own, strict=True)):
        assert jax_value.dtype == jnp.float32
        m = measure_rounding(0, right, array(jax_value), [torch_value])
        assert m.status is Status.IN_STEP, f"{name}, {i}: {m.ratio}"


# Mistakes: an operator computes in bfloat16 what PyTorch's kernel or list has in float32.


def rounded(x):
    """To bfloat16, where XLA would keep more: it drops a cast to it and back."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jax.lax.reduce_precision(wide, exponent_bits=8, mantissa_bits=7)


def low_softmax(x, dim, dtype=None):
    e = rounded(jnp.exp(rounded(x - x.max(dim, keepdims=True))))
    return rounded(e / rounded(e.sum(dim, keepdims=True))).astype(dtype or x.dtype)


def low_layer_norm(x, shape, weight, bias, eps, cudnn=False):
    del shape, cudnn
    centred = rounded(x - rounded(x.mean(-1, keepdims=True)))
    var = rounded(rounded(centred**2).mean(-1, keepdims=True))
    y = rounded(centred * rounded(jax.lax.rsqrt(var + eps)))
    return rounded(rounded(y * weight) + bias).astype(x.dtype)


def low_loss(logits, labels, *options):
    del options
    logits = rounded(logits - logits.max(-1, keepdims=True))
    log_sum = rounded(jnp.log(rounded(rounded(jnp.exp(logits)).sum(-1, keepdims=True))))
    log_p = rounded(logits - log_sum)
    return rounded(-jnp.take_along_axis(log_p, labels[:, None], -1).mean())


PLANTS = {"softmax": low_softmax, "layer_norm": low_layer_norm, "cross_entropy_loss": low_loss}


# Of two roundings that are independent about half of the elements agree.
SAME = 0.75

# The leaves whose gradients a step that rounds where PyTorch does has to the bit.
SAME_BITS = {
    "mlp": ["0.weight", "0.bias", "3.weight", "3.bias"],
    "transformer": ["mlp.0.weight", "mlp.2.weight", "mlp.2.bias", "head.weight"],
}
HIT = [
    ("cross_entropy_loss", "mlp"),
    ("layer_norm", "mlp"),
    ("softmax", "transformer"),
]


def planted(monkeypatch, op):
    def with_mistake(namespace, name, overload):
        if name == op:
            return Rule(PLANTS[op])
        return rule_of(namespace, name, overload)

    monkeypatch.setattr(_compile, "rule_of", with_mistake)


def share_of_bits(name):
    """How many elements of each gradient are PyTorch's to the bit."""
    loop = loop_of(name)
    batch = loop.batches[0]
    loss_fn = lowered_loss(loop)
    buffers, arrays = loss_fn.lowered.buffers, list(map(array, batch))
    loop.loss_fn(loop.model, batch).backward()
    grads = jax.jit(
        jax.grad(lambda params: loss_fn(params, buffers, arrays, None).total),
        compiler_options=AS_WRITTEN,
    )(loss_fn.lowered.params)
    right = {n: array(p.grad) for n, p in loop.model.named_parameters()}
    return {leaf: float(np.mean(array(grads[leaf]) == right[leaf])) for leaf in SAME_BITS[name]}


@pytest.mark.parametrize("name", SAME_BITS)
def test_rounds_where_pytorch_does(name):
    """Most elements, and not all: a sum in another order may round the other way."""
    shares = share_of_bits(name)
    assert min(shares.values()) > SAME, shares


@pytest.mark.parametrize(("op", "name"), HIT)
def test_a_mistake_is_found(op, name, monkeypatch):
    """One operator that rounds inside takes the bits of the gradients away."""
    planted(monkeypatch, op)
    shares = share_of_bits(name)
    assert min(shares.values()) < SAME, shares


# float16 with torch.amp.GradScaler, and steps that are made to overflow.

STEPS = 40
FORCED = (5, 6, 17, 29)
OPTIONS = {"init_scale": 2.0**11, "growth_interval": 3}


def exact_batches():
    """Whole numbers, and 2**15 where the scaled gradient is to overflow."""
    numbers = np.random.default_rng(0).integers(-2, 3, (STEPS, 1, 2)).astype(np.float32)
    numbers[:, :, 0] = 1.0
    numbers[list(FORCED)] = 2.0**15
    return numbers


def exact_model():
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, 0.5)
    return model


def torch_scaled():
    """PyTorch's loop; after each step scale, tracker, whether it was skipped, and weight."""
    model = exact_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0**-6)
    scaler = torch.amp.GradScaler("cpu", **OPTIONS)
    for x in exact_batches():
        before = array(model.weight).copy()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = model(torch.tensor(x)).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        found = sum(
            scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values()
        )
        scaler.update()
        skipped = bool(found)
        assert not skipped or (array(model.weight) == before).all()
        state = scaler.state_dict()
        yield state["scale"], state["_growth_tracker"], skipped, array(model.weight).tolist()


def lowered_step():
    model = exact_model()
    loop = instep.TorchLoop(
        model,
        lambda m, x: m(x).sum(),
        torch.optim.SGD(model.parameters(), lr=2.0**-6),
        [torch.tensor(x) for x in exact_batches()],
        scaler=torch.amp.GradScaler("cpu", **OPTIONS),
    )
    return instep.from_torch(loop, policy="fp16")


def plain_step():
    tx = instep.optim.sgd(2.0**-6)
    params = {"weight": array(exact_model().weight)}
    return (
        instep.make_train_step(lambda p, x: (x @ p["weight"].T).sum(), tx, policy="fp16"),
        instep.init_state(params, tx, scaler=instep.GradScaler(**OPTIONS)),
    )


@pytest.mark.parametrize("make", [lowered_step, plain_step])
def test_scaler_skips_the_same_steps_to_the_bit(make):
    """Overflow where it is forced, and where the scale has grown too far by itself."""
    step, state = make()
    skips, scales = [], []
    for n, (x, right) in enumerate(zip(exact_batches(), torch_scaled(), strict=True)):
        state, metrics = step(state, x)
        scaler, skipped = state.scaler, bool(metrics.skipped)
        made = float(scaler.scale), int(scaler.growth_tracker), skipped
        assert (*made, np.asarray(state.params["weight"]).tolist()) == right, f"step {n}"
        skips += [n] if skipped else []
        scales.append(made[0])
    assert set(FORCED) < set(skips)
    assert sum(b > a for a, b in itertools.pairwise(scales)) >= 5


def scaled_loop(steps, forced):
    """A loss with a factor in the batch: 2**40 overflows float16, and is clipped in float64."""
    torch.manual_seed(0)
    model = mlp()

    def loss_fn(model, batch):
        x, y, factor = batch
        return F.cross_entropy(model(x), y) * factor

    batches = [
        (*vectors(), torch.tensor(2.0**40 if n in forced else 1.0)) for n in range(steps)
    ]
    loop = instep.TorchLoop(
        model,
        loss_fn,
        torch.optim.AdamW(model.parameters(), lr=1e-3),
        batches,
        clip_grad_norm=1.0,
        scaler=torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=3),
    )
    return bridge.autocast(loop, "fp16")


@pytest.mark.parametrize(
    ("steps", "forced"),
    [
        pytest.param(6, (1,), id="6"),
        pytest.param(32, (4, 5, 13, 20, 29), id="32", marks=pytest.mark.exhaustive),
    ],
)
def test_scaled_steps_in_step(steps, forced):
    report = parity.run(scaled_loop(steps, forced), steps=steps, checks=False)
    assert report.in_step, str(report)
    (walk,) = [w for w in report.walks if w.plan.dtype == "float32" and w.plan.synced]
    scaler = {row.leaf.name: row for row in walk.rows if row.leaf.kind == "scaler"}
    assert scaler.keys() == {"scale", "growth_tracker", "found_inf"}
    assert all(row.judged == row.measured and row.worst.error == 0 for row in scaler.values())


def test_the_page_is_what_is_measured():
    assert autocast_page.page() == autocast_page.PAGE.read_text()
