"""Large convolutions in fewer products, and a few examples at a time: the same numbers.

PyTorch is the oracle; both gradients too.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jax.sharding import PartitionSpec as P

import instep
from conftest import assert_in_step
from instep import _convolution, _in_parts, _patches, _winograd, ops
from instep._on_cpu import fast_on_cpu


class Case(NamedTuple):
    """Of two axes; the kernel is square."""

    image: tuple[int, int]
    examples: int = 4
    channels: int = 9
    outputs: int = 8
    kernel: int = 3
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 1
    dilation: int = 1

    @property
    def numbers(self):
        return self.stride, self.padding, self.dilation

    def arrays(self, dtype=np.float64):
        draw = np.random.default_rng(0).standard_normal
        x = draw((self.examples, self.channels, *self.image))
        w = draw((self.outputs, self.channels, self.kernel, self.kernel))
        y = draw(F.conv2d(torch.tensor(x), torch.tensor(w), None, *self.numbers).shape)
        return [a.astype(dtype) for a in (x, w, y)]

    def torch(self, x, w, dy):
        x, w = (torch.tensor(a, requires_grad=True) for a in (x, w))
        y = F.conv2d(x, w, None, *self.numbers)
        y.backward(torch.tensor(dy))
        return y.detach(), x.grad, w.grad

    def jax(self, x, w, dy):
        y, vjp = jax.vjp(lambda x, w: ops.conv2d(x, w, None, *self.numbers), x, w)
        return y, *vjp(dy)


CASES = {
    "even": Case((8, 6)),
    "odd": Case((7, 9)),
    "odd and even": Case((5, 8)),
    "not padded": Case((8, 7), padding=0),
    "padded by two": Case((5, 6), padding=2),
    "padded by more than the kernel": Case((6, 5), padding=4),
    "padded on one axis": Case((6, 6), padding=(0, 1)),
    "one result": Case((3, 3), padding=0),
    "as large as the kernel": Case((3, 3)),
    "a result as large as the kernel": Case((5, 5), padding=0),
    "one example": Case((9, 8), examples=1),
    "more outputs": Case((8, 8), channels=8, outputs=20),
    "stride": Case((9, 8), stride=2),
    "stride, and a rest": Case((10, 9), kernel=4, stride=3),
    "stride on one axis": Case((9, 8), stride=(1, 2)),
    "stride and a large kernel": Case((16, 15), kernel=7, stride=2, padding=3),
    "stride, without overlap": Case((12, 8), kernel=4, stride=4, padding=0),
    "stride and dilation": Case((11, 12), stride=2, dilation=2),
}
WHAT = ("y", "dx", "dw")


@pytest.fixture(params=["at once", "in parts"])
def always(request, monkeypatch):
    """The forms for large convolutions, for any; of all examples, or of one after the other."""
    monkeypatch.setattr(_convolution, "LARGE", 1)
    monkeypatch.setattr(_winograd, "FEW", 1)
    monkeypatch.setattr(_winograd, "FEW_TILES", 1)
    if request.param == "in parts":
        for form in (_winograd, _patches):
            monkeypatch.setattr(form, "_at_a_time", lambda c: 1)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, always, x64):
    case = CASES[name]
    arrays = case.arrays()
    found = jax.jit(fast_on_cpu(case.jax))(*map(jnp.asarray, arrays))
    for what, theirs, ours in zip(WHAT, case.torch(*arrays), found, strict=True):
        assert_in_step(theirs, ours, what)


def as_made(case, dtype="float32"):
    """How many convolutions, products and loops make y, dx and dw."""
    arrays = [jax.ShapeDtypeStruct(a.shape, dtype) for a in case.arrays(np.float32)]
    text = str(jax.make_jaxpr(fast_on_cpu(case.jax))(*arrays))
    return tuple(
        text.count(f"{what}[") for what in ("conv_general_dilated", "dot_general", "scan")
    )


PLAIN = Case((32, 32), examples=4, channels=32, outputs=32)
AS_MADE = {
    "few products": (PLAIN, (0, 48, 0)),
    "few products, in parts": (PLAIN._replace(examples=32), (0, 64, 3)),
    "few channels": (PLAIN._replace(channels=31), (3, 0, 0)),
    "few outputs": (PLAIN._replace(outputs=31), (3, 0, 0)),
    "few multiplications": (PLAIN._replace(examples=3), (3, 0, 0)),
    "few tiles": (Case((6, 6), examples=7, channels=128, outputs=128), (3, 0, 0)),
    "no room for the tiles of one": (PLAIN._replace(image=(130, 128)), (3, 0, 0)),
    "many examples, without a divisor": (PLAIN._replace(examples=127), (0, 64, 3)),
    "few tiles at a time": (Case((8, 8), 127, 256, 256), (3, 0, 0)),
    "another kernel": (PLAIN._replace(kernel=5, padding=2), (3, 0, 0)),
    "dilation": (PLAIN._replace(dilation=2, padding=2), (3, 0, 0)),
    "stride": (PLAIN._replace(stride=2, examples=16), (1, 2, 0)),
    "stride, in parts": (PLAIN._replace(stride=2, examples=64), (1, 3, 2)),
    "stride, no room for the patches of one": (
        Case((514, 514), 1, 64, 64, kernel=8, stride=2),
        (3, 0, 0),
    ),
    "stride, few multiplications": (PLAIN._replace(stride=2), (3, 0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", AS_MADE)
def test_the_form_is_chosen_by_the_shapes(name):
    case, counts = AS_MADE[name]
    assert as_made(case) == counts


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["few products", "stride"])
def test_half_precision_is_summed_in_one(name, dtype):
    assert as_made(AS_MADE[name][0], dtype) == (3, 0, 0)


@pytest.mark.parametrize("name", ["few products", "few products, in parts", "stride, in parts"])
def test_rounding_in_float32_is_that_of_a_convolution(name):
    """Against float64, in units of the largest: at most four times what XLA's own makes."""
    case, _ = AS_MADE[name]
    arrays = case.arrays(np.float32)
    exact = case.torch(*(a.astype(np.float64) for a in arrays))
    forms = [jax.jit(fn)(*arrays) for fn in (case.jax, fast_on_cpu(case.jax))]
    for what, right, *both in zip(WHAT, exact, *forms, strict=True):
        theirs, ours = (np.abs(a - right.numpy()).max() for a in both)
        assert ours <= 4 * theirs, what


MB = 2**20


@pytest.mark.parametrize(
    ("examples", "sizes", "right"),
    [
        (64, (MB,), 8),
        (64, (MB // 8,), 64),
        (48, (MB + 1,), 6),  # 7 is no divisor
        (61, (MB,), 1),  # nor is any
        (6, (9 * MB,), 0),  # one is too large
        (64, (MB, 32 * MB), 32),  # the sums are as large as 32 of them
        (1, (MB,), 1),
    ],
)
def test_how_many_at_a_time(examples, sizes, right):
    assert _in_parts.at_a_time(examples, *sizes) == right


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("at", [(0, 0), (3, 4), (6, 8)])
def test_what_is_not_finite_stays_so(number, at, always, x64):
    """At least the same results as PyTorch's, and no other image."""
    case = CASES["odd"]
    for which in (0, 1, 2):
        arrays = case.arrays()
        row, column = (min(i, n - 1) for i, n in zip(at, arrays[which].shape[2:], strict=True))
        arrays[which][1, 2, row, column] = number
        finite = [np.isfinite(a) for a in jax.jit(fast_on_cpu(case.jax))(*arrays)]
        for theirs, ours in zip(case.torch(*arrays), finite, strict=True):
            assert not np.any(ours & ~np.isfinite(theirs.numpy()))
        if which != 1:  # not of the filters
            assert all(np.all(images[[0, 2, 3]]) for images in finite[:2])


# Around it.


def test_another_result_of_another_dtype(x64):
    """The transforms would be rounded first."""
    x, w = (a.astype(np.float32) for a in PLAIN.arrays()[:2])

    def fn(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", preferred_element_type="float64"
        )

    assert_in_step(jax.jit(fn)(x, w), jax.jit(fast_on_cpu(fn))(x, w))


def test_other_devices_could_have_examples(monkeypatch):
    """Where the batch may be split without a ``shard_map`` nothing is taken apart."""
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    for name in ("few products", "few products, in parts", "stride, in parts"):
        assert as_made(AS_MADE[name][0]) == (3, 0, 0)


def test_replicas_have_their_own(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = P("data"), P(), P("data")
    arrays = [jax.ShapeDtypeStruct(a.shape, jnp.float32) for a in PLAIN.arrays()]
    mapped = jax.shard_map(
        lambda *args: fast_on_cpu(PLAIN.jax)(*args)[:2],
        mesh=mesh,
        in_specs=specs,
        out_specs=(P("data"), P("data")),
        check_vma=False,
    )
    text = str(jax.make_jaxpr(mapped)(*arrays))
    assert "conv_general_dilated[" not in text and "dot_general[" in text


def test_derivatives_of_it(always, x64):
    case = CASES["odd"]
    x, w, dy = map(jnp.asarray, case.arrays())

    def slope(form):
        return jax.jvp(lambda x: form(case.jax)(x, w, dy)[2], (x,), (jnp.sin(x),))[1]

    assert_in_step(slope(lambda fn: fn), jax.jit(lambda: slope(fast_on_cpu))())


def test_mapped(always, x64):
    case = CASES["even"]
    arrays = [jnp.stack([a, 2 * a]) for a in map(jnp.asarray, case.arrays())]
    right = jax.jit(jax.vmap(case.jax))(*arrays)
    for theirs, ours in zip(
        right, jax.jit(jax.vmap(fast_on_cpu(case.jax)))(*arrays), strict=True
    ):
        assert_in_step(theirs, ours)


def test_over_axes_of_a_mesh(always, x64):
    """Inside of a ``jax.shard_map`` that checks what varies."""
    case = CASES["even"]
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = P("data"), P(), P("data")
    arrays = [jnp.asarray(a) for a in case.arrays()]

    def fn(x, w, dy):
        y, dx, dw = fast_on_cpu(case.jax)(x, jax.lax.pcast(w, "data", to="varying"), dy)
        return y, dx, jax.lax.psum(dw, "data")

    mapped = jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=(P("data"), P("data"), P()))
    for theirs, ours in zip(case.jax(*arrays), jax.jit(mapped)(*arrays), strict=True):
        assert_in_step(theirs, ours)


def test_a_batch_of_any_size_is_exported(always):
    (b,) = jax.export.symbolic_shape("b")
    case = CASES["even"]
    x, w, dy = case.arrays(np.float32)
    free = [jax.ShapeDtypeStruct((b, *a.shape[1:]), a.dtype) for a in (x, dy)]
    exported = jax.export.export(jax.jit(fast_on_cpu(case.jax)))(free[0], w, free[1])
    for theirs, ours in zip(case.jax(x, w, dy), exported.call(x, w, dy), strict=True):
        assert_in_step(theirs, ours)


def test_a_step_that_accumulates(x64):
    """Large enough as it is, in the loop over microbatches."""
    x, w, _ = PLAIN.arrays()
    tx = instep.optim.sgd(1e-3)

    def loss_fn(params, x):
        return jnp.mean(ops.conv2d(x, params["w"], padding=1) ** 2)

    step = instep.make_train_step(loss_fn, tx, accumulate=2, donate=False)
    windows = jnp.stack([x, 2 * x])
    text = step.lower(instep.init_state({"w": w}, tx), windows).as_text()
    assert "stablehlo.convolution" not in text
    state, _ = step(instep.init_state({"w": w}, tx), windows)

    tw = torch.tensor(w, requires_grad=True)
    opt = torch.optim.SGD([tw], 1e-3)
    for part in np.asarray(windows):
        (F.conv2d(torch.tensor(part), tw, padding=1).square().mean() / 2).backward()
    opt.step()
    assert_in_step(tw, state.params["w"], "w")
