"""Indexing and scattering: what PyTorch's database does not call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from conftest import assert_in_step
from instep import ops
from instep.bridge import tensor_to_array
from instep.bridge.lower._compile import compile_graph
from instep.bridge.lower._draws import Draws
from instep.bridge.lower._program import run
from ops_cases import Case
from ops_check import check


aten = torch.ops.aten
NAN, INF = float("nan"), float("inf")


def floats(*shape, seed=0):
    numbers = np.random.default_rng(seed).normal(size=shape)
    return torch.tensor(numbers, requires_grad=True)


def integers(*numbers):
    return torch.tensor(numbers)


X, Y = (4, 5, 3), (3, 3)
TWICE, PAIR = integers(0, -1, 0), integers([1], [2])
MASK = torch.tensor([True, False, True, True])
MASK2 = torch.tensor(np.random.default_rng(0).integers(0, 2, (4, 5)).astype(bool))
READS = {
    "one axis, twice": lambda x: x[TWICE],
    "two axes": lambda x: x[TWICE, integers(4, 0, 4)],
    "broadcast": lambda x: x[PAIR, TWICE],
    "around an axis": lambda x: x[TWICE, :, integers(2, 0, 2)],
    "last axes": lambda x: x[:, PAIR, TWICE],
    "middle axis": lambda x: x[:, PAIR],
    "no axes": lambda x: aten.index(x, [None, torch.tensor(-1)]),
    "nothing": lambda x: x[:, torch.tensor([], dtype=torch.int64)],
    "narrow integers": lambda x: aten.index(x, [TWICE.to(torch.int32)]),
    "constant mask": lambda x: x[torch.tensor([True, False, True, True])],
    "constant mask of two axes": lambda x: x[
        torch.tensor([[True, False, True, False, True]] * 4), :
    ],
    "constant mask, later": lambda x: x[:, torch.tensor([True, False, True, True, False])],
    "mask and index": lambda x: x[torch.tensor([True, False, True, True]), TWICE],
    "select none": lambda x: x.index_select(1, TWICE[:0]),
    "select": lambda x: x.index_select(-1, integers(2, 2, 0)),
    "gather fewer": lambda x: x.gather(1, integers([[4, 0], [4, 4]])),
    "gather none": lambda x: x.gather(0, torch.zeros(0, 5, 3, dtype=torch.int64)),
    "take": lambda x: x.take(integers([59, -1], [0, -60])),
    "take_along_dim": lambda x: x.take_along_dim(integers([[0, 0, -1]]), 1),
    "take_along_dim, flat": lambda x: x.take_along_dim(integers(7, 7)),
}


@pytest.mark.parametrize("what", READS)
def test_a_read(what, x64):
    check(Case(what, READS[what], (floats(*X),)), what)


V = (3, 5, 3)
WRITES = {  # of values that are broadcast to V, at TWICE where nothing is said
    "put": lambda x, v: x.index_put((TWICE,), v),
    "put, added": lambda x, v: x.index_put((TWICE,), v, accumulate=True),
    "put one value": lambda x, v: x.index_put((TWICE,), v[0, 0, 0]),
    "put, two axes": lambda x, v: x.index_put((TWICE, integers(4, 0, 4)), v[0, 0]),
    "put, last axis": lambda x, v: aten.index_put(x, [None, None, TWICE], v[0]),
    "put, around an axis": lambda x, v: aten.index_put(x, [TWICE, None, TWICE], v[:, :, 0]),
    "mask, one value": lambda x, v: x.index_put((MASK,), v[0, 0, 0]),
    "mask, a row": lambda x, v: x.index_put((MASK,), v[0, 0]),
    "mask, slices": lambda x, v: x.index_put((MASK,), v[:1]),
    "mask, added": lambda x, v: x.index_put((MASK,), v[0], accumulate=True),
    "mask of two axes": lambda x, v: x.index_put((MASK2,), v[0, 0]),
    "mask of later axes": lambda x, v: aten.index_put(
        x, [None, MASK2[:, :3].T[:, [0, 1, 2, 3, 3]].T], v[0, :1, :1]
    ),
    "put flat": lambda x, v: x.put(integers([0, -1], [0, 7]), v[:2, :2, 0]),
    "put flat, added": lambda x, v: x.put(integers(0, -1, 0), v[0, 0], accumulate=True),
    "index_add": lambda x, v: x.index_add(0, integers(0, 3, 0), v, alpha=-2),
    "index_copy": lambda x, v: x.index_copy(0, integers(0, 3, 0), v),
    "index_fill": lambda x, v: x.index_fill(0, integers(0, 3, 0), v[0, 0, 0]),
    "scatter": lambda x, v: x.scatter(1, integers([[4, 0, 4], [1, 1, 1]]), v[:1, :2]),
    "scatter a number": lambda x, v: x.scatter(0, integers([[3, 0, 3]]), 2.5),
    "scatter nothing": lambda x, v: x.scatter(0, TWICE[:0, None, None].expand(0, 5, 3), v[:0]),
    "scatter_add": lambda x, v: x.scatter_add(-1, integers([[2, 0, 2], [1, 1, 1]]), v[:1, :2]),
    "slice_scatter": lambda x, v: torch.slice_scatter(x, v[:2], 0, -3, 99, 2),
    "slice_scatter of one": lambda x, v: torch.slice_scatter(x, v, 0, -3, 99),
    "slice_scatter of none": lambda x, v: torch.slice_scatter(x, v[:0], 0, 2, 2, 2),
    "select_scatter": lambda x, v: torch.select_scatter(x, v[:, :, 0].mT, 0, -1).mT,
    "diagonal_scatter": lambda x, v: torch.diagonal_scatter(x, v[0], 1, 2, 0),
    "masked_scatter": lambda x, v: x.masked_scatter(MASK2[..., None], v),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_write(what, x64):
    x, v = floats(*X), floats(*V, seed=1)
    if what == "select_scatter":
        v = floats(3, 5, 1, seed=1)
    check(Case(what, WRITES[what], (x, v)), what)


TIES = [  # the input, and values for its elements 0, 0, 1, 1, 2
    ([1.0, 5.0, 0.0, 3.0], [1.0, 1.0, 5.0, 2.0, 0.0]),
    ([2.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0, 4.0]),
    ([NAN, 1.0, INF, NAN], [1.0, 2.0, NAN, 1.0, INF]),
]
AT = integers(0, 0, 1, 1, 2)


@pytest.mark.parametrize("ties", range(len(TIES)))
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "amax", "amin"])
def test_a_reduction_at_ties_and_zeros(reduce, include_self, ties, x64):
    x, v = (torch.tensor(numbers, requires_grad=True) for numbers in TIES[ties])

    def function(x, v):
        return x.scatter_reduce(0, AT, v, reduce, include_self=include_self)

    check(Case(reduce, function, (x, v)), reduce)


@pytest.mark.parametrize("reduce", ["prod", "amax"])
def test_the_second_derivative_of_a_reduction(reduce, x64):
    x, v = floats(4), floats(5, seed=1)
    noise = np.random.default_rng(2).normal(size=(3, 5))
    c, dx, dv = noise[0, :4], noise[1, :4], noise[2]

    def loss(x, v):
        return (torch.tensor(c) * x.scatter_reduce(0, AT, v, reduce) ** 2).sum()

    first = torch.autograd.grad(loss(x, v), (x, v), create_graph=True)
    along = (first[0] * torch.tensor(dx)).sum() + (first[1] * torch.tensor(dv)).sum()
    theirs = torch.autograd.grad(along, (x, v))

    def our_loss(x, v):
        return jnp.sum(c * ops.scatter_reduce(x, 0, jnp.asarray(AT.numpy()), v, reduce) ** 2)

    def our_along(x, v):
        first = jax.grad(our_loss, (0, 1))(x, v)
        return jnp.sum(first[0] * dx) + jnp.sum(first[1] * dv)

    given = (jnp.asarray(tensor_to_array(t)) for t in (x, v))
    for a, b in zip(theirs, jax.grad(our_along, (0, 1))(*given), strict=True):
        assert_in_step(a, b, reduce)


DTYPES = {
    "integers": (torch.int64, lambda x: x.scatter_reduce(0, AT, x[AT.flip(0)], "mean")),
    "integers, smallest": (
        torch.int32,
        lambda x: x.scatter_reduce(0, AT, x[AT], "amin", include_self=False),
    ),
    "bfloat16": (torch.bfloat16, lambda x: x.scatter_add(0, AT, x[AT])),
    "booleans": (torch.bool, lambda x: x.index_put((AT,), x[AT.flip(0)])),
    "isin": (torch.int32, lambda x: torch.isin(x, torch.tensor([1.0, 7.0]))),
    "isin, the others": (torch.float64, lambda x: torch.isin(x, 1, invert=True)),
    "nonzero_static": (torch.int64, lambda x: torch.nonzero_static(x.view(2, 2), size=3)),
    "nonzero_static, filled": (
        torch.bool, lambda x: torch.nonzero_static(x, size=6, fill_value=-7),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DTYPES)
def test_a_dtype(what, x64):
    dtype, function = DTYPES[what]
    x = torch.tensor([-3, 0, 1, 7]).to(dtype)
    theirs, ours = tensor_to_array(function(x)), ran(function, x)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def ran(function, *tensors):
    program = compile_graph(Case("", function, tensors).graph())
    arrays = [jnp.asarray(tensor_to_array(x)) for x in tensors]
    return run(program, dict(zip(program.inputs, arrays, strict=True)), Draws())


def test_no_number_is_made_up_for_an_index_out_of_range():
    x, far = jnp.arange(3.0), jnp.array([1, 3, -4])
    for read in (
        ops.index(x, [far]),
        ops.index_select(x, 0, far),
        ops.gather(x, 0, far),
        ops.take(x, far),
        ops.take_along_dim(x, far, 0),
    ):
        np.testing.assert_array_equal(read, [1, NAN, NAN])
    for written in (
        ops.index_put(x, [far], jnp.full(3, 9.0)),
        ops.scatter(x, 0, far, jnp.full(3, 9.0)),
        ops.scatter_reduce(x, 0, far, jnp.full(3, 9.0), "amax"),
    ):
        np.testing.assert_array_equal(written, [0, 9, 2])


def test_what_depends_on_data_is_refused():
    x, mask = jnp.arange(3.0), jnp.array([True, False, True])
    with pytest.raises(NotImplementedError, match="Use torch.where"):
        ops.index(x, [mask])
    with pytest.raises(NotImplementedError, match=r"values of shape \(2,\) with a mask"):
        ops.index_put(x, [mask], jnp.ones(2))
    with pytest.raises(NotImplementedError, match="reduce is 'median'"):
        ops.scatter_reduce(x, 0, jnp.array([0]), x, "median")
