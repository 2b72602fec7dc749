"""Every operator of our table on the calls of PyTorch's own database, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from conftest import array, assert_in_step
from instep._errors import LoweringError
from instep.bridge import tensor_to_array
from instep.bridge.lower._compile import compile_graph
from instep.bridge.lower._draws import Draws
from instep.bridge.lower._program import run
from ops_cases import cases, entries


@pytest.mark.parametrize("entry", entries())
def test_values_and_gradients(entry, x64):
    for i, case in enumerate(cases(entry)):
        check(case, f"{entry}, call {i}")


def check(case, what):
    """Outputs, and the gradients of every floating input for random cotangents."""
    try:
        program = compile_graph(case.graph())
    except LoweringError as error:
        pytest.skip(str(error))
    arrays = [jnp.asarray(tensor_to_array(x)) for x in case.tensors]
    moving = [i for i, x in enumerate(case.tensors) if x.requires_grad]

    def ours(*differentiated):
        given = list(arrays)
        for i, x in zip(moving, differentiated, strict=True):
            given[i] = x
        named = dict(zip(program.inputs, given, strict=True))
        return jax.tree.leaves(run(program, named, Draws()))

    theirs = [x for x in pytree.tree_leaves(case.function(*case.tensors)) if torch.is_tensor(x)]
    made, pull = jax.vjp(ours, *(arrays[i] for i in moving))
    assert len(made) == len(theirs), what
    for x, y in zip(theirs, made, strict=True):
        assert jnp.asarray(tensor_to_array(x)).dtype == y.dtype, what
        assert x.shape == y.shape, what
        _same(x, y, what)
    if not any(x.requires_grad for x in theirs):
        return
    noise = np.random.default_rng(0)
    cotangents = [noise.normal(size=x.shape) for x in theirs]
    torch.autograd.backward(
        [x for x in theirs if x.requires_grad],
        [
            torch.tensor(c, dtype=x.dtype)
            for x, c in zip(theirs, cotangents, strict=True)
            if x.requires_grad
        ],
    )
    grads = pull(
        [
            jnp.asarray(c, y.dtype)
            if jnp.issubdtype(y.dtype, jnp.inexact)
            else np.zeros(y.shape, jax.dtypes.float0)
            for c, y in zip(cotangents, made, strict=True)
        ]
    )
    for i, grad in zip(moving, grads, strict=True):
        expected = case.tensors[i].grad
        _same(
            torch.zeros_like(case.tensors[i]) if expected is None else expected,
            grad,
            f"{what}, gradient of input {i}",
        )


def _same(theirs, ours, what):
    if array(theirs).dtype.kind in "fc":
        assert_in_step(theirs, ours, what, finite=False)
    else:
        np.testing.assert_array_equal(array(theirs), np.asarray(ours), err_msg=what)
