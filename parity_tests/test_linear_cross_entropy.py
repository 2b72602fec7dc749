"""linear_cross_entropy in chunks: PyTorch's numbers, and no array of the logits' size.

The number of classes is what the chunks have to get right; the samples of PyTorch's own
databases, in test_losses_db, have no more classes than one chunk holds.
"""

import re
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.extend.core import ClosedJaxpr, Jaxpr

from conftest import assert_in_step
from instep.losses import cross_entropy, linear_cross_entropy
from losses import Call, of_ours, of_torch


N, D = 6, 3
MASKED = 5  # the classes 0 to 4 have a bias of minus infinity: whole chunks of them, and a part
# (classes, chunk_size): they divide; they are made to, or do not; one, all, and too many.
CHUNKS = [(12, 4), (12, 5), (11, 4), (11, 10), (11, 1), (11, 11), (11, 100)]


def normal(seed, *shape):
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True)


def labels(C, *shape, low=0):
    return torch.tensor(np.random.default_rng(1).integers(low, C, size=shape))


def shares(*shape, axis):
    x = normal(2, *shape).detach()
    return torch.softmax(2 * x, axis)


def some_ignored(y, label):
    where = np.random.default_rng(3).random(y.shape) < 0.4
    where.flat[0] = True
    return torch.where(torch.tensor(where), label, y)


def weights(C):
    w = torch.tensor(np.random.default_rng(4).uniform(0.1, 2.0, size=C))
    w[2] = 0.0
    return w


def masking(C):
    with torch.no_grad():
        bias = normal(5, C)
        bias[:MASKED] = -torch.inf
    return bias


# name: C -> (shape of the weight but for its last axis, target, options)
CASES = {
    "labels": lambda C: ((C,), labels(C, N), {}),
    "sum": lambda C: ((C,), labels(C, N), {"reduction": "sum"}),
    "none": lambda C: ((C,), labels(C, N), {"reduction": "none"}),
    "bias": lambda C: ((C,), labels(C, N), {"linear_bias": normal(5, C)}),
    "smoothing": lambda C: ((C,), labels(C, N), {"label_smoothing": 0.1}),
    "all smoothing": lambda C: ((C,), labels(C, N), {"label_smoothing": 1.0}),
    "weight": lambda C: ((C,), labels(C, N), {"weight": weights(C)}),
    "weight and smoothing": lambda C: (
        (C,),
        some_ignored(labels(C, N), -100),
        {"weight": weights(C), "label_smoothing": 0.1},
    ),
    "some ignored": lambda C: ((C,), some_ignored(labels(C, N), -100), {}),
    "ignored class": lambda C: (
        (C,),
        some_ignored(labels(C, N), 2),
        {"ignore_index": 2, "label_smoothing": 0.1},
    ),
    "all ignored": lambda C: ((C,), torch.full((N,), -100), {}),
    "all ignored, sum": lambda C: ((C,), torch.full((N,), -100), {"reduction": "sum"}),
    "masked": lambda C: ((C,), labels(C, N, low=MASKED), {"linear_bias": masking(C)}),
    "masked and ignored": lambda C: (
        (C,),
        some_ignored(labels(C, N, low=MASKED), 1),
        {"linear_bias": masking(C), "ignore_index": 1},
    ),
    "masked label": lambda C: (
        (C,),
        labels(MASKED, N),
        {"linear_bias": masking(C), "reduction": "none"},
    ),
    "probabilities": lambda C: ((C,), shares(N, C, axis=1), {}),
    "probabilities, weight and smoothing": lambda C: (
        (C,),
        shares(N, C, axis=1),
        {"weight": weights(C), "label_smoothing": 0.1, "linear_bias": normal(5, C)},
    ),
    "2 more axes": lambda C: (
        (C, 2, 4),
        some_ignored(labels(C, N, 2, 4), -100),
        {"weight": weights(C), "label_smoothing": 0.1, "linear_bias": normal(5, C, 2, 4)},
    ),
    "probabilities of 1 more axis": lambda C: ((C, 2), shares(N, C, 2, axis=1), {}),
    "one label": lambda C: ((C,), labels(C), {"weight": weights(C), "label_smoothing": 0.1}),
    "one row of probabilities": lambda C: (
        (C,),
        shares(C, axis=0),
        {"linear_bias": normal(5, C)},
    ),
}
UNBATCHED = ("one label", "one row of probabilities")


def assert_same(args, options, chunk_size):
    """The loss, its gradients and theirs."""
    theirs = of_torch(Call("linear_cross_entropy", args, options))
    ours = of_ours(Call("linear_cross_entropy", args, options | {"chunk_size": chunk_size}))
    assert len(theirs) >= 1 + 2
    for i, (t, o) in enumerate(zip(theirs, ours, strict=False)):
        if np.isfinite(t).any():
            assert_in_step(t, o, f"[{i}]")
        else:
            np.testing.assert_array_equal(o, t, f"[{i}]")


def cases():
    """Every case in chunks that leave a remainder, and some of them in all."""
    often = ("labels", "weight and smoothing", "masked and ignored")
    for name, (C, chunk_size) in product(CASES, CHUNKS):
        every = name in often or (C, chunk_size) == (11, 4)
        yield pytest.param(name, C, chunk_size, marks=() if every else pytest.mark.exhaustive)


@pytest.mark.parametrize(("name", "C", "chunk_size"), list(cases()))
def test_every_chunk_size_gives_pytorchs_numbers(name, C, chunk_size, x64):
    classes, target, options = CASES[name](C)
    batch = () if name in UNBATCHED else (N,)
    assert_same((normal(6, *batch, D), normal(7, *classes, D), target), options, chunk_size)


@pytest.mark.parametrize("chunk_size", [1, 4])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_large_logits_do_not_cancel(chunk_size, smoothing, x64):
    """The loss is measured from the largest logit. Whole numbers: the logits are exact."""
    x, W, b = (
        (2 * normal(seed, *s).detach()).round().requires_grad_()
        for seed, s in [(8, (N, D)), (9, (11, D)), (10, (11,))]
    )
    options = {"linear_bias": b.detach() + 2**30, "label_smoothing": smoothing}
    assert_same((x, W, labels(11, N)), options, chunk_size)


@pytest.mark.parametrize(
    ("label", "chunk_size", "smoothing"),
    [(-1, 4, 0.0), (11, 4, 0.0), (11, 100, 0.0), (12, 1, 0.0), (12, 4, 0.1)],
)
def test_a_label_out_of_range_makes_nan(label, chunk_size, smoothing, x64):
    """Of its own loss and gradient, under jit, where the label cannot be read."""
    x, W = (jnp.asarray(a.detach().numpy()) for a in (normal(6, N, D), normal(7, 11, D)))
    y = jnp.array([0, 1, label, 3, 4, 10])
    options = {"chunk_size": chunk_size, "label_smoothing": smoothing}
    loss = partial(linear_cross_entropy, **options, reduction="none")
    values, vjp = jax.vjp(lambda x: jax.jit(loss)(x, W, y), x)
    np.testing.assert_array_equal(jnp.isnan(values), jnp.arange(N) == 2)
    [dx] = vjp(jnp.ones(N))
    np.testing.assert_array_equal(jnp.isnan(dx).all(1), jnp.arange(N) == 2)
    mean = jax.jit(jax.value_and_grad(partial(linear_cross_entropy, **options), (0, 1)))
    assert all(jnp.isnan(a).all() for a in jax.tree.leaves(mean(x, W, y)))
    with pytest.raises(ValueError, match="out of range"):
        loss(x, W, y)


# --------------------------------------------------------------------------- without logits

EXAMPLES, FEATURES = 256, 4


def plain(x, W, y, **options):
    return cross_entropy(jnp.moveaxis(jnp.tensordot(x, W, (-1, -1)), 1, 1), y, **options)


def traced(loss, classes, labels=(), **options):
    """The value and both gradients, traced for float32 inputs of that size."""
    x = jax.ShapeDtypeStruct((EXAMPLES, FEATURES), jnp.float32)
    W = jax.ShapeDtypeStruct((*classes, FEATURES), jnp.float32)
    y = jax.ShapeDtypeStruct((EXAMPLES, *labels), jnp.int32)
    return jax.jit(jax.value_and_grad(partial(loss, **options), (0, 1))).trace(x, W, y)


def sizes(jaxpr):
    """Of every array in a jaxpr, the bodies of its loops and calls included."""
    for eqn in jaxpr.eqns:
        yield from (v.aval.size for v in (*eqn.invars, *eqn.outvars))
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr):
            if is_jaxpr(inner):
                yield from sizes(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)


def is_jaxpr(value):
    return isinstance(value, (Jaxpr, ClosedJaxpr))


def compiled_sizes(trace):
    """Of every array in what XLA compiles it to."""
    text = trace.lower().compile().as_text()
    return [
        int(np.prod([int(n) for n in s.split(",")])) for s in re.findall(r"\[([\d,]+)\]", text)
    ]


def temporary(trace):
    return trace.lower().compile().memory_analysis().temp_size_in_bytes


WITHOUT = {
    "even": ((4096,), (), {"chunk_size": 256}),
    "a remainder": ((4099,), (), {"chunk_size": 256}),
    "smoothing": ((4096,), (), {"chunk_size": 256, "label_smoothing": 0.1}),
    "none": ((4096,), (), {"chunk_size": 256, "reduction": "sum"}),
    "1 more axis": ((4096, 2), (2,), {"chunk_size": 256}),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_the_logits_never_exist(name):
    """What is largest is the weight, in the trace and in what is compiled."""
    classes, labels, options = WITHOUT[name]
    logits, chunk = (EXAMPLES * n * int(np.prod(labels)) for n in (classes[0], 256))
    largest = max(chunk, FEATURES * int(np.prod(classes)))
    assert 4 * largest < logits
    trace = traced(linear_cross_entropy, classes, labels, **options)
    assert max(sizes(trace.jaxpr.jaxpr)) == largest
    assert max(compiled_sizes(trace)) <= largest

    del options["chunk_size"]
    trace = traced(plain, classes, labels, **options)
    assert max(sizes(trace.jaxpr.jaxpr)) == max(compiled_sizes(trace)) == logits


@pytest.mark.parametrize("classes", [4096, 4099])
def test_temporary_memory(classes):
    """A sixteenth of the classes at a time: less than a fifth of the plain form's bytes."""
    chunked = temporary(traced(linear_cross_entropy, (classes,), chunk_size=256))
    assert 5 * chunked < temporary(traced(plain, (classes,)))


def test_even_chunks_do_not_copy_the_weight():
    even, uneven = (
        temporary(traced(linear_cross_entropy, (classes,), chunk_size=300))
        for classes in (4096, 4099)
    )
    assert even + 4096 * FEATURES * 4 <= uneven


def test_the_step_is_traced_once():
    traces = []

    @jax.jit
    def step(x, W, y):
        traces.append(None)
        return jax.grad(partial(linear_cross_entropy, chunk_size=4))(x, W, y)

    for seed in range(3):
        x, W = (jnp.asarray(normal(seed, n, D).detach().numpy()) for n in (N, 11))
        step(x, W, jnp.arange(N))
    assert len(traces) == 1
