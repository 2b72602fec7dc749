"""Weights across: exact round trips, the same forward pass, every leaf matched once."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from conftest import array, assert_bitwise, assert_in_step
from instep import bridge
from instep.bridge import match_weights as match
from instep.workloads import digits_cnn, digits_mlp
from layers import CASES, MATRIX, SIDES, random_torch, random_tree


def tensors(module: nn.Module) -> dict[str, np.ndarray]:
    return {n: array(t).copy() for n, t in module.state_dict().items()}


def set_up(name: str, flavour: str):
    """The case, its PyTorch module, and params, buffers and forward of its Flax layer."""
    case = CASES[name]
    return case, random_torch(case.torch()), *SIDES[flavour](case)


@pytest.mark.parametrize(("name", "flavour"), MATRIX)
def test_round_trips_to_the_bit(name, flavour, x64):
    case, module, params, buffers, _ = set_up(name, flavour)
    weights = match([case.rule()], module, params, buffers)
    there = bridge.weights_to_jax(weights, module.state_dict(), params)
    stats = bridge.weights_to_jax(weights, module, buffers)
    assert jax.tree.structure((there, stats)) == jax.tree.structure((params, buffers))
    assert jax.tree.map(np.shape, there) == jax.tree.map(np.shape, params)
    back = bridge.weights_to_torch(weights, there, stats)
    want = {n: a for n, a in tensors(module).items() if n not in weights.alone}
    assert back.keys() == want.keys()
    if case.exact:
        assert_bitwise(dict(sorted(back.items())), dict(sorted(want.items())))
    assert bool(weights.inexact) is not case.exact

    params, buffers = random_tree((params, buffers))
    arrays = bridge.weights_to_torch(weights, params, buffers)
    assert_bitwise(bridge.weights_to_jax(weights, arrays, params), params)
    assert_bitwise(bridge.weights_to_jax(weights, arrays, buffers), buffers)


@pytest.mark.parametrize(("name", "flavour"), MATRIX)
def test_the_layer_computes_the_same(name, flavour, x64):
    case, module, params, buffers, forward = set_up(name, flavour)
    weights = match([case.rule()], module, params, buffers)
    params = bridge.weights_to_jax(weights, module, params)
    buffers = bridge.weights_to_jax(weights, module, buffers)
    inputs = case.inputs(np.random.default_rng(0).normal(size=case.x))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params, buffers = jax.tree.map(jnp.asarray, (params, buffers))
        ours = forward(params, buffers, *map(jnp.asarray, inputs))
    first = (lambda x: np.moveaxis(x, -1, 1)) if case.spatial else (lambda x: x)
    theirs = module(*(torch.tensor(first(x)) for x in inputs))
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    assert_in_step(theirs, first(np.asarray(ours)), name)


@pytest.mark.parametrize(
    ("name", "flavour"),
    [case for case in MATRIX if "transpose_kernel" not in case[0]],  # which no name tells
)
def test_auto_finds_what_the_rule_says(name, flavour, x64):
    case, module, params, buffers, _ = set_up(name, flavour)
    auto, rule = (match(r, module, params, buffers) for r in ("auto", [case.rule()]))
    assert [(x.torch, x.jax, x.layout.name) for x in auto.links] == [
        (x.torch, x.jax, x.layout.name) for x in rule.links
    ]


@pytest.mark.parametrize("name", CASES)
def test_pytorch_names_keep_pytorch_layout(name):
    """A plain pytree whose leaves are called as PyTorch calls them."""
    module = random_torch(CASES[name].torch())
    arrays = tensors(module)
    kind = CASES[name].rule()
    root = getattr(bridge, kind.kind)
    rule = root("", heads=2) if kind.kind == "multihead_attention" else root("")
    for rules in ([rule], "auto"):
        weights = match(rules, module, arrays)
        assert_bitwise(bridge.weights_to_jax(weights, module, arrays), arrays)
        assert_bitwise(bridge.weights_to_torch(weights, arrays), arrays)


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell])
def test_cells_of_pytorch(cell):
    module = random_torch(cell(3, 4))
    gates = {nn.LSTMCell: 16, nn.GRUCell: 12}[cell]
    tree = {
        "dense_i": {"kernel": np.ones((3, gates)), "bias": np.ones(gates)},
        "dense_h": {"kernel": np.ones((4, gates)), "bias": np.ones(gates)},
    }
    weights = match("auto", module, tree)
    there = bridge.weights_to_jax(weights, module, tree)
    np.testing.assert_array_equal(there["dense_i"]["kernel"], array(module.weight_ih).T)
    np.testing.assert_array_equal(there["dense_h"]["bias"], array(module.bias_hh))


@pytest.mark.parametrize("workload", [digits_cnn, digits_mlp])
def test_round_trip_of_a_model(workload):
    pair = workload.WORKLOAD.make_pair()
    model, params, buffers = pair.torch.model, pair.jax.params, pair.jax.buffers
    weights = match(workload.WEIGHTS, model, params, buffers)
    there = [bridge.weights_to_jax(weights, model, tree) for tree in (params, buffers)]
    back = bridge.weights_to_torch(weights, *there)
    assert_bitwise(dict(sorted(back.items())), dict(sorted(tensors(model).items())))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "int64"])
def test_every_dtype_crosses_to_the_bit(dtype):
    module = nn.Module()
    values = torch.arange(12.0).reshape(3, 4).div(7).to(getattr(torch, dtype))
    module.register_buffer("weight", values)
    weights = match([bridge.linear("")], module, {"kernel": np.ones((4, 3))})
    tree = bridge.weights_to_jax(weights, module, {"kernel": 0})
    assert tree["kernel"].dtype == jnp.dtype(dtype) and tree["kernel"].shape == (4, 3)
    back = bridge.array_to_tensor(bridge.weights_to_torch(weights, tree)["weight"])
    assert back.dtype is values.dtype and torch.equal(back, values)


def test_an_array_of_a_tensor_is_a_copy():
    tensor = torch.zeros(3)
    arrays = bridge.tensor_to_array(tensor), bridge.array_to_tensor(np.zeros(3))
    tensor.fill_(1.0)
    assert not arrays[0].any() and not arrays[1].any()


def test_bfloat16_attention_survives_packing():
    module = nn.MultiheadAttention(4, 2).to(torch.bfloat16)
    shapes = {"kernel": np.ones((4, 2, 2)), "bias": np.ones((2, 2))}
    out = {"kernel": np.ones((2, 2, 4)), "bias": np.ones(4)}
    tree = {"query": shapes, "key": shapes, "value": shapes, "out": out}
    weights = match("auto", module, tree)
    there = bridge.weights_to_jax(weights, module, tree)
    assert there["query"]["kernel"].dtype == ml_dtypes.bfloat16
    back = bridge.weights_to_torch(weights, there)
    for name, tensor in module.state_dict().items():
        assert torch.equal(bridge.array_to_tensor(back[name]), tensor)


def test_what_comes_out_shares_no_memory():
    module = nn.Linear(2, 3)
    weights = match("auto", module, {"weight": np.ones((3, 2)), "bias": np.ones(3)})
    tree = bridge.weights_to_jax(weights, module, {"weight": 0, "bias": 0})
    arrays = bridge.weights_to_torch(weights, tree)
    before = array(module.weight).copy()
    with torch.no_grad():
        module.weight.zero_()
    tree["bias"][:] = 0
    np.testing.assert_array_equal(tree["weight"], before)
    np.testing.assert_array_equal(arrays["weight"], before)
    assert arrays["bias"].any()


W, B = np.arange(6.0).reshape(2, 3), np.ones(2)
SQUARE = np.arange(9.0).reshape(3, 3)


def test_a_square_weight_is_transposed_like_any_other():
    side, like = {"fc.weight": SQUARE}, {"fc": {"kernel": SQUARE}}
    tree = bridge.weights_to_jax(match([bridge.linear("fc")], side, like), side, like)
    np.testing.assert_array_equal(tree["fc"]["kernel"], SQUARE.T)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ({"kernel": "w", "bias": "b"}, W.T),  # w is what Flax calls kernel
        ({"weight": "w", "bias": "b"}, W),  # w is what PyTorch calls weight
    ],
)
def test_names_say_whose_layout_a_leaf_has(names, wanted):
    side, like = {"fc.weight": W, "fc.bias": B}, {"fc": {"w": wanted, "b": B}}
    weights = match([bridge.linear("fc", names=names)], side, like)
    tree = bridge.weights_to_jax(weights, side, like)
    np.testing.assert_array_equal(tree["fc"]["w"], wanted)


def test_a_flattened_layer_in_pytorch_layout():
    w = np.arange(24.0).reshape(2, 12)
    features = np.arange(12.0).reshape(3, 2, 2)  # (C, H, W)
    like = {"weight": np.ones((2, 12))}
    weights = match([bridge.linear("", flattened=(3, 2, 2))], {"weight": w}, like)
    ours = bridge.weights_to_jax(weights, {"weight": w}, like)["weight"]
    last = np.moveaxis(features, 0, -1).ravel()
    np.testing.assert_array_equal(ours @ last, w @ features.ravel())


def test_a_layer_without_bias_needs_no_other_rule():
    links = match([bridge.linear("fc")], {"fc.weight": W}, {"fc.kernel": W.T}).links
    assert [link.torch for link in links] == [("fc.weight",)]


def test_the_table():
    module = nn.ModuleDict({"attn": nn.MultiheadAttention(4, 2), "bn": nn.BatchNorm1d(4)})
    kernel, bias = np.ones((4, 2, 2)), np.ones((2, 2))
    attn = {n: {"kernel": kernel, "bias": bias} for n in ("query", "key", "value")}
    attn["out"] = {"kernel": np.ones((2, 2, 4)), "bias": np.ones(4)}
    tree = {"attn": attn, "bn": {n: np.ones(4) for n in ("scale", "bias", "mean", "var")}}
    rules = [bridge.multihead_attention("attn", heads=2), bridge.batch_norm("bn")]
    lines = str(match(rules, module, tree)).splitlines()
    assert lines[0].split() == ["rule", "PyTorch", "JAX", "layout"]
    assert len(lines) == 2 + 4 + 5
    assert lines[2].split("  ") == [
        "multihead_attention",
        "attn.in_proj_weight (12, 4)",
        "attn.{query,key,value}.kernel, each (4, 2, 2)",
        "3 stacked, each (heads*d, in) -> (in, heads, d)",
    ]
    assert lines[-1].split() == [
        *("batch_norm", "bn.num_batches_tracked", "()", "-", "PyTorch", "alone"),
    ]


def test_the_table_marks_what_is_not_exact():
    case = CASES["lstm, dense, one bias"]
    params, _, _ = SIDES["nnx"](case)
    text = str(match([case.rule()], case.torch(), params))
    assert "[not exact]" in text.splitlines()[-2]
    assert "[not exact] PyTorch trains both biases" in text.splitlines()[-1]


TORCH = {"fc.weight": W, "fc.bias": B}
JAX = {"fc.kernel": W.T, "fc.bias": B}


@pytest.mark.parametrize(
    ("rules", "torch_side", "jax_side", "message"),
    [
        ([], TORCH, JAX, r"PyTorch leaf 'fc.weight' has no rule; its shape is \(2, 3\)"),
        ([], TORCH, JAX, r"JAX leaf 'fc.kernel' has no rule"),
        ([bridge.linear("fc")] * 2, TORCH, JAX, r"PyTorch leaf 'fc.weight' has 2 rules"),
        ([bridge.linear("fc")], TORCH, {"fc.kernel": W.T}, r"no leaf 'fc.bias', which a rule"),
        ([bridge.linear("fc")], TORCH, {**JAX, "x": B}, r"JAX leaf 'x' has no rule"),
        ([bridge.linear("fc", "head")], TORCH, JAX, r"JAX has no leaf 'head.kernel'"),
        ([bridge.linear("fd")], TORCH, JAX, r"linear\('fd'\) names no tensor of either side"),
        (
            [bridge.tensor("fc.weight", "fc.kernel"), bridge.tensor("fc.bias")],
            TORCH,
            JAX,
            r"'fc.weight' \(2, 3\) in layout same is \(2, 3\), but 'fc.kernel' \(3, 2\)",
        ),
        (
            [bridge.linear("fc", flattened=(2, 5, 5))],
            TORCH,
            JAX,
            r"'fc.weight' \(2, 3\) in .*channels last is impossible, but",
        ),
    ],
)
def test_unmatched_and_doubly_matched_leaves_are_listed(rules, torch_side, jax_side, message):
    with pytest.raises(ValueError, match=message) as raised:
        match(rules, torch_side, jax_side)
    assert "PyTorch has: fc.weight (2, 3), fc.bias (2,)" in str(raised.value)
    assert re.search(r"JAX has: .*fc.kernel \(3, 2\)", str(raised.value))


def half_a_layer():
    return match("auto", nn.Linear(3, 2), {"kernel": W.T}, {"bias": B})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: match("fc", TORCH, JAX), TypeError, r"got 'fc'"),
        (lambda: match(["fc"], TORCH, JAX), TypeError, r"got 'fc'"),
        (lambda: match(bridge.linear("fc"), TORCH, JAX), TypeError, r"got linear\('fc'\)"),
        (lambda: match("auto", TORCH, JAX), TypeError, r"Give match_weights the nn.Module"),
        (
            lambda: bridge.linear("fc", names={"w": "kernel"}),
            ValueError,
            r"linear has no leaves called \['w'\].*\['bias', 'kernel', 'weight'\]",
        ),
        (lambda: match([], [W], JAX), TypeError, r"is a list; give an nn.Module"),
        (lambda: match([], TORCH, JAX, JAX), ValueError, r"are in params and in buffers"),
        (
            lambda: bridge.weights_to_jax(half_a_layer(), {"bias": B}, {"kernel": 0}),
            ValueError,
            r"PyTorch's \['weight'\] are not there",
        ),
        (
            lambda: bridge.weights_to_jax(half_a_layer(), {"bias": B}, {"bias": 0, "x": 0}),
            ValueError,
            r"leaves \['x'\] have no link",
        ),
    ],
)
def test_requests_that_are_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_either_tree_alone():
    weights = half_a_layer()
    assert bridge.weights_to_torch(weights, None, {"bias": B}).keys() == {"bias"}
    assert bridge.weights_to_torch(weights, {"kernel": W.T}).keys() == {"weight"}


def test_a_part_of_a_tensor_is_refused():
    case = CASES["attention"]
    params, _, _ = SIDES["linen"](case)
    weights = match([case.rule()], case.torch(), params)
    del params["params"]["key"]
    with pytest.raises(ValueError, match=r"leaves \['params.key.kernel'\] are absent"):
        bridge.weights_to_torch(weights, params)


def test_a_gru_cell_without_a_place_for_b_hn():
    case = CASES["gru, dense, no bias"]
    cell = {"kernel": np.ones((3, 12)), "bias": np.ones(12)}
    params = {"cell": {"dense_i": cell, "dense_h": {"kernel": np.ones((4, 12))}}}
    for rules in ([case.rule()], "auto"):
        with pytest.raises(ValueError, match=r"gru.*no place for b_hn.*dense_h a bias"):
            match(rules, nn.GRU(3, 4), params)
