"""The forms of a convolution that XLA's CPU runs fast are that convolution, in a loop too."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import instep
from conftest import assert_in_step
from instep import ops
from instep._convolve import convolve
from instep._on_cpu import as_written, fast_on_cpu


class Case(NamedTuple):
    image: tuple[int, ...]
    channels: int = 8
    outputs: int = 6
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    dilation: int = 1
    groups: int = 1

    def arrays(self):
        draw = np.random.default_rng(0).standard_normal
        x = draw((3, self.channels, *self.image))
        w = draw(
            (self.outputs, self.channels // self.groups, *(self.kernel,) * len(self.image))
        )
        return jnp.asarray(x), jnp.asarray(w)

    def __call__(self, x, w):
        names = {1: ops.conv1d, 2: ops.conv2d, 3: ops.conv3d}
        numbers = self.stride, self.padding, self.dilation, self.groups
        return names[len(self.image)](x, w, None, *numbers)


CASES = {
    "2d": Case((8, 7)),
    "2d, stride": Case((9, 8), stride=2),
    "2d, dilation": Case((9, 8), padding=2, dilation=2),
    "2d, padding as wide as the kernel": Case((5, 5), padding=3),
    "2d, patches": Case((12, 12), kernel=4, stride=4, padding=0),
    "2d, groups": Case((7, 8), channels=6, groups=3),
    "few channels": Case((8, 7), channels=3),
    "few channels, stride": Case((9, 8), channels=3, stride=2),
    "one channel": Case((8, 7), channels=1),
    "one channel, stride": Case((9, 8), channels=1, stride=2),
    "one channel, dilation": Case((9, 8), channels=1, padding=2, dilation=2),
    "one channel, large kernel": Case((9, 9), channels=1, kernel=7, padding=3),
    "one channel, 1d": Case((17,), channels=1, kernel=5, padding=2),
    "1x1": Case((6, 5), kernel=1, padding=0),
    "1x1, stride": Case((6, 5), kernel=1, padding=0, stride=2),
    "one result": Case((5, 5), kernel=5, padding=0),
    "depthwise": Case((9, 8), channels=6, groups=6),
    "depthwise, stride": Case((9, 8), channels=6, groups=6, stride=2),
    "depthwise, multiplier": Case((9, 8), channels=6, outputs=12, groups=6),
    "kernel exceeds the image": Case((2, 2)),
    "kernel exceeds the image, stride": Case((2, 3), stride=2),
    "one pixel": Case((1, 1)),
    "1d": Case((17,), kernel=5, padding=2),
    "1d, stride and dilation": Case((23,), padding=3, stride=2, dilation=3),
    "3d": Case((5, 4, 6)),
    "3d, stride": Case((5, 4, 6), stride=2),
    "3d, groups": Case((5, 4, 6), groups=2),
}


def with_gradients(case):
    def fn(x, w):
        y, vjp = jax.vjp(case, x, w)
        return y, *vjp(jnp.cos(y))

    return fn


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, x64):
    case = CASES[name]
    right = jax.jit(with_gradients(case))(*case.arrays())
    found = jax.jit(fast_on_cpu(with_gradients(case)))(*case.arrays())
    for what, a, b in zip(("y", "dx", "dw"), right, found, strict=True):
        assert a.dtype == b.dtype
        assert_in_step(a, b, what)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["2d", "depthwise", "1x1", "3d"])
def test_sums_in_half_precision_are_wide(name, dtype):
    """No further from float64 than one rounding of the result, in units of its largest."""
    case = CASES[name]
    x, w = (a.astype(dtype) for a in case.arrays())
    made = jax.jit(fast_on_cpu(case))(x, w)
    assert made.dtype == dtype
    with jax.enable_x64(True):
        right = np.asarray(case(*(jnp.asarray(a, np.float64) for a in (x, w))))
    error = np.abs(np.asarray(made, np.float64) - right).max() / np.abs(right).max()
    assert error <= jnp.finfo(dtype).eps


# Which form, and where.

FORMS = {
    "2d": (1, 0), "2d, groups": (1, 0), "few channels": (0, 1), "one channel": (0, 0),
    "one channel, large kernel": (0, 1), "1x1": (0, 1), "one result": (0, 1),
    "depthwise": (0, 0), "depthwise, multiplier": (1, 0), "kernel exceeds the image": (0, 1),
    "3d": (0, 1), "3d, groups": (1, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_the_form_is_chosen_by_the_shapes(name):
    """Convolutions and products that are left."""
    case = CASES[name]
    text = str(jax.make_jaxpr(fast_on_cpu(case))(*case.arrays()))
    assert (text.count("conv_general_dilated["), text.count("dot_general[")) == FORMS[name]


def nested(body):
    """``body`` of an image in a scan in a branch."""

    def loss(w, images):
        def one(total, x):
            y = lax.cond(total > 0, lambda x: body(x, w), lambda x: body(2 * x, w), x)
            return total + y.sum(), None

        return lax.scan(one, jnp.ones(()), images)[0]

    return jax.grad(loss)


def labels(fn, *args):
    """The layouts of the convolutions in the compiled ``fn``."""
    text = jax.jit(fn).lower(*args).compile().as_text()
    return set(re.findall(r" convolution\(.*dim_labels=([\w>-]+)", text))


def test_in_a_loop_only_the_fast_layout_is_left():
    images, w = jnp.ones((4, 2, 8, 8, 8)), jnp.ones((6, 8, 3, 3))
    grad = nested(lambda x, w: ops.conv2d(x, w, padding=1))
    assert labels(grad, w, images) - {"b01f_01io->b01f"}  # what XLA does by itself
    assert labels(fast_on_cpu(grad), w, images) == {"b01f_01io->b01f"}
    assert_in_step(grad(w, images), fast_on_cpu(grad)(w, images))


class Net(nnx.Module):
    def __init__(self):
        self.conv = nnx.Conv(8, 9, (3, 3), rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.conv(x)


def test_the_accumulation_of_a_flax_model_has_only_the_fast_layout():
    graphdef, params = nnx.split(Net())

    def loss_fn(params, x):
        return jnp.mean(nnx.merge(graphdef, params)(x) ** 2)

    tx = instep.optim.sgd(0.1)
    step = instep.make_train_step(loss_fn, tx, accumulate=3)
    text = step.lower(instep.init_state(params, tx), jnp.ones((3, 2, 8, 8, 8))).compile()
    found = set(re.findall(r" convolution\(.*dim_labels=([\w>-]+)", text.as_text()))
    assert found == {"b01f_01io->b01f"}


def test_what_is_computed_again_stays_so():
    @jax.checkpoint
    def block(x, w):
        return jnp.sin(ops.conv2d(jnp.sin(ops.conv2d(x, w, padding=1)), w, padding=1))

    def loss(w, x):
        return block(block(x, w), w).sum()

    x, w = jnp.ones((2, 8, 8, 8)), jnp.full((8, 8, 3, 3), 0.1)
    text = str(jax.make_jaxpr(fast_on_cpu(jax.grad(loss)))(w, x))
    assert text.count("checkpoint[") == str(jax.make_jaxpr(jax.grad(loss))(w, x)).count(
        "checkpoint["
    )
    assert_in_step(jax.grad(loss)(w, x), jax.jit(fast_on_cpu(jax.grad(loss)))(w, x))


def test_the_line_of_the_source_is_kept():
    case = CASES["2d"]
    (eqn,) = (
        e
        for e in jax.make_jaxpr(fast_on_cpu(lambda x, w: case(x, w)))(*case.arrays()).eqns
        if e.primitive.name == "conv_general_dilated"
    )
    files = [frame.file_name for frame in eqn.source_info.traceback.frames]
    assert any(name.endswith("ops/_conv.py") for name in files)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_batch_of_any_size_is_exported(size):
    (b,) = jax.export.symbolic_shape("b")
    w = jnp.ones((8, 3, 3, 3))

    def loss_fn(w, x):
        return (ops.conv2d(x, w, padding=1) ** 2).sum()

    @jax.jit
    def gradient(w, x):
        return instep.backward(loss_fn, instep.zero_grad(w), w, None, x)[0].grads

    x = jax.ShapeDtypeStruct((b, 3, size, size), jnp.float32)
    exported = jax.export.export(gradient)(w, x)
    x = jnp.ones((2, 3, size, size))
    assert_in_step(gradient(w, x), exported.call(w, x), "w")


@pytest.mark.parametrize("axes", [0, 4])
def test_no_axes_of_space_and_many(axes):
    x, w = jnp.ones((2, 3) + (4,) * axes), jnp.ones((5, 3) + (3,) * axes)

    def fn(x, w):
        return lax.conv_general_dilated(x, w, (1,) * axes, ((0, 0),) * axes)

    assert_in_step(jax.jit(fn)(x, w), jax.jit(fast_on_cpu(fn))(x, w))


def test_without_convolutions_nothing_is_opened():
    @jax.jit
    def inner(x):
        return jnp.sin(x)

    assert "name=inner" in str(jax.make_jaxpr(fast_on_cpu(lambda x: inner(x) * 2))(1.0))


def test_other_devices_have_forms_of_their_own(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert fast_on_cpu(convolve) is convolve


def test_as_written_leaves_functions_alone():
    with as_written():
        assert fast_on_cpu(convolve) is convolve
    assert fast_on_cpu(convolve) is not convolve


# What stands beside a convolution stays as it is.


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))


def test_derivative_rules_are_kept_for_derivatives_of_the_step(x64):
    def loss_fn(params, batch):
        y = ops.conv2d(straight_through(3 * batch), params["w"], padding=1)
        return (straight_through(y) ** 2).mean()

    def after_a_step(w):
        tx = instep.optim.sgd(0.1)
        step = instep.make_train_step(loss_fn, tx, donate=False)
        state, _ = step(instep.init_state({"w": w}, tx), x)
        return loss_fn(state.params, x)

    x, w = CASES["2d"].arrays()
    found = jax.grad(after_a_step)(w)
    with as_written():
        assert_in_step(jax.grad(after_a_step)(w), found)
    assert np.any(found)


def test_a_loop_that_is_mapped_beside_a_convolution(x64):
    def fn(x, w, keys):
        draws = jax.vmap(lambda key: jax.random.poisson(key, 3.0))(keys)
        return ops.conv2d(x, w).sum() + draws.sum().astype(x.dtype)

    x, w = CASES["2d"].arrays()
    keys = jax.random.split(jax.random.key(0), 4)
    assert_in_step(jax.jit(fn)(x, w, keys), jax.jit(fast_on_cpu(fn))(x, w, keys))


def test_a_jitted_part_is_compiled_once():
    @jax.jit
    def part(x, w):
        return lax.scan(lambda c, _: (ops.conv2d(c, w, padding=1), None), x, length=2)[0]

    def fn(x, w):
        return part(part(x, w), w).sum()

    x, w = jnp.ones((2, 8, 8, 8)), jnp.full((8, 8, 3, 3), 0.1)
    text = str(jax.make_jaxpr(fast_on_cpu(fn))(x, w))
    assert text.count("name=part") == 2 and "let part = " in text  # one program, called twice


def test_outside_of_jit_nothing_is_traced():
    def loss_fn(params, batch):
        y = ops.conv2d(batch, params["w"])
        return instep.Loss(y.sum(), metrics={"what": "a string"})

    x, w = CASES["2d"].arrays()
    params = {"w": jnp.asarray(w, np.float32)}
    acc = instep.zero_grad(params)
    _, out = instep.backward(loss_fn, acc, params, None, jnp.asarray(x, np.float32))
    assert out.metrics == {"what": "a string"}
