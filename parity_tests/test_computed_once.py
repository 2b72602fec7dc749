"""What several operations need is computed once on a CPU, and is the same numbers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import instep
from conftest import assert_in_step
from instep._computed_once import FEW, computed_once, shared
from instep._on_cpu import as_written, fast_on_cpu


N = 128  # 2 * N * N >= FEW


def normalized(x):
    x = x - jnp.mean(x, -1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)


def residual(depth):
    """A loss of as many residual blocks, their weights, and a batch."""

    def loss_fn(params, x):
        for w in params:
            x = x + normalized(x) @ w
        return jnp.mean(x * x)

    draw = np.random.default_rng(0).standard_normal
    params = [draw((N, N)) / N for _ in range(depth)]
    return loss_fn, jax.tree.map(jnp.asarray, params), jnp.asarray(draw((2, N, N)))


def gradients(loss_fn):
    def fn(params, x):
        acc, out = instep.backward(loss_fn, instep.zero_grad(params), params, None, x)
        return acc.grads, out.total

    return fn


def widest(fn, *operands):
    """The most values that one fused operation of the compiled program reads."""
    text = jax.jit(fn).lower(*operands).compile().as_text()
    fused = re.findall(r" fusion\((.*?)\), kind=kLoop", text)
    return max(operands.count("%") for operands in fused)


def test_no_block_computes_the_gradients_of_those_above_it_again():
    four, eight = ((gradients(loss_fn), *rest) for loss_fn, *rest in map(residual, (4, 8)))
    assert widest(*four) == widest(*eight) < 8


def test_as_xla_has_it_every_block_does():
    """If this fails, XLA has mended it, and instep needs no ``computed_once``."""
    loss_fn, *rest = residual(8)
    with as_written():
        assert widest(gradients(loss_fn), *rest) > 12


def fused_sums(fn, *operands):
    """How many sums of the compiled program compute in themselves what they sum."""
    text = jax.jit(fn).lower(*operands).compile().as_text()
    bodies = re.findall(r"^%\S+ \(.*?^\}", text, re.M | re.S)
    return sum(" multiply(" in body and " reduce(" in body for body in bodies)


def test_a_sum_is_apart_from_what_it_sums_where_an_axis_has_one_element():
    x = jnp.ones((4, N, N), jnp.float32)

    def with_one(x, y):
        return (x[None] * y).sum(-1)

    def without(x, y):
        return (x * y).sum(-1)

    assert fused_sums(fast_on_cpu(with_one), x, x) == 0
    assert fused_sums(fast_on_cpu(without), x, x) == 1
    with as_written():
        assert fused_sums(with_one, x, x) == 1


def both(fn, *operands):
    fast = jax.jit(fast_on_cpu(fn))(*operands)
    with as_written():
        return fast, jax.jit(fn)(*operands)


def test_values(x64):
    loss_fn, params, x = residual(4)
    fast, plain = map(jax.tree.leaves, both(gradients(loss_fn), params, x))
    for ours, theirs in zip(fast, plain, strict=True):
        assert_in_step(np.asarray(theirs), ours, "gradient")


def in_a_loop(params, x):
    loss_fn = residual(2)[0]

    def body(total, x):
        return jax.tree.map(jnp.add, total, jax.grad(loss_fn)(params, x)), None

    return jax.lax.scan(body, jax.tree.map(jnp.zeros_like, params), jnp.stack([x, 2 * x]))[0]


WRAPPED = {
    "in a loop": in_a_loop,
    "in a jitted part": jax.jit(jax.grad(residual(2)[0])),
    "computed again": jax.grad(jax.checkpoint(residual(2)[0])),
    "mapped": lambda params, x: jax.vmap(jax.grad(residual(2)[0]), (None, 0))(params, x[None]),
    "in a branch": lambda params, x: jax.lax.cond(
        x.sum() > 0, jax.grad(residual(2)[0]), jax.grad(residual(2)[0]), params, x
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_inside_of_other_programs(name, x64):
    _, params, x = residual(2)
    text = jax.jit(fast_on_cpu(WRAPPED[name])).lower(params, x).as_text()
    assert 'inlineable = "false"' in text
    fast, plain = map(jax.tree.leaves, both(WRAPPED[name], params, x))
    for ours, theirs in zip(fast, plain, strict=True):
        assert_in_step(np.asarray(theirs), ours, name)


def test_a_step_is_differentiated_and_mapped(x64):
    def after(scale):
        loss_fn, params, x = residual(2)
        grads, _ = gradients(loss_fn)(params, scale * x)
        return jnp.vdot(grads[0], grads[0])

    with as_written():
        plain = jax.grad(after)(1.5), jax.vmap(after)(jnp.arange(3.0))
    ours = jax.jit(jax.grad(after))(1.5), jax.jit(jax.vmap(after))(jnp.arange(3.0))
    for a, b in zip(plain, ours, strict=True):
        assert_in_step(np.asarray(a), b, "after")


def summed(x):
    y = x * x
    return jnp.sum(jnp.sin(y) + jnp.cos(y))


COUNTED = {
    "of two products": (1, lambda x, w: (lambda y: (y @ w, w @ y))(x + 1)),
    "transposed in one of them": (1, lambda x, w: (lambda y: (y @ w, w @ y.T))(x + 1)),
    "of a product and a sum": (1, lambda x, w: (lambda y: (y @ w, y.sum()))(x + 1)),
    "of a product, and returned": (1, lambda x, w: (lambda y: (y @ w, y))(x + 1)),
    "of one product": (0, lambda x, w: (x + 1) @ w),
    "of none": (0, lambda x, w: (lambda y: (y.sum(), y * 2))(x + 1)),
    "an argument": (0, lambda x, w: (x @ w, w @ x)),
    "an argument, transposed": (0, lambda x, w: (x.T @ w, w @ x.T)),
    "few numbers": (0, lambda x, w: (lambda y: (y @ w, y.sum()))(x[: FEW // len(x) - 1] + 1)),
    "a sum of gradients": (1, lambda x, w: jax.grad(summed)(x)),
    "summed": (0, lambda x, w: (x * w).sum(-1)),
    "summed, of an axis of one": (1, lambda x, w: (x[None] * w).sum(-1)),
    "summed, of an axis of one later": (1, lambda x, w: (x * w)[:, None].sum(-1)),
    "its maximum, of an axis of one": (0, lambda x, w: (x[None] * w).max(-1)),
    "an argument summed, of an axis of one": (0, lambda x, w: x[None].sum(-1)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_shared(name):
    count, fn = COUNTED[name]
    x = jnp.ones((2 * N, 2 * N))
    assert len(shared(jax.make_jaxpr(fn)(x, x).jaxpr)) == count


def test_over_a_mesh_of_somebodys_own(x64):
    """In a loop there, where the types of values say over which axes they differ."""
    _, params, x = residual(2)
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"in_specs": (P(), P("d")), "out_specs": P()}

    def scanned(w, x):
        def step(x, _):
            return x + jnp.tanh(x @ w) * x, None

        return jnp.mean(jax.lax.scan(step, x, length=2)[0])

    mapped = jax.shard_map(lambda w, x: gradients(scanned)(w, x)[0], mesh=mesh, **specs)
    with as_written():
        plain = jax.jit(lambda w, x: gradients(scanned)(w, x)[0])(params[0], x)
    assert_in_step(np.asarray(plain), jax.jit(mapped)(params[0], x), "w")


def test_a_batch_of_any_size_is_exported():
    loss_fn, params, _ = residual(2)
    (b,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((b, N, N), params[0].dtype)
    exported = jax.export.export(jax.jit(gradients(loss_fn)))(params, x)
    assert exported.in_avals[-1].shape == (b, N, N)


def test_a_reference_is_no_array():
    def loss_fn(w, x):
        ref = jax.new_ref(jnp.sin(x))
        return jnp.mean(jax.jit(lambda ref: ref[...] @ w)(ref) + ref[...])

    _, params, x = residual(2)
    with as_written():
        plain = jax.jit(gradients(loss_fn))(params[0], x)
    assert_in_step(np.asarray(plain[0]), jax.jit(gradients(loss_fn))(params[0], x)[0], "w")


def test_a_branch_on_a_number_where_nothing_is_compiled(x64):
    def loss_fn(w, x):
        loss = jnp.mean((x @ w) ** 2)
        return loss if loss > 0 else -loss

    _, params, x = residual(2)
    jax.grad(lambda w: gradients(loss_fn)(w, x)[0].sum())(params[0])


def test_it_is_the_same_array():
    """Nothing is copied: the call returns its argument where it lies."""
    text = jax.jit(lambda x: computed_once(x + 1) * 2).lower(jnp.ones(9)).compile().as_text()
    assert len(re.findall(r" call\(", text)) == 1
    assert " copy(" not in text
