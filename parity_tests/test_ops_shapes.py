"""Views, joins, casts, new and random tensors: what PyTorch's database does not call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from instep import ops
from instep.bridge import tensor_to_array
from instep.bridge.lower._compile import compile_graph
from instep.bridge.lower._draws import Draws
from instep.bridge.lower._program import run
from ops_cases import Case
from ops_check import check


def floats(*shape):
    numbers = np.random.default_rng(0).normal(size=shape)
    return torch.tensor(numbers, requires_grad=True)


NAN, INF = float("nan"), float("inf")
X, ROW, SCALAR, EMPTY = (4, 6), (5,), (), (3, 0)
VIEWS = {  # the shape of the input, and what becomes of it
    "squeeze keeps other lengths": ((1, 3, 1), lambda x: x.squeeze((0, 1))),
    "squeeze a negative axis": ((1, 3, 1), lambda x: x.squeeze(-1)),
    "squeeze of no axis": (SCALAR, lambda x: x.squeeze(-1)),
    "flatten no axis": (SCALAR, torch.flatten),
    "flatten the middle": ((2, 3, 4, 5), lambda x: x.flatten(1, -2)),
    "unflatten an empty axis": (EMPTY, lambda x: x.unflatten(1, (-1, 2))),
    "view of nothing": (EMPTY, lambda x: x.view(0, 5)),
    "expand in front": ((3, 1), lambda x: x.expand(2, -1, 4)),
    "slice beyond the ends": (X, lambda x: x[-9:99:3]),
    "slice backwards is empty": (X, lambda x: x[3:1]),
    "slice from the end": (X, lambda x: x[:, -4:-1:2]),
    "select from the end": (X, lambda x: x.select(-1, -2)),
    "narrow from the end": (X, lambda x: x.narrow(1, -3, 2)),
    "split unevenly": (X, lambda x: x.split(4, -1)),
    "split nothing": (EMPTY, lambda x: x.split(2, 1)),
    "chunk into fewer": (X, lambda x: x.chunk(4, 1)),
    "chunk nothing": (EMPTY, lambda x: x.chunk(2, 1)),
    "tensor_split overlapping": (X, lambda x: x.tensor_split((4, 2, -1), 1)),
    "tensor_split unevenly": (X, lambda x: x.tensor_split(4, 1)),
    "unbind nothing": (EMPTY, lambda x: (x.clone(), *x.unbind(1))),
    "unfold overlapping": (X, lambda x: x.unfold(-1, 3, 2)),
    "unfold all": (X, lambda x: x.unfold(0, 4, 1)),
    "unfold in blocks, with a rest": (X, lambda x: x.unfold(1, 4, 4)),
    "unfold no axis": (SCALAR, lambda x: x.unfold(0, 1, 1)),
    "as_strided overlapping": (X, lambda x: x.as_strided((3, 2, 4), (6, 1, 2), 1)),
    "as_strided expanded": (X, lambda x: x.as_strided((3, 4), (0, 1))),
    "diagonal above": ((2, 4, 3), lambda x: x.diagonal(1, -1, 0)),
    "diagonal beyond": (X, lambda x: x.diagonal(6)),
    "diag_embed below": ((2, 3), lambda x: x.diag_embed(-2, 0, -2)),
    "tril below": ((2, 4, 3), lambda x: x.tril(-2)),
    "triu above": ((2, 4, 3), lambda x: x.triu(2)),
    "roll flat": (X, lambda x: x.roll(-7)),
    "roll axes": (X, lambda x: x.roll((1, -2), (0, 1))),
    "repeat in front": (ROW, lambda x: x.repeat(2, 0, 3)),
    "repeat_interleave flat": (X, lambda x: x.repeat_interleave(2)),
    "repeat_interleave varied": (
        X,
        lambda x: x.repeat_interleave(torch.tensor([0, 3, 1, 2]), 0, output_size=6),
    ),
    "movedim": ((2, 3, 4), lambda x: x.movedim((0, -1), (-1, 0))),
    "T of more axes": ((2, 3, 4), lambda x: x.permute(2, 1, 0).mT),
    "empty cat": (EMPTY, lambda x: torch.cat([torch.zeros(0), x, x], -1)),
    "hstack of vectors": (ROW, lambda x: torch.hstack([x, x[:2]])),
    "dstack of vectors": (ROW, lambda x: torch.dstack([x, x])),
    "column_stack mixed": (ROW, lambda x: torch.column_stack([x, x[:, None]])),
    "block_diag of all ranks": (ROW, lambda x: torch.block_diag(x[0], x, x[:4].view(2, 2))),
    "cartesian_prod": (ROW, lambda x: torch.cartesian_prod(x, x[:2])),
    "combinations of one": (ROW, lambda x: torch.combinations(x, 3, True)),
    "meshgrid xy": (ROW, lambda x: torch.meshgrid(x, x[:2], x[:3], indexing="xy")),
    "detach": (ROW, lambda x: torch.stack([x, x.detach()])),
    "complex": (
        ROW,
        lambda x: torch.view_as_real(torch.complex(x, x.flip(0)).conj().resolve_conj()),
    ),
    "polar": (ROW, lambda x: torch.view_as_real(torch.polar(x.abs(), x))),
    "view_as_complex": ((3, 2), lambda x: torch.view_as_complex(x).imag),
    "adjoint": (
        (3, 2, 2),
        lambda x: torch.view_as_real(torch.view_as_complex(x).mH.resolve_conj()),
    ),
}


@pytest.mark.parametrize("what", VIEWS)
def test_a_view(what, x64):
    shape, function = VIEWS[what]
    check(Case(what, function, (floats(*shape),)), what)


HALF, WHOLE = torch.tensor([1.5, -2.5]).bfloat16(), torch.tensor([1, -2, 300])
CASTS = {
    "to fewer bits, modulo": (torch.tensor([300.7, -1.9, 1e4]), lambda x: x.to(torch.int8)),
    "to uint8, modulo": (torch.tensor([300.7, -1.9, 1e4]), lambda x: x.to(torch.uint8)),
    "integers, modulo": (WHOLE, lambda x: x.to(torch.int8)),
    "to boolean": (torch.tensor([0.0, -0.0, NAN, 0.3]), lambda x: x.to(torch.bool)),
    "from boolean": (torch.tensor([True, False]), lambda x: x.to(torch.bfloat16)),
    "complex to real": (torch.tensor([1 + 2j]), lambda x: x.to(torch.float32)),
    "of float64 to bfloat16": (torch.tensor([1.00390625]), lambda x: x.bfloat16()),
    "to infinity": (torch.tensor([1e6, -1e6]), lambda x: x.to(torch.float16)),
    "cat promotes": (WHOLE, lambda x: torch.cat([x, HALF])),
    "stack promotes": (WHOLE, lambda x: torch.stack([x, x.to(torch.uint8)])),
    "copy casts": (WHOLE, lambda x: torch.ops.aten.copy(HALF.expand(3, 2), x[:2])),
    "fill casts": (WHOLE, lambda x: torch.ops.aten.fill(x, 2.7)),
    "type_as": (WHOLE, lambda x: x.type_as(HALF)),
    "full_like casts": (WHOLE, lambda x: torch.full_like(x, -2.7)),
    "tril of NaN": (torch.full((2, 2), NAN), lambda x: x.tril()),
    "bits of float32": (torch.tensor([[1.0, -0.0]]).float(), lambda x: x.view(torch.int32)),
    "fewer bits": (torch.tensor([[1.0, 3.0]]).float(), lambda x: x.view(torch.int16)),
    "more bits": (torch.arange(8).to(torch.uint8).view(2, 4), lambda x: x.view(torch.int16)),
    "angle": (torch.tensor([-1.0, 0.0, -0.0, NAN, -INF]), torch.angle),
    "angle of an integer": (WHOLE, torch.angle),
    "one_hot": (torch.tensor([[0, 2]]), lambda x: torch.nn.functional.one_hot(x, 3)),
    "arange": (WHOLE, lambda x: torch.arange(7, 1, -2)),
    "arange of floats": (WHOLE, lambda x: torch.arange(1, 2, 0.1, dtype=torch.float32)),
    "arange counts in float64": (WHOLE, lambda x: torch.arange(0, 1.2, 0.1)),
    "arange to integers": (WHOLE, lambda x: torch.arange(0.0, 3.5, dtype=torch.int64)),
    "arange of bfloat16": (WHOLE, lambda x: torch.arange(300, dtype=torch.bfloat16)),
    "linspace of one": (WHOLE, lambda x: torch.linspace(2, 5, 1)),
    "linspace of none": (WHOLE, lambda x: torch.linspace(2, 5, 0)),
    "linspace of integers": (WHOLE, lambda x: torch.linspace(-3, 9, 6, dtype=torch.int64)),
    "linspace of float32": (WHOLE, lambda x: torch.linspace(-1, 1, 33, dtype=torch.float32)),
    "full of boolean": (WHOLE, lambda x: torch.full((2,), True)),
    "full of integer": (WHOLE, lambda x: torch.full((2,), 3)),
    "scalar_tensor": (WHOLE, lambda x: torch.scalar_tensor(3)),
    "tril_indices": (WHOLE, lambda x: torch.tril_indices(3, 4, -1)),
    "triu_indices": (WHOLE, lambda x: torch.triu_indices(3, 4, 1, dtype=torch.int32)),
}


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
@pytest.mark.parametrize("what", CASTS)
def test_a_dtype(what, x64):
    given, function = CASTS[what]
    theirs = tensor_to_array(function(given))
    ours = program_of(function, given)(None)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def program_of(function, *tensors):
    program = compile_graph(Case("", function, tensors).graph())
    arrays = [jnp.asarray(tensor_to_array(x)) for x in tensors]
    given = dict(zip(program.inputs, arrays, strict=True))
    return lambda key: run(program, given, Draws(key))


N = 4000
HALVES = torch.zeros(N, dtype=torch.bfloat16)
RANDOM = {  # each with a mean and a deviation that are known
    "rand": (lambda x: torch.rand(N), 0.5, 12**-0.5),
    "rand_like": (lambda x: torch.rand_like(HALVES), 0.5, 12**-0.5),
    "randn": (lambda x: torch.randn(N, dtype=torch.float32), 0, 1),
    "randn_like": (torch.randn_like, 0, 1),
    "randint": (lambda x: torch.randint(-2, 3, (N,)), 0, 2**0.5),
    "randint_like": (lambda x: torch.randint_like(x, 3), 1, (2 / 3) ** 0.5),
    "randperm": (lambda x: torch.randperm(N), (N - 1) / 2, N / 12**0.5),
    "normal, of tensors": (lambda x: torch.normal(x, torch.full_like(x, 2)), 0, 2),
    "normal, broadcast": (lambda x: torch.normal(x[:2, None], torch.ones(N)), 0, 1),
    "normal, of a number": (lambda x: torch.normal(3.0, torch.full_like(x, 2)), 3, 2),
    "normal, of a shape": (lambda x: torch.normal(3.0, 2.0, (N,)), 3, 2),
    "normal_functional": (lambda x: torch.ops.aten.normal_functional(x, 3.0, 2.0), 3, 2),
    "bernoulli": (lambda x: torch.bernoulli(torch.full_like(x, 0.2)), 0.2, 0.4),
    "bernoulli, p": (lambda x: torch.ops.aten.bernoulli.p(x, 0.2), 0.2, 0.4),
    "uniform": (lambda x: torch.ops.aten.uniform(x, -1.0, 3.0), 1, 4 / 12**0.5),
    "exponential": (lambda x: torch.ops.aten.exponential(x, 0.5), 2, 2),
    "geometric": (lambda x: torch.ops.aten.geometric(x, 0.5), 2, 2**0.5),
    "log_normal": (lambda x: torch.ops.aten.log_normal(x, 0.0, 0.25), 1.032, 0.262),
    "multinomial": (
        lambda x: torch.multinomial(torch.tensor([2.0, 0.0, 2.0]), N, True), 1, 1,
    ),
    "random": (lambda x: torch.ops.aten.random.to(x, 5), 2, 2**0.5),
}  # fmt: skip


@pytest.mark.parametrize("what", RANDOM)
def test_a_random_operator(what, x64):
    function, mean, deviation = RANDOM[what]
    x = torch.zeros(N)
    theirs, draw = function(x), program_of(function, x)
    ours, again, other = (draw(jax.random.key(seed)) for seed in (0, 0, 1))
    assert theirs.shape == ours.shape
    assert tensor_to_array(theirs).dtype == ours.dtype
    np.testing.assert_array_equal(ours, again)
    assert np.any(np.asarray(ours != other))
    values = np.asarray(ours, float).ravel()
    assert abs(values.mean() - mean) < 5 * deviation / len(values) ** 0.5
    assert abs(values.std() - deviation) < 0.1 * deviation


def test_cauchy_has_its_quartiles(x64):
    draw = program_of(lambda x: torch.ops.aten.cauchy(x, 1.0, 2.0), torch.zeros(N))
    quartiles = np.quantile(draw(jax.random.key(0)), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [-1, 1, 3], atol=0.3)


def test_multinomial_is_that_of_the_same_numbers(x64):
    weights = torch.tensor([[0.1, 0.2, 0.7, 0.0], [3.0, 1.0, 1.0, 2.0]])
    noise = torch.rand(2, 4)
    w, u = (jnp.asarray(x.numpy()) for x in (weights, noise))
    exponential = -torch.log1p(-noise)
    np.testing.assert_array_equal(
        ops.multinomial(u, w), (weights / exponential).argsort(-1, descending=True)
    )
    share = weights.cumsum(-1) / weights.sum(-1, keepdim=True)
    np.testing.assert_array_equal(
        ops.multinomial(u, w, replacement=True), torch.searchsorted(share, noise)
    )


def test_what_depends_on_data_is_refused(x64):
    with pytest.raises(NotImplementedError, match="num_classes is -1"):
        ops.one_hot(jnp.arange(3))
    with pytest.raises(NotImplementedError, match="Give output_size"):
        ops.repeat_interleave(jnp.arange(3), jnp.arange(3))
    with pytest.raises(NotImplementedError, match="complex128 has no bits"):
        ops.view_dtype(jnp.ones(2, complex), float)
    with pytest.raises(IndexError, match="dim is 2; there are 2 axes"):
        ops.flatten(jnp.ones((2, 2)), 2)


def test_without_x64_64_bits_are_32():
    assert ops.cast(jnp.ones(2), np.int64).dtype == jnp.int32
    assert ops.arange(0, 3).dtype == ops.one_hot(jnp.arange(2), 2).dtype == jnp.int32
    assert ops.tril_indices(2, 2).dtype == jnp.int32
    assert ops.linspace(0, 1, 3, dtype=np.float64).dtype == jnp.float32
    assert ops.full((), 2.0, dtype=np.float64).dtype == jnp.float32
