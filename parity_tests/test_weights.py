"""Weights across: exact round trips, and every leaf matched exactly once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from conftest import assert_bitwise, assert_in_step
from instep import bridge
from instep._trees import named_leaves
from instep.bridge import match_weights as match
from instep.workloads import digits_cnn, digits_mlp


def both_sides(workload):
    pair = workload.WORKLOAD.make_pair()
    torch_arrays = {n: t.detach().numpy() for n, t in pair.torch.model.state_dict().items()}
    return torch_arrays, pair.jax.params, pair.jax.buffers


@pytest.mark.parametrize("workload", [digits_cnn, digits_mlp])
def test_round_trip_to_the_bit(workload):
    arrays, params, buffers = both_sides(workload)
    links = match(workload.WEIGHTS, arrays, named_leaves(params) | named_leaves(buffers))
    there = [bridge.weights_to_jax(links, arrays, tree) for tree in (params, buffers)]
    back = bridge.weights_to_torch(links, there[0]) | bridge.weights_to_torch(links, there[1])
    assert_bitwise(dict(sorted(back.items())), dict(sorted(arrays.items())))
    for tree, like in zip(there, (params, buffers), strict=True):
        assert jax.tree.structure(tree) == jax.tree.structure(like)
        assert jax.tree.map(np.shape, tree) == jax.tree.map(np.shape, like)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_conv_computes_the_same(dims, x64):
    theirs = getattr(torch.nn, f"Conv{dims}d")(3, 4, 2)
    ours = nnx.Conv(3, 4, (2,) * dims, padding="VALID", rngs=nnx.Rngs(0), param_dtype=float)
    graphdef, params = nnx.split(ours, nnx.Param)
    arrays = {f"conv.{n}": t.detach().numpy() for n, t in theirs.state_dict().items()}
    links = match([bridge.conv("conv")], arrays, named_leaves({"conv": params}))
    params = bridge.weights_to_jax(links, arrays, {"conv": params})["conv"]
    x = np.random.default_rng(0).normal(size=(2, 3, *[5] * dims))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        y = nnx.merge(graphdef, params)(jnp.asarray(np.moveaxis(x, 1, -1)))
    assert_in_step(theirs(torch.tensor(x)), np.moveaxis(y, -1, 1))


def test_a_square_weight_is_transposed_like_any_other():
    w = np.arange(9.0).reshape(3, 3)
    links = match(
        [bridge.linear("fc")],
        {"fc.weight": w, "fc.bias": w[0]},
        {"fc.kernel": w, "fc.bias": w[0]},
    )
    tree = bridge.weights_to_jax(
        links, {"fc.weight": w, "fc.bias": w[0]}, {"fc": {"kernel": 0, "bias": 0}}
    )
    np.testing.assert_array_equal(tree["fc"]["kernel"], w.T)
    np.testing.assert_array_equal(tree["fc"]["bias"], w[0])


def test_a_layer_without_bias_needs_no_other_rule():
    arrays = {"fc.weight": np.ones((2, 3))}
    links = match([bridge.linear("fc")], arrays, {"fc.kernel": np.ones((3, 2))})
    assert [link.torch for link in links] == ["fc.weight"]


W, B = np.ones((2, 3)), np.ones(2)
TORCH = {"fc.weight": W, "fc.bias": B}
JAX = {"fc.kernel": W.T, "fc.bias": B}


@pytest.mark.parametrize(
    ("rules", "torch_side", "jax_side", "message"),
    [
        ([], TORCH, JAX, r"PyTorch leaf 'fc.weight' has no rule"),
        ([], TORCH, JAX, r"JAX leaf 'fc.kernel' has no rule"),
        ([bridge.linear("fc")] * 2, TORCH, JAX, r"PyTorch leaf 'fc.weight' has 2 rules"),
        ([bridge.linear("fc")], TORCH, {"fc.kernel": W.T}, r"no leaf 'fc.bias', which a rule"),
        ([bridge.linear("fc")], TORCH, {**JAX, "x": B}, r"JAX leaf 'x' has no rule"),
        ([bridge.linear("fc", "head")], TORCH, JAX, r"JAX has no leaf 'head.kernel'"),
        (
            [bridge.tensor("fc.weight", "fc.kernel"), bridge.tensor("fc.bias")],
            TORCH,
            JAX,
            r"'fc.weight' \(2, 3\) in same layout is \(2, 3\), but 'fc.kernel' is \(3, 2\)",
        ),
        (
            [bridge.linear("fc", flattened=(2, 5, 5))],
            TORCH,
            JAX,
            r"'fc.weight' \(2, 3\) in .*channels last, out\) is None, but",
        ),
    ],
)
def test_unmatched_and_doubly_matched_leaves_are_listed(rules, torch_side, jax_side, message):
    with pytest.raises(ValueError, match=message) as raised:
        match(rules, torch_side, jax_side)
    assert "PyTorch has: fc.weight (2, 3), fc.bias (2,)" in str(raised.value)
    assert "JAX has: fc.kernel (3, 2)" in str(raised.value)
