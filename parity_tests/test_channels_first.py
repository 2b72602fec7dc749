"""What stands between two convolutions is computed channels last, and makes PyTorch's numbers.

Gradients too.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr
from jax.sharding import PartitionSpec as P

from conftest import assert_in_step
from instep import ops
from instep._channels_first import ALONG, ELEMENTWISE, PER_AXIS, SHAPED
from instep._on_cpu import fast_on_cpu


N, C, H, W = 7, 5, 6, 4
DRAW = np.random.default_rng(0)
MASK = DRAW.standard_normal((N, C, H, W)) > 0
SCALE = DRAW.standard_normal((1, C, 1, 1))


def pooled(x, window, strides, padding):
    return lax.reduce_window(x, -np.inf, lax.max, (1, 1, *window), (1, 1, *strides), padding)


def called(x):
    return jax.jit(lambda x: jnp.tanh(x) * 2)(x)


@jax.custom_jvp
def doubled(x):
    return 2 * x


doubled.defjvps(lambda dx, y, x: 2 * dx)


# What PyTorch and JAX do between two convolutions, and how many images are brought into another
# order, forward and backward. Two are the image that comes in and its gradient; more, where
# another array comes in, or where an operation depends on the order: a change and one back.
BETWEEN = {
    "nothing": (lambda x: x, lambda x: x, 2),
    "relu": (F.relu, jax.nn.relu, 2),
    "gelu": (F.gelu, lambda x: jax.nn.gelu(x, approximate=False), 2),
    "silu": (F.silu, jax.nn.silu, 2),
    "clamp": (lambda x: x.clamp(-0.1, 0.2), lambda x: jnp.clip(x, -0.1, 0.2), 2),
    "residual": (lambda x: x + x.sin(), lambda x: x + jnp.sin(x), 2),
    "batch norm": (
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: (x - x.mean((0, 2, 3), keepdims=True))
        / jnp.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5),
        2,
    ),
    "layer norm of the channels": (
        lambda x: x / (1 + x.square().mean(1, keepdim=True)),
        lambda x: x / (1 + jnp.square(x).mean(1, keepdims=True)),
        2,
    ),
    "softmax of the channels": (lambda x: x.softmax(1), lambda x: jax.nn.softmax(x, 1), 2),
    "rows": (lambda x: x - x.mean(2, True), lambda x: x - x.mean(2, keepdims=True), 2),
    "examples": (lambda x: x - x.mean(0, True), lambda x: x - x.mean(0, keepdims=True), 2),
    "all": (lambda x: x * x.mean(), lambda x: x * x.mean(), 2),
    "largest": (
        lambda x: x - x.amax((2, 3), True), lambda x: x - x.max((2, 3), keepdims=True), 2
    ),
    "squeeze and excitation": (
        lambda x: x * x.mean((2, 3), True).sigmoid(),
        lambda x: x * jax.nn.sigmoid(x.mean((2, 3), keepdims=True)),
        2,
    ),
    "a number for each channel": (
        lambda x: x * torch.tensor(SCALE), lambda x: x * jnp.asarray(SCALE), 2
    ),
    "a number for each pixel": (
        lambda x: torch.where(torch.tensor(MASK), x, 0), lambda x: jnp.where(MASK, x, 0), 4
    ),
    "a called program": (lambda x: x.tanh() * 2, called, 2),
    "a gradient of its own": (lambda x: 2 * x, doubled, 2),
    "channels of two": (
        lambda x: torch.cat([x, x.cos()], 1)[:, 2 : C + 2],
        lambda x: jnp.concatenate([x, jnp.cos(x)], 1)[:, 2 : C + 2],
        2,
    ),
    "flipped": (lambda x: x.flip(3, 1), lambda x: jnp.flip(x, (3, 1)), 2),
    "padded": (
        lambda x: F.pad(x, (1, 2, 0, 3)),
        lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 3), (1, 2))),
        2,
    ),
    "every other row": (lambda x: x[:, :, ::2], lambda x: x[:, :, ::2], 2),
    "max_pool2d": (
        lambda x: F.max_pool2d(x, (3, 2), (2, 1), (1, 0)),
        lambda x: ops.max_pool2d(x, (3, 2), (2, 1), (1, 0)),
        2,
    ),
    "windows side by side": (
        lambda x: F.max_pool2d(x, 2)[..., None, :].expand(N, C, 3, 3, 2).flatten(2, 3),
        lambda x: jnp.repeat(ops.max_pool2d(x, 2)[..., None, :], 3, 3).reshape(N, C, 9, 2),
        2,
    ),
    "adaptive_avg_pool2d": (
        lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
        lambda x: ops.adaptive_avg_pool2d(x, (3, 2)),
        2,
    ),
    "groups": (
        lambda x: x / (1 + x.reshape(N, 1, -1).square().mean(-1)[..., None, None]),
        lambda x: x / (1 + jnp.square(x.reshape(N, 1, -1)).mean(-1)[..., None, None]),
        4,
    ),
    "avg_pool2d": (
        lambda x: F.avg_pool2d(x, (3, 2), 1), lambda x: ops.avg_pool2d(x, (3, 2), 1), 2
    ),
    "reduce_window": (
        lambda x: F.max_pool2d(x, (3, 2), (2, 1), (1, 0)),
        lambda x: pooled(x, (3, 2), (2, 1), ((0, 0), (0, 0), (1, 1), (0, 0))),
        2,
    ),
    "in float32": (
        lambda x: (x.float() * 3).double(),
        lambda x: (3 * x.astype(np.float32)).astype(x.dtype),
        2,
    ),
    "rows and columns exchanged": (lambda x: x.mT, lambda x: x.mT, 6),
    "sums along rows": (lambda x: x.cumsum(3), lambda x: jnp.cumsum(x, 3), 2),
    "sorted channels": (lambda x: x.sort(1).values, lambda x: jnp.sort(x, 1), 5),
    "one after the other": (
        lambda x: x.reshape(N, -1, 2).cos().reshape(x.shape),
        lambda x: jnp.cos(x.reshape(N, -1, 2)).reshape(x.shape),
        6,
    ),
}  # fmt: skip


def arrays():
    draw = np.random.default_rng(1).standard_normal
    x = draw((N, 3, H, W))
    return x, draw((C, 3, 3, 3)) / 5, draw((2, C, 2, 2)) / 5


def jax_net(between):
    def net(x, w1, w2):
        y = between(ops.conv2d(x, w1, None, 1, 1))
        return jnp.square(ops.conv2d(y, w2)).sum()

    return jax.value_and_grad(net, (0, 1, 2))


def torch_net(between, *arrays):
    x, w1, w2 = (torch.tensor(a, requires_grad=True) for a in arrays)
    loss = F.conv2d(between(F.conv2d(x, w1, None, 1, 1)), w2).square().sum()
    loss.backward()
    return loss.detach(), x.grad, w1.grad, w2.grad


@pytest.mark.parametrize("name", BETWEEN)
def test_values_and_gradients(name, x64):
    theirs, ours, _ = BETWEEN[name]
    right = torch_net(theirs, *arrays())
    loss, grads = jax.jit(fast_on_cpu(jax_net(ours)))(*arrays())
    for what, a, b in zip(("loss", "dx", "dw1", "dw2"), right, (loss, *grads), strict=True):
        assert_in_step(a, b, what)


def turns(eqn):
    """Whether it brings images into another order."""
    n = eqn.outvars[0].aval.ndim
    orders = (0, *range(2, n), 1), (0, n - 1, *range(1, n - 1))
    return eqn.primitive.name == "transpose" and eqn.params["permutation"] in orders


def copies(jaxpr):
    """How many images are brought into another order.

    Not counted are those of repeated numbers, and axes of one element.
    """
    filled = {eqn.outvars[0] for eqn in jaxpr.eqns if eqn.primitive.name == "broadcast_in_dim"}
    turned = [eqn.invars[0] for eqn in jaxpr.eqns if turns(eqn)]
    inside = sum(copies(j) for eqn in jaxpr.eqns for j in jaxprs_in_params(eqn.params))
    return inside + sum(x not in filled and 1 not in x.aval.shape for x in turned)


@pytest.mark.parametrize("name", BETWEEN)
def test_few_images_are_brought_into_another_order(name, x64):
    _, ours, count = BETWEEN[name]
    made = jax.make_jaxpr(fast_on_cpu(jax_net(ours)))(*arrays()).jaxpr
    used, _ = dce_jaxpr(made, [True] * len(made.outvars))
    assert copies(used) == count


OF_ONE_AXIS_AND_OF_THREE = {
    1: (F.conv1d, F.max_pool1d, ops.conv1d, ops.max_pool1d),
    3: (F.conv3d, F.max_pool3d, ops.conv3d, ops.max_pool3d),
}


@pytest.mark.parametrize("axes", OF_ONE_AXIS_AND_OF_THREE)
def test_of_one_axis_and_of_three(axes, x64):
    torch_conv, torch_pool, conv, pool = OF_ONE_AXIS_AND_OF_THREE[axes]
    draw = np.random.default_rng(2).standard_normal
    x, w = draw((2, 4, *(5, 6, 4)[:axes])), draw((4, 4, *(3,) * axes))

    def net(x, w):
        y = jnp.tanh(pool(conv(x, w, None, 1, 1), 2, 1, 1))
        return conv(y, w, None, 1, 1)

    def value_and_gradients(x, w):
        y, vjp = jax.vjp(net, x, w)
        return y, *vjp(y)

    given = [torch.tensor(a, requires_grad=True) for a in (x, w)]
    y = torch_pool(torch_conv(given[0], given[1], None, 1, 1), 2, 1, 1).tanh()
    y = torch_conv(y, given[1], None, 1, 1)
    y.backward(y.detach())
    right = y.detach(), *(g.grad for g in given)
    found = jax.jit(fast_on_cpu(value_and_gradients))(x, w)
    for what, a, b in zip(("y", "dx", "dw"), right, found, strict=True):
        assert_in_step(a, b, what)


# The tables of operations.

X, Y = DRAW.uniform(0.1, 0.9, (2, 24)).astype(np.float32)
BITS = DRAW.integers(0, 5, (2, 24)).astype(np.int32)
OF_TWO = [
    "add", "atan2", "div", "eq", "ge", "gt", "le", "lt", "max", "min", "mul", "ne", "nextafter",
    "pow", "rem", "sub",
]  # fmt: skip
OTHERS = {  # those that take anything else than one or two floating numbers, between 0 and 1
    "acosh": (lax.acosh, 1 + X),
    "add_any": (lambda x: jax.grad(lambda x: (x * x + jnp.sin(x)).sum())(x), X),
    "and": (lax.bitwise_and, *BITS),
    "clamp": (lax.clamp, Y / 2, X, Y),
    "convert_element_type": (lambda x: lax.convert_element_type(x, np.int32), 9 * X),
    "copy": (jnp.copy, X),
    "integer_pow": (lambda x: lax.integer_pow(x, 3), X),
    "name": (lambda x: checkpoint_name(x, "x"), X),
    "not": (lax.bitwise_not, BITS[0]),
    "or": (lax.bitwise_or, *BITS),
    "population_count": (lax.population_count, BITS[0]),
    "reduce_precision": (lambda x: lax.reduce_precision(x, 5, 3), X),
    "select_n": (lax.select_n, X > 0.5, X, Y),
    "shift_left": (lax.shift_left, *BITS),
    "shift_right_arithmetic": (lax.shift_right_arithmetic, *BITS),
    "shift_right_logical": (lax.shift_right_logical, *BITS),
    "xor": (lax.bitwise_xor, *BITS),
}


@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_an_elementwise_operation_is_one(name):
    """Permuted operands make permuted results."""
    fn, *given = OTHERS.get(name) or (getattr(lax, name), X, *[Y][: name in OF_TWO])
    assert name in {eqn.primitive.name for eqn in jax.make_jaxpr(fn)(*given).eqns}
    order = np.random.default_rng(3).permutation(len(X))
    np.testing.assert_array_equal(fn(*given)[order], fn(*(x[order] for x in given)))


SMALL = DRAW.integers(-3, 4, (4, 3, 5, 2)).astype(np.float32)
ONE = np.eye(3, dtype=np.float32)[:, :, None, None]
WINDOW = ((1, 1, 3, 2), (1, 1, 2, 1), ((0, 0), (0, 0), (1, 1), (1, 0)))


def largest(x):
    return lax.reduce_window(x, -np.inf, lax.max, *WINDOW)


OF_AXES = {
    "broadcast_in_dim": lambda x: lax.broadcast_in_dim(x, (4, 3, 5, 7, 2), (0, 1, 2, 4)),
    "argmax": lambda x: lax.argmax(x, 2, np.int32),
    "argmin": lambda x: lax.argmin(x, 1, np.int32),
    "concatenate": lambda x: lax.concatenate([x, 2 * x], 1),
    "cumlogsumexp": lambda x: lax.cumlogsumexp(x, 2),
    "cummax": lambda x: lax.cummax(x, 3, reverse=True),
    "cummin": lambda x: lax.cummin(x, 1),
    "cumprod": lambda x: lax.cumprod(x, 0),
    "cumsum": lambda x: lax.cumsum(x, 1),
    "pad": lambda x: lax.pad(x, 0.5, [(0, 1, 0), (1, 0, 2), (-1, 2, 1), (0, 0, 0)]),
    "reduce_and": lambda x: lax.reduce_and(x > 0, (0, 2)),
    "reduce_max": lambda x: lax.reduce_max(x, (0,)),
    "reduce_min": lambda x: lax.reduce_min(x, (2, 3)),
    "reduce_or": lambda x: lax.reduce_or(x > 0, (0, 2)),
    "reduce_prod": lambda x: lax.reduce_prod(x, (1, 3)),
    "reduce_sum": lambda x: lax.reduce_sum(x, (0, 3)),
    "reduce_window_max": largest,
    "reduce_window_min": lambda x: lax.reduce_window(x, np.inf, lax.min, *WINDOW),
    "reduce_window_sum": lambda x: lax.reduce_window(
        x, 0.0, lax.add, *WINDOW, (1, 1, 2, 1), (1, 1, 1, 2)
    ),
    "reshape": lambda x: x.reshape(4, 3, 2, 5),
    "rev": lambda x: lax.rev(x, (1, 3)),
    "select_and_gather_add": lambda x: jax.jvp(largest, (x,), (x + 1,))[1],
    "select_and_scatter_add": jax.grad(lambda x: jnp.square(largest(x)).sum()),
    "slice": lambda x: lax.slice(x, (1, 0, 2, 0), (4, 2, 5, 1), (2, 1, 1, 1)),
    "sort": lambda x: lax.sort(x, dimension=1),
    "split": lambda x: lax.split(x, (1, 2), 1)[1],
    "squeeze": lambda x: lax.squeeze(x[:, :, 1:2], (2,)),
}


@pytest.mark.parametrize("name", sorted(ALONG | PER_AXIS | SHAPED))
def test_an_operation_along_axes(name):
    """Of small integers, behind a convolution that does nothing: as without it, to the bit."""
    fn = OF_AXES[name]
    behind = fast_on_cpu(lambda x: fn(ops.conv2d(x, ONE)))
    np.testing.assert_array_equal(jax.jit(fn)(SMALL), jax.jit(behind)(SMALL))
    last = {
        v.aval.shape[-1:] == (3,)
        for eqn in jax.make_jaxpr(behind)(SMALL).eqns
        if eqn.primitive.name == name
        for v in eqn.invars
        if v.aval.ndim
    }
    assert last == {True} or name == "select_and_scatter_add"  # which has another form


def rectified(x):
    return lax.reduce_window(
        lax.max(x, 0.0), -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 1, 1), "VALID"
    )


OF_CHANNELS_AND_SPACE = {
    "a window, of equal elements": jax.grad(lambda x: rectified(x).sum()),
    "a window, its tangent": lambda x: jax.jvp(rectified, (x,), (jnp.cumsum(x, 2),))[1],
    "channels removed": lambda x: lax.squeeze(x[:, 1:2], (1,)),
    "examples removed": lambda x: lax.squeeze(x[1:2], (0,)),
    "channels twice": lambda x: lax.broadcast_in_dim(x, (4, 3, 3, 5, 2), (0, 2, 3, 4)),
    "more channels": lambda x: lax.reshape(x, (4, 6, 5)),
    "rows and columns exchanged": lambda x: lax.reshape(x, (4, 3, 2, 5), (0, 1, 3, 2)),
    "columns of the result first": lambda x: lax.conv_general_dilated(
        x, jnp.ones((3, 3, 2, 1)), (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCWH")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_CHANNELS_AND_SPACE)
def test_an_operation_of_channels_and_space(name):
    fn = OF_CHANNELS_AND_SPACE[name]
    found = jax.jit(fast_on_cpu(lambda x: fn(ops.conv2d(x, ONE))))(SMALL)
    np.testing.assert_array_equal(jax.jit(fn)(SMALL), found)


# Calls.


@pytest.mark.parametrize("options", [[], ["in_shardings"], ["out_shardings"]])
def test_only_a_program_with_shardings_stays_a_program(options):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    inner = jax.jit(jnp.tanh, **dict.fromkeys(options, here))
    made = jax.make_jaxpr(fast_on_cpu(lambda x, w: inner(ops.conv2d(x, w))))(*arrays()[:2])
    assert str(made).count("jit[") == len(options)


def test_a_program_with_metadata_stays_a_program():
    inner = jax.jit(jnp.tanh)

    def marked(x, w):
        with set_xla_metadata(inlineable="false"):
            return inner(ops.conv2d(x, w))

    assert str(jax.make_jaxpr(fast_on_cpu(marked))(*arrays()[:2])).count("jit[") == 1


def test_a_constraint_on_channels_is_one_on_channels():
    mesh = jax.make_mesh((1,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    channels = jax.sharding.NamedSharding(mesh, P(None, "a"))

    def narrowed(x, w):
        return jnp.asarray(ops.conv2d(x, w), jnp.bfloat16, device=channels)

    made = jax.make_jaxpr(fast_on_cpu(narrowed))(*arrays()[:2])
    asked = [eqn for eqn in made.eqns if eqn.params.get("sharding") == channels]
    assert {eqn.outvars[0].aval.shape for eqn in asked} == {(N, C, H - 2, W - 2)}


def test_what_is_computed_once_stays_so():
    """A value with two users, also where the form is taken twice."""
    x, w, _ = arrays()
    x, w = jnp.ones((128, *x.shape[1:])), jnp.asarray(w)  # more numbers than `FEW`

    def two_users(x, w):
        y = jnp.sin(ops.conv2d(x, w, None, 1, 1))
        return ops.conv2d(y, w.swapaxes(0, 1)), y

    once = fast_on_cpu(lambda x, w: jax.jvp(two_users, (x, w), (x, w)))
    counts = [
        str(jax.make_jaxpr(fn)(x, w)).count("_itself") for fn in (once, fast_on_cpu(once))
    ]
    assert counts[0] > 0
    assert counts[0] == counts[1]


@jax.custom_jvp
def length(x):
    return jnp.sqrt(jnp.square(x))


@length.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    y = length(x)
    return y, jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0) * dx


@jax.custom_vjp
def rounded(x):
    return jnp.round(x)


rounded.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))


@pytest.mark.parametrize("rule", [length, rounded])
def test_a_derivative_from_outside_has_the_rule(rule, x64):
    """A rule of tangents is differentiated twice; at the zeros it shows whether it was used."""
    x, w, _ = arrays()
    x[0] = 0

    def outer(of):
        inner = jax.grad(lambda w, x: (rule(ops.conv2d(x, w)) ** 3).sum())
        fn = of(inner if rule is length else lambda w, x: rule(ops.conv2d(x, w)))
        return jax.jit(jax.grad(lambda x: jnp.square(fn(jnp.asarray(w), x)).sum()))(x)

    right, found = outer(lambda fn: fn), outer(fast_on_cpu)
    assert np.abs(right).max() > 0
    assert_in_step(right, found, "dx")
