"""What loops write for others to read: the same numbers, and fewer of them written."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params
from jax.extend.core.primitives import scan_p
from jax.sharding import AxisType, PartitionSpec as P

import instep
from conftest import assert_in_step, draw
from instep._on_cpu import as_written, fast_on_cpu
from instep._scan import Body


T, B, N = 5, 3, 4  # passes, examples, numbers


# Pairs of loops: functions of the state to begin with and of an array for every pass.


def passes(writes, **options):
    """The first loop carries ``h``, writes what ``writes`` makes; the second reads and adds."""

    def both(h, x_TBN):
        def first(h, x):
            h = jnp.sin(h + x)
            return h, writes(h, x)

        def second(total, read):
            terms = (jnp.cos(n + jnp.asarray(x, h.dtype)) for n, x in enumerate(read))
            return total + sum(terms), None

        h, written = lax.scan(first, h, x_TBN)
        return lax.scan(second, h, written, **options)[0]

    return both


def sigmoid(h, x):
    s = jax.nn.sigmoid(h)
    return s, s * (1 - s)


def five(h, x):
    return h, 1 - (2 - (3 - (4 - (5 - h))))


def mean(h, x):
    m = h.mean(-1, keepdims=True)
    return h * 0 + jnp.exp(m), jnp.exp(m)


def in_turn(h, x):
    """The first of the second, which is so needed, though it can be had from the third."""
    s = jnp.exp(h)
    t = 1 - s
    return 2 * t, t, s


def reads_what_the_first_read(h, x_TBN):
    _, doubled = lax.scan(lambda h, x: (h + x, 2 * x), h, x_TBN)
    return lax.scan(lambda h, xy: (h + xy[0] * jnp.sin(xy[1]), None), h, (x_TBN, doubled))[0]


def reads_in_another_order(h, x_TBN):
    """What is not written first, from what is not written either."""

    def first(h, x):
        s = jnp.exp(h)
        t = 1 - s
        return h + x, (t, 2 * t, s)

    h, (t, u, s) = lax.scan(first, h, x_TBN)
    read = (u, t, s)
    return lax.scan(lambda h, r: (h + jnp.sin(r[0]) * jnp.cos(r[1]) * r[2], None), h, read)[0]


def returns_it(h, x_TBN):
    h, (s, t) = lax.scan(lambda h, x: (h + x, sigmoid(h, x)), h, x_TBN)
    return lax.scan(lambda h, st: (h + st[0] * st[1], None), h, (s, t))[0], t


def reads_one_of_them(h, x_TBN):
    h, (_, t) = lax.scan(lambda h, x: (h + x, sigmoid(h, x)), h, x_TBN)
    return lax.scan(lambda h, t: (h + jnp.sin(t), None), h, t)[0]


def has_all_of_it(h, x_TBN):
    """In every pass, not that of the pass alone."""
    h, (s, t) = lax.scan(lambda h, x: (h + x, sigmoid(h, x)), h, x_TBN)
    return lax.scan(lambda h, s: (h + jnp.sin(s * t[0]), None), h, s)[0]


def reads_twice(h, x_TBN):
    h, (s, t) = lax.scan(lambda h, x: (h + x, sigmoid(h, x)), h, x_TBN)
    for _ in range(2):
        h = lax.scan(lambda h, st: (h + st[0] * jnp.sin(st[1]), None), h, (s, t))[0]
    return h


def reads_one_of_them_later(h, x_TBN):
    h, (s, t) = lax.scan(lambda h, x: (h + x, sigmoid(h, x)), h, x_TBN)
    h = lax.scan(lambda h, st: (h + st[0] * jnp.sin(st[1]), None), h, (s, t))[0]
    return lax.scan(lambda h, t: (h + jnp.sin(t), None), h, t)[0]


def of_a_constant(h, x_TBN):
    c = jnp.sin(h)
    h, (s, t) = lax.scan(lambda h, x: (h + x, (h, c - h)), h, x_TBN)
    return lax.scan(lambda h, st: (h + st[0] * jnp.sin(st[1]), None), h, (s, t))[0]


def carries_it(h, x_TBN):
    """As the first state of the second loop."""
    h, (s, t) = lax.scan(lambda h, x: (h + x, sigmoid(h, x)), h, x_TBN)
    begin = (h, t)
    (h, _), _ = lax.scan(lambda ht, s: ((ht[0] + s * ht[1][0], ht[1]), None), begin, s)
    return h


def multiplies_in_the_first(h, x_TBN):
    """A sum of products of what is written, after the loop."""

    def first(carry, x):
        h, c = carry
        s, t = sigmoid(h, x)
        return (h + x, c + jnp.einsum("bi,bj->ij", t, x)), (s, t)

    begin = (h, jnp.zeros((N, N)))
    (h, c), (s, t) = lax.scan(first, begin, x_TBN)
    return lax.scan(lambda h, st: (h + st[0] * jnp.sin(st[1]), None), h, (s, t))[0] @ c


def multiplies_in_the_second(h, x_TBN):
    """The same, of what is read."""
    h, (s, t) = lax.scan(lambda h, x: (h + x, sigmoid(h, x)), h, x_TBN)

    def second(c, st):
        return c + jnp.einsum("bi,bj->ij", *st), None

    return h @ lax.scan(second, jnp.zeros((N, N)), (s, t))[0]


def in_a_program(h, x_TBN):
    return jax.jit(passes(sigmoid))(h, x_TBN)


def in_a_loop(h, x_TBN):
    return lax.scan(lambda h, _: (passes(sigmoid)(h, x_TBN), None), h, None, length=2)[0]


PAIRS = {
    "sigmoid": (passes(sigmoid), 1),
    "backwards": (passes(sigmoid, reverse=True), 1),
    "unrolled": (passes(sigmoid, unroll=2), 1),
    "tanh": (
        passes(lambda h, x: (jnp.tanh(h), 1 - jnp.tanh(h))),
        0,
    ),  # two calls, neither of the other's result
    "a power": (passes(lambda h, x: (h, h**3)), 1),
    "a mask": (passes(lambda h, x: (h, h > 0)), 1),
    "the same twice": (passes(lambda h, x: (h, h)), 1),
    "where": (passes(lambda h, x: (h, x, lax.select(h > 0, h, x))), 1),
    "another dtype": (passes(lambda h, x: (h, h.astype(jnp.float16))), 1),
    "along an axis": (passes(mean), 0),  # the sum is another operation
    "zeros": (passes(lambda h, x: (h, jnp.zeros((B, N)))), 1),
    "a number": (passes(lambda h, x: (h, 2.0)), 0),
    "in turn": (passes(in_turn), 1),
    "four operations": (passes(lambda h, x: (h, 2 - (3 - (4 - (5 - h))))), 1),
    "five operations": (passes(five), 0),
    "five side by side": (passes(lambda h, x: (h, (1 - h) * (2 - h) + (3 - h))), 0),
    "exp": (passes(lambda h, x: (h, jnp.exp(h))), 0),
    "of what is read": (reads_what_the_first_read, 1),
    "in another order": (reads_in_another_order, 2),
    "returned": (returns_it, 0),
    "without its source": (reads_one_of_them, 0),
    "all of it in every pass": (has_all_of_it, 0),
    "carried": (carries_it, 0),
    "two readers": (reads_twice, 1),
    "a reader without": (reads_one_of_them_later, 0),
    "of a constant": (of_a_constant, 0),
    "multiplied where it is made": (multiplies_in_the_first, 0),
    "multiplied where it is read": (multiplies_in_the_second, 0),
    "in a program": (in_a_program, 1),
    "in a loop": (in_a_loop, 1),
}


def written(jaxpr):
    """How many arrays all loops in it write."""
    own = (len(Body.of(eqn).ys) for eqn in jaxpr.eqns if eqn.primitive is scan_p)
    inside = (written(x) for eqn in jaxpr.eqns for x in jaxprs_in_params(eqn.params))
    return sum(own) + sum(inside)


@pytest.mark.parametrize("name", PAIRS)
def test_values(name, x64):
    fn, _ = PAIRS[name]
    operands = draw(B, N), draw(T, B, N)
    right, found = jax.jit(fn)(*operands), jax.jit(fast_on_cpu(fn))(*operands)
    for x, y in zip(jax.tree.leaves(right), jax.tree.leaves(found), strict=True):
        assert x.dtype == y.dtype
        assert_in_step(x, y)


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_not_written(name):
    fn, fewer = PAIRS[name]
    operands = draw(B, N), draw(T, B, N)
    before = written(jax.make_jaxpr(fn)(*operands).jaxpr)
    assert before - written(jax.make_jaxpr(fast_on_cpu(fn))(*operands).jaxpr) == fewer


def lstm(weights, hc, x_TBN):
    return instep.ops.lstm(x_TBN, hc, weights)[0]


def test_the_loop_of_a_lstm_writes_no_derivatives():
    """The four gates, the state, the cell and its tanh: and not their derivatives."""
    weights = [draw(4 * N, N), draw(4 * N, N), draw(4 * N), draw(4 * N)]
    operands = jax.tree.map(
        jnp.asarray, (weights, (draw(1, B, N), draw(1, B, N)), draw(T, B, N))
    )

    def loss_fn(*operands):
        return jnp.sum(jnp.sin(lstm(*operands)))

    def forward(fn):
        loops = [eqn for eqn in jax.make_jaxpr(fn)(*operands).eqns if eqn.primitive is scan_p]
        return len(Body.of(loops[0]).ys)

    output, before = 1, 1  # of the pass, and the state it began with
    assert forward(fast_on_cpu(jax.grad(loss_fn))) == output + before + 4 + 2
    with as_written():  # if this fails, JAX has mended it
        assert forward(jax.grad(loss_fn)) == output + before + 4 + 2 + 5


def test_keys_can_be_read():
    def fn(keys):
        def first(n, key):
            return n + 1, (n * 2, n)

        n, (twice, once) = lax.scan(first, 0, keys)
        read = (keys, twice, once)
        return lax.scan(lambda c, r: (c + jax.random.bits(r[0]) + r[1] + r[2], None), n, read)[
            0
        ]

    keys = jax.random.split(jax.random.key(0), T)
    assert jax.jit(fast_on_cpu(fn))(keys) == jax.jit(fn)(keys)
    asked, made = (jax.make_jaxpr(f)(keys).jaxpr for f in (fn, fast_on_cpu(fn)))
    assert (written(asked), written(made)) == (2, 1)


def test_a_long_chain_is_followed_a_few_steps():
    """Python would stop at 1,000 calls within each other."""

    def chain(h, x):
        y = h
        for _ in range(1_000):
            y = 1 - y
        return h, y

    operands = draw(B, N), draw(T, B, N)
    assert written(jax.make_jaxpr(fast_on_cpu(passes(chain)))(*operands).jaxpr) == 2


def test_what_is_sharded_is_written():
    mesh = jax.make_mesh((1,), ("b",), axis_types=(AxisType.Explicit,))
    fn, _ = PAIRS["sigmoid"]
    with jax.set_mesh(mesh):
        operands = [
            jax.device_put(draw(*shape).astype("float32"), axes)
            for shape, axes in [((B, N), P("b")), ((T, B, N), P(None, "b"))]
        ]
        asked, made = (jax.make_jaxpr(f)(*operands) for f in (fn, fast_on_cpu(fn)))
    assert written(asked.jaxpr) == written(made.jaxpr) == 2
