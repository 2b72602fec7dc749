"""The JAX step one operation at a time: the same numbers, by NumPy where that will do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from instep.parity._lift import lift
from instep.parity._settings import precision
from instep.parity.diagnosis import _trace
from instep.parity.diagnosis._plain import POINTWISE, SHAPING, plain
from instep.parity.diagnosis._trace import Fingerprint, trace


X = np.random.default_rng(0).uniform(0.5, 1.5, (3, 1, 4)).astype(np.float32)
Y = np.random.default_rng(1).uniform(0.5, 1.5, (3, 1, 4)).astype(np.float32)
N = np.arange(-6, 6).reshape(3, 1, 4)

# Every row of the two tables, as a program that has it; integers where they are done otherwise.
PROGRAMS = {
    "add": lambda: (lambda x, y: x + y, X, Y),
    "add_any": lambda: (jax.grad(lambda x: jnp.sum(jnp.sin(x) * jnp.cos(x))), X),
    "sub": lambda: (lambda x, y: x - y, X, Y),
    "mul": lambda: (lambda x: 0.1 * x, X),
    "neg": lambda: (jnp.negative, X),
    "abs": lambda: (jnp.abs, N),
    "sign": lambda: (jnp.sign, N.astype(np.float32)),
    "exp": lambda: (jnp.exp, X),
    "log": lambda: (jnp.log, X),
    "log1p": lambda: (jnp.log1p, X),
    "tanh": lambda: (jnp.tanh, X),
    "sqrt": lambda: (jnp.sqrt, X),
    "rsqrt": lambda: (lax.rsqrt, X),
    "square": lambda: (jnp.square, X),
    "logistic": lambda: (jax.nn.sigmoid, X),
    "max": lambda: (jnp.maximum, X, Y),
    "min": lambda: (jnp.minimum, X, Y),
    "eq": lambda: (lambda n: n == 2, N),
    "ne": lambda: (lambda n: n != 2, N),
    "lt": lambda: (lambda n: n < 2, N),
    "le": lambda: (lambda n: n <= 2, N),
    "gt": lambda: (lambda n: n > 2, N),
    "ge": lambda: (lambda n: n >= 2, N),
    "stop_gradient": lambda: (lax.stop_gradient, X),
    "copy": lambda: (jnp.copy, X),
    "div": lambda: (lambda x, n: (x / 3.0, lax.div(n, 4)), X, N),
    "integer_pow": lambda: (lambda x: x**3 + x**-2, X),
    "convert_element_type": lambda: (lambda x, n: (x.astype(int), n.astype(float)), X, N),
    "broadcast_in_dim": lambda: (lambda x: (x + jnp.zeros((2, 3, 5, 4)), jnp.ones((2, 3))), X),
    "reshape": lambda: (lambda x: x.reshape(2, 6), X),
    "transpose": lambda: (lambda x: x.transpose(2, 0, 1), X),
    "squeeze": lambda: (lambda x: x.squeeze(1), X),
    "reduce_sum": lambda: (lambda x: x.sum((0, 2)), X),
    "reduce_max": lambda: (lambda x: x.max(0), X),
    "reduce_min": lambda: (lambda x: x.min(0), X),
    "select_n": lambda: (
        lambda x, y, n: (jnp.where(n > 0, x, y), lax.select_n(n % 3, x, y, x * y)), X, Y, N,
    ),
}  # fmt: skip


def test_every_row_has_a_program():
    assert PROGRAMS.keys() == POINTWISE.keys() | SHAPING.keys()


@pytest.mark.parametrize("name", PROGRAMS)
def test_numpy_makes_what_jax_makes(name):
    program, *args = PROGRAMS[name]()
    with precision("float64"):
        compared = 0

        def rule(eqn, operands):
            nonlocal compared
            right, ours = lift(eqn, operands), plain(eqn, operands)
            if ours is not None:
                (ours,), (wanted,) = ours, right
                assert (ours.shape, ours.dtype) == (wanted.shape, wanted.dtype)
                np.testing.assert_allclose(ours, wanted, rtol=1e-14)
                compared += eqn.primitive.name == name
            return right

        jaxpr = jax.make_jaxpr(program)(*args)
        _trace.interpret(jaxpr, args, rule, _trace.now())
    assert compared, jaxpr


def scanned(x):
    def body(carry, row):
        carry = jnp.tanh(carry + row)
        return carry, carry * 2

    last, ys = lax.scan(body, jnp.zeros(x.shape[1:], x.dtype), x, reverse=True)
    doubled = lax.while_loop(lambda y: y.sum() < 100, lambda y: y * 2, ys + 3)
    return lax.cond(x.sum() > 0, lambda: last - 1, lambda: last), doubled


def test_every_iteration_is_seen_and_the_other_branch_is_not():
    """Each row of a scan by itself, the last first, and what a loop makes on its way."""
    with precision("float64"):
        seen = trace(scanned, X)
        (last, doubled), carry = scanned(X.astype(np.float64)), np.zeros((1, 4))
        for row in X.astype(np.float64)[::-1]:
            carry = np.tanh(carry + row)
            assert seen.find(Fingerprint.of(carry))
        assert seen.find(Fingerprint.of(np.asarray(last)))
        assert seen.find(Fingerprint.of(np.asarray(doubled)))
        assert not seen.find(Fingerprint.of(carry - 2))


def test_a_fingerprint_is_blind_to_layout_and_to_nothing_else():
    a = Fingerprint.of(X.astype(np.float64))
    assert a.near(Fingerprint.of(X.astype(np.float64).transpose(2, 0, 1)))
    assert not a.near(Fingerprint.of(2 * X.astype(np.float64)))
    assert a.near(Fingerprint.of(2 * X.astype(np.float64)), scaled=True)
    assert not a.near(Fingerprint.of(-X.astype(np.float64)), scaled=True)
    for i in range(X.size):
        moved = X.astype(np.float64)
        moved.flat[i] += 1e-6
        assert not a.near(Fingerprint.of(moved))


def test_lines_are_those_of_the_user():
    with precision("float64"):
        seen = trace(scanned, X)
    lines = {value.line for value in seen.values if value.line}
    assert lines and all(line.startswith("test_trace.py:") for line in lines), lines
