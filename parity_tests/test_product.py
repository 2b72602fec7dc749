"""Matrix products in the form that XLA's CPU runs fast: the same numbers, in fewer copies."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec as P

import instep
from conftest import assert_in_step
from instep._on_cpu import as_written, fast_on_cpu
from instep._product import has_a_faster_form


class Case(NamedTuple):
    left: tuple
    right: tuple
    lefts: tuple  # the axes that are summed over
    rights: tuple
    is_faster: bool  # in another form
    left_batch: tuple = ()
    right_batch: tuple = ()


CASES = {
    "gradient of a weight": Case((4, 8, 6), (4, 8, 5), (0, 1), (0, 1), True),
    "of several axes": Case((4, 8, 6, 2), (4, 8, 5, 3), (0, 1), (0, 1), True),
    "one axis of examples": Case((8, 6, 2), (8, 5), (0,), (0,), True),
    "to the input of several axes": Case((4, 8, 3, 2), (5, 3, 2), (2, 3), (1, 2), True),
    "both at the last axis": Case((4, 8, 6), (5, 6), (2,), (1,), False),
    "forward": Case((4, 8, 6), (6, 5), (2,), (0,), False),
    "more rows": Case((8, 256), (8, 128), (0,), (0,), True),
    "more columns": Case((8, 128), (8, 256), (0,), (0,), False),
    "few numbers": Case((8, 6), (8, 5), (0,), (0,), False),
    "in the middle": Case((4, 6, 8), (3, 6, 5), (1,), (1,), False),
    "in another order": Case((4, 8, 6), (8, 4, 5), (0, 1), (1, 0), False),
    "everything": Case((4, 8), (4, 8), (0, 1), (0, 1), False),
    "nothing": Case((4, 8, 6), (5, 3), (), (), False),
    "no examples": Case((0, 8, 6), (0, 8, 5), (0, 1), (0, 1), False),
    "of a batch": Case((3, 8, 128), (3, 8, 64), (1,), (1,), True, (0,), (0,)),
    "of a batch, more columns": Case((3, 8, 64), (3, 8, 128), (1,), (1,), True, (0,), (0,)),
    "of a batch, square": Case((3, 8, 128), (3, 8, 128), (1,), (1,), False, (0,), (0,)),
    "of a batch, nearly square": Case((3, 8, 128), (3, 8, 96), (1,), (1,), False, (0,), (0,)),
    "of a batch, few": Case((3, 8, 6), (3, 8, 5), (1,), (1,), False, (0,), (0,)),
    "of a batch, forward": Case((3, 64, 8), (3, 8, 128), (2,), (1,), False, (0,), (0,)),
    "of a batch, the last": Case((3, 128, 8), (3, 64, 8), (2,), (2,), False, (0,), (0,)),
    "batches elsewhere": Case(
        (2, 8, 3, 1, 128), (3, 8, 64, 2, 1), (1, 3), (1, 4), False, (0, 2), (3, 0)
    ),
    "batches elsewhere, and turned": Case(
        (2, 8, 4, 3, 128), (3, 8, 4, 2, 32), (1, 2), (1, 2), True, (0, 3), (3, 0)
    ),
    "of a batch, several axes": Case(
        (3, 4, 8, 16, 8), (3, 4, 8, 2, 32), (1, 2), (1, 2), True, (0,), (0,)
    ),
}


def made(name, dtype=np.float64):
    """The product, and its operands."""
    case = CASES[name]
    draw = np.random.default_rng(0).standard_normal
    axes = (case.lefts, case.rights), (case.left_batch, case.right_batch)

    def product(x, y):
        return lax.dot_general(x, y, axes)

    return product, draw(case.left).astype(dtype), draw(case.right).astype(dtype)


@pytest.mark.parametrize("name", CASES)
def test_values(name, x64):
    product, *operands = made(name)
    right = jax.jit(product)(*operands)
    found = jax.jit(fast_on_cpu(product))(*operands)
    assert found.dtype == right.dtype and found.shape == right.shape
    assert_in_step(right, found)


@pytest.mark.parametrize("name", CASES)
def test_the_form_is_chosen_by_the_axes(name):
    product, *operands = made(name)
    (eqn,) = jax.make_jaxpr(product)(*operands).eqns
    assert has_a_faster_form(eqn) == CASES[name].is_faster


def test_integers_are_left_alone():
    x = np.ones((4, 8, 6), int)
    (product,) = jax.make_jaxpr(lambda x: jnp.einsum("ije,ijf->ef", x, x))(x).eqns
    assert product.primitive.name == "dot_general" and not has_a_faster_form(product)


@pytest.mark.parametrize("precision", ["highest", ("default", "highest")])
def test_precision_and_dtype_go_with_their_operands(precision):
    x, y = np.ones((8, 256), np.float16), np.ones((8, 128), np.float16)

    def product(x, y):
        axes = ((0,), (0,)), ((), ())
        wide = jnp.float32
        return lax.dot_general(x, y, axes, precision, preferred_element_type=wide)

    eqns = jax.make_jaxpr(fast_on_cpu(product))(x, y).eqns
    (eqn,) = (e for e in eqns if e.primitive.name == "dot_general")
    (asked,) = jax.make_jaxpr(product)(x, y).eqns
    assert [v.aval.shape for v in eqn.invars] == [(8, 128), (8, 256)]  # turned
    assert eqn.params["precision"] == tuple(reversed(asked.params["precision"]))
    assert eqn.params["preferred_element_type"] == jnp.float32


def gradients(k):
    """Of two layers over examples of two axes, accumulated, and its operands."""
    draw = np.random.default_rng(0).standard_normal
    params = {"w": draw((32, 256)), "v": draw((256, 32))}
    batch = draw((k, 4, 16, 32))

    def loss_fn(params, x):
        return jnp.mean(jnp.sin(x @ params["w"]) @ params["v"])

    def fn(params, batch):
        def one(acc, x):
            return instep.backward(loss_fn, acc, params, None, x)[0], None

        return lax.scan(one, instep.zero_grad(params), batch)[0].grads

    return fn, jax.tree.map(jnp.asarray, params), jnp.asarray(batch)


def test_gradients_of_weights_are_the_same_numbers(x64):
    fn, *operands = gradients(3)
    with as_written():
        right = jax.jit(fn)(*operands)
    found = jax.jit(lambda *x: fn(*x))(*operands)
    for name in right:
        assert_in_step(right[name], found[name], name)


def copied(fn, *operands):
    """How many copies of gradients of all examples the compiled program makes."""
    text = jax.jit(lambda *x: fn(*x)).lower(*operands).compile().as_text()
    return len(re.findall(r"= \w+\[\d+,4,16\]\S* copy\(", text))


def test_no_operand_is_copied_into_another_order(x64):
    fn, *operands = gradients(3)
    assert copied(fn, *operands) == 0
    with as_written():  # if this fails, XLA has mended it
        assert copied(fn, *operands) > 0


@pytest.mark.parametrize("rows, columns", [(128, 64), (64, 128)])
def test_a_batch_is_compiled_with_fewer_rows(rows, columns):
    """Whichever way it is written, and whatever order its result is asked for in."""
    x, y = np.ones((3, 8, rows), np.float32), np.ones((3, 8, columns), np.float32)

    def products(fn):
        text = jax.jit(fn).lower(x, y).compile().as_text()
        return re.findall(r"= f32(\[\S+\])\S* dot\(", text)

    def straight(x, y):
        return jnp.einsum("bij,bik->bjk", x, y)

    def transposed(x, y):
        return jnp.einsum("bij,bik->bkj", x, y)

    for fn in (straight, transposed):
        assert products(fast_on_cpu(fn)) == ["[3,64,128]"]
    with as_written():  # if this fails, XLA has mended it
        assert {*products(straight), *products(transposed)} != {"[3,64,128]"}


def test_a_part_in_float64_stays_so():
    """Of a function that turns it on for itself, which cannot be traced anew without it."""

    def fn(x, y):
        with jax.enable_x64(True):
            return jnp.einsum("ia,ib->ab", x.astype("float64"), y.astype("float64"))

    x, y = jnp.ones((8, 256), jnp.float32), jnp.ones((8, 128), jnp.float32)
    assert jax.jit(fast_on_cpu(fn))(x, y).dtype == jax.jit(fn)(x, y).dtype == jnp.float64


def test_a_result_is_sharded_as_it_is_asked_to_be():
    mesh = jax.make_mesh((1,), ("b",), axis_types=(AxisType.Explicit,))

    def fn(x, y):
        return jnp.einsum("ia,ib->ab", x, y, out_sharding=P(None, "b"))

    with jax.set_mesh(mesh):
        made = jax.eval_shape(
            fast_on_cpu(lambda *xy: fn(*xy)), jnp.ones((8, 256)), jnp.ones((8, 128))
        )
        asked = jax.eval_shape(fn, jnp.ones((8, 256)), jnp.ones((8, 128)))
    assert made.sharding.spec == asked.sharding.spec == P(None, "b")
