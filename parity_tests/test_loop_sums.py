"""Sums of products over the passes of a loop: the same numbers, of one product after it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import export, lax
from jax.extend.core import jaxprs_in_params
from jax.extend.core.primitives import scan_p

import instep
from conftest import array, assert_in_step, draw
from instep._loop_sums import loop_sums
from instep._on_cpu import as_written, fast_on_cpu
from instep._scan import Body


B, T, X, H = 2, 5, 6, 8  # examples, passes, inputs, state


# Nets, as functions of weights and inputs of (T, B, X).


def of_passes(cell, reverse=False, unroll=1):
    def loss_fn(weights, x_TBX):
        h_BH = jnp.zeros((x_TBX.shape[1], H), x_TBX.dtype)
        h_BH, out_TBH = lax.scan(
            lambda h, x: cell(weights, h, x), h_BH, x_TBX, reverse=reverse, unroll=unroll
        )
        return jnp.sum(jnp.sin(out_TBH)) + jnp.sum(h_BH)

    return loss_fn


def tanh(weights, h, x):
    h = jnp.tanh(x @ weights["w"] + h @ weights["u"])
    return h, h


def as_pytorch_keeps_them(weights, h, x):
    h = jnp.tanh(x @ weights["transposed"].T + h @ weights["u"].T)
    return h, h


def reshaped(weights, h, x):
    """The product of a pass is not what is added."""
    h = jnp.tanh(x @ weights["transposed"].reshape(X, H) + h @ weights["u"])
    return h, h


def gated(weights, h, x):
    z = jax.nn.sigmoid(x @ weights["w"])
    h = z * h + (1 - z) * jnp.tanh(h @ weights["u"])
    return h, h


def by_heads(weights, h, x):
    new = jnp.einsum("bnh,nhk->bnk", h.reshape(-1, 2, H // 2), weights["heads"])
    h = jnp.tanh(new.reshape(-1, H) + x @ weights["w"])
    return h, h


def twice(weights, h, x):
    h = jnp.tanh(jnp.tanh(h @ weights["u"]) @ weights["u"] + x @ weights["w"])
    return h, h


def in_a_loop(weights, h, x):
    """A loop in every pass; what it adds up, the outer one adds up again."""

    def inner(h, _):
        h = jnp.tanh(h @ weights["u"] + x @ weights["w"])
        return h, h

    return lax.scan(inner, h, None, length=3)


def in_a_loop_over_layers(weights, x_TBX):
    """The weights of a layer are read, not summed up; those that all layers have, are."""
    stacked = jnp.stack([weights["u"], 2 * weights["u"]])

    def layer(x, u):
        return jnp.tanh(x @ u + x @ weights["u"]), None

    x, _ = lax.scan(layer, x_TBX[0] @ weights["w"], stacked)
    return jnp.sum(x)


class Net(NamedTuple):
    loss_fn: Callable
    sums: int  # of the gradient's loops, that become products after them
    examples: int = B


NETS = {
    "two weights": Net(of_passes(tanh), 2),
    "backwards": Net(of_passes(tanh, reverse=True), 2),
    "unrolled": Net(of_passes(tanh, unroll=2), 2),
    "transposed": Net(of_passes(as_pytorch_keeps_them), 2),
    "reshaped": Net(of_passes(reshaped), 1),
    "gated": Net(of_passes(gated), 2),
    "a product for each head": Net(of_passes(by_heads), 2),
    "in a loop": Net(of_passes(in_a_loop), 1),
    "over layers": Net(in_a_loop_over_layers, 1),
    "used twice": Net(of_passes(twice), 1),  # the other has two products in a pass
    "more examples than rows": Net(of_passes(tanh), 0, examples=4 * H),
}


def gradient(name):
    net = NETS[name]
    weights = {
        "w": draw(X, H),
        "u": draw(H, H),
        "transposed": draw(H, X),
        "heads": draw(2, H // 2, H // 2),
    }
    operands = jax.tree.map(jnp.asarray, (weights, draw(T, net.examples, X)))
    return jax.grad(net.loss_fn), *operands


def sums_in(jaxpr):
    """Of all loops in a program."""
    return sum(
        (len(loop_sums(Body.of(eqn))) if eqn.primitive is scan_p else 0)
        + sum(map(sums_in, jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_the_same_numbers(name, x64):
    fn, *operands = gradient(name)
    right = jax.jit(fn)(*operands)
    found = jax.jit(fast_on_cpu(fn))(*operands)
    for leaf in right:
        assert_in_step(right[leaf], found[leaf], leaf)


@pytest.mark.parametrize("name", NETS)
def test_sums_are_taken_out_of_the_loop_where_that_is_less(name):
    fn, *operands = gradient(name)
    assert sums_in(jax.make_jaxpr(fn)(*operands).jaxpr) == NETS[name].sums
    assert sums_in(jax.make_jaxpr(fast_on_cpu(fn))(*operands).jaxpr) == 0


# Loops that are written so.


def adds_products(begin, x, y):
    return lax.scan(lambda c, xy: (c + xy[0].T @ xy[1], None), begin, (x, y))[0]


def reads_the_sum(begin, x, y):
    return lax.scan(lambda c, xy: (c + xy[0].T @ xy[1], c[0]), begin, (x, y))


def of_the_sum(begin, x, y):
    return lax.scan(lambda c, xy: (c + xy[0].T @ (xy[1] @ c.T @ c), None), begin, (x, y))[0]


def of_a_constant(begin, x, y):
    return lax.scan(lambda c, x: (c + x.T @ y[0], None), begin, x)[0]


def subtracts(begin, x, y):
    return lax.scan(lambda c, xy: (c - xy[0].T @ xy[1], None), begin, (x, y))[0]


def adds_sines(begin, x, y):
    return lax.scan(lambda c, xy: (c + jnp.sin(xy[0].T @ xy[1]), None), begin, (x, y))[0]


def writes_the_term(begin, x, y):
    def one(c, xy):
        term = xy[0].T @ xy[1]
        return c + term, term

    return lax.scan(one, begin, (x, y))


def writes_the_end(begin, x, y):
    def one(c, xy):
        c = c + xy[0].T @ xy[1]
        return c, c

    return lax.scan(one, begin, (x, y))


def of_another_carry(begin, x, y):
    """The state is carried, written, and summed up in products with itself."""

    def one(carry, xy):
        c, h = carry
        return (c + jnp.einsum("bi,bh->ih", h, xy[1]), jnp.tanh(h + xy[0])), h

    return lax.scan(one, (begin, x[0]), (x, y))


def two_sums_of_one(begin, x, y):
    def one(carry, xy):
        c, d = carry
        z = jnp.sin(xy[0])
        return (
            c + jnp.einsum("bi,bh->ih", z, xy[1]),
            jnp.einsum("bh,bi->hi", xy[1], z) + d,
        ), None

    return lax.scan(one, (begin, begin.T), (x, y))[0]


def more_than_it_reads(begin, x, y):
    """Each of the sums alone could be kept, but not both."""

    def one(carry, xy):
        c, d = carry
        z, w = jnp.sin(xy[0]), jnp.cos(jnp.tile(xy[1], 2))
        return (c + jnp.einsum("bi,bh->ih", z, xy[1]), d + jnp.einsum("bh,bi->hi", w, z)), None

    return lax.scan(one, (begin, jnp.tile(begin, 2).T), (x, y))[0]


def of_numbers(begin, x, y):
    """One of the factors is written into the program."""

    def one(c, x):
        return c + lax.dot_general(x[0, 0], 2.0, (((), ()), ((), ()))), None

    return lax.scan(one, begin[0, 0], x)[0]


LOOPS = {
    adds_products: 1,
    of_another_carry: 1,
    two_sums_of_one: 2,
    more_than_it_reads: 1,
    of_numbers: 0,
    reads_the_sum: 0,
    of_the_sum: 0,
    of_a_constant: 0,
    subtracts: 0,
    adds_sines: 0,
    writes_the_term: 0,
    writes_the_end: 0,
}


READS_THE_FIRST_PASS = (of_another_carry, of_a_constant)


@pytest.mark.parametrize(
    ("loop", "passes"),
    [(x, n) for x in LOOPS for n in (T, 1, 0) if n or x not in READS_THE_FIRST_PASS],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_values_of_a_loop(loop, passes, x64):
    operands = (
        draw(X, H),
        draw(max(passes, 1), B, X)[:passes],
        draw(max(passes, 1), B, H)[:passes],
    )
    assert sums_in(jax.make_jaxpr(loop)(*operands).jaxpr) == LOOPS[loop]
    right, found = jax.jit(loop)(*operands), jax.jit(fast_on_cpu(loop))(*operands)
    assert jax.tree.structure(right) == jax.tree.structure(found)
    for x, y in zip(jax.tree.leaves(right), jax.tree.leaves(found), strict=True):
        assert_in_step(x, y)


def test_integers_are_summed_up_too():
    operands = np.ones((X, H), int), np.full((T, B, X), 2), np.full((T, B, H), 3)
    assert sums_in(jax.make_jaxpr(adds_products)(*operands).jaxpr) == 1
    found = jax.jit(fast_on_cpu(adds_products))(*operands)
    assert found.dtype == jnp.int32 and (found == 1 + T * B * 6).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_dtype_stays(dtype):
    fn, *operands = gradient("two weights")
    operands = jax.tree.map(lambda x: x.astype(dtype), operands)
    assert sums_in(jax.make_jaxpr(fn)(*operands).jaxpr) == 2
    grads = jax.jit(fast_on_cpu(fn))(*operands)
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("shape", ["t,2,6", "t,b,6", "5,b,6"])
def test_a_symbolic_shape_can_be_exported(shape):
    """Of a loop of unknown length, or over an unknown number of examples."""
    fn, weights, _ = gradient("two weights")
    x_TBX = jax.ShapeDtypeStruct(export.symbolic_shape(shape), jnp.float32)
    exported = export.export(jax.jit(fast_on_cpu(fn)))(weights, x_TBX)
    given = jnp.asarray(draw(T, B, X), jnp.float32)
    right, found = jax.jit(fn)(weights, given), exported.call(weights, given)
    for leaf in right:
        assert_in_step(right[leaf], found[leaf], leaf)


def test_what_else_a_pass_reads_may_have_a_symbolic_size():
    def fn(begin, x, y, z_TB):
        def one(carry, given):
            c, d = carry
            x, y, z = given
            return (c + jnp.einsum("bi,bh->ih", jnp.sin(x), y), d + jnp.sum(z)), None

        return lax.scan(one, (begin, 0.0), (x, y, z_TB))[0]

    operands = [np.float32(draw(*shape)) for shape in [(X, H), (T, B, X), (T, B, H), (T, 3)]]
    symbolic = jax.ShapeDtypeStruct(export.symbolic_shape("5,b"), jnp.float32)
    exported = export.export(jax.jit(fast_on_cpu(fn)))(*operands[:3], symbolic)
    for x, y in zip(fn(*operands), exported.call(*operands), strict=True):
        assert_in_step(x, y)


def test_a_gradient_can_be_mapped_and_differentiated(x64):
    fn, weights, x_TBX = gradient("two weights")

    def norm(fn):
        def one(weights, x_TX):
            grads = fn(weights, x_TX[:, None])
            return sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))

        return lambda weights: jnp.sum(jax.vmap(one, (None, 1))(weights, x_TBX))

    right = jax.jit(jax.grad(norm(fn)))(weights)
    found = jax.jit(jax.grad(norm(fast_on_cpu(fn))))(weights)
    for leaf in right:
        assert_in_step(right[leaf], found[leaf], leaf)


def test_pytorchs_lstm_is_in_step_and_carries_no_gradient_of_a_matrix(x64):
    """Of two layers: the loop of the gradient carries the state, and sums up a bias."""
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(X, H, 2).double()
    x_TBX = torch.from_numpy(draw(T, B, X))
    theirs(x_TBX)[0].sin().sum().backward()

    def loss_fn(params, x_TBX):
        hc = (jnp.zeros((2, B, H)),) * 2
        return jnp.sum(jnp.sin(instep.ops.lstm(x_TBX, hc, params, num_layers=2)[0]))

    names = [f"{kind}_l{n}" for n in range(2) for kind in
             ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]  # fmt: skip
    params = [array(getattr(theirs, name)) for name in names]
    grad = jax.jit(fast_on_cpu(jax.grad(loss_fn)))
    for name, found in zip(names, grad(params, array(x_TBX)), strict=True):
        assert_in_step(getattr(theirs, name).grad, found, name)
    (step,) = jax.make_jaxpr(grad)(params, array(x_TBX)).eqns
    loops = [eqn for eqn in step.params["jaxpr"].eqns if eqn.primitive is scan_p]
    carried = {v.aval.shape for eqn in loops for v in Body.of(eqn).carry_in}
    assert len(loops) == 4 and carried == {(B, H), (4 * H,)}
    with as_written():  # if this fails, JAX has mended it
        written = jax.make_jaxpr(jax.grad(loss_fn))(params, array(x_TBX))
    assert sums_in(written.jaxpr) == 2
