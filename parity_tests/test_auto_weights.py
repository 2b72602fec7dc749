"""``weights="auto"``: layers found by kind and name, and refused where names do not tell."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen, nnx
from torch import nn

from conftest import assert_bitwise, assert_in_step
from instep import bridge
from instep.bridge import match_weights as match
from instep.parity._jax_side import _scalars
from instep.workloads import digits_cnn, digits_mlp
from layers import CASES, F64, SIDES, R, random_torch, two_biases


def dense(inputs: int, outputs: int) -> dict:
    return {"kernel": np.ones((inputs, outputs)), "bias": np.ones(outputs)}


def names(weights) -> dict[str, str]:
    return {t: j for t, j in weights.names.items() if "bias" not in t}


def torch_net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4)))


LISTS = {
    "nnx.Sequential": {"layers": {0: dense(3, 4), 2: {"layers": {0: dense(4, 4)}}}},
    "nnx.List": {0: dense(3, 4), 2: {0: dense(4, 4)}},
    "linen.Sequential": {
        "params": {"layers_0": dense(3, 4), "layers_2": {"layers_0": dense(4, 4)}}
    },
    "linen, automatic": {"Dense_0": dense(3, 4), "Dense_1": dense(4, 4)},
    "plain list": [dense(3, 4), [], [dense(4, 4)]],
}


@pytest.mark.parametrize("how", LISTS)
def test_lists_are_written_in_many_ways(how):
    module, tree = random_torch(torch_net()), LISTS[how]
    weights = match("auto", module, tree)
    there = bridge.weights_to_jax(weights, module, tree)
    kernels = [x for x in jax.tree.leaves(there) if x.ndim == 2]
    np.testing.assert_array_equal(kernels[0], module[0].weight.detach().numpy().T)
    np.testing.assert_array_equal(kernels[1], module[2][0].weight.detach().numpy().T)


def test_a_wrapped_module():
    wrapped = nn.ModuleDict({"module": nn.ModuleDict({"fc": nn.Linear(3, 4)})})
    assert names(match("auto", wrapped, {"fc": dense(3, 4)})) == {
        "module.fc.weight": "fc.kernel"
    }


class Compact(linen.Module):
    """Linen with names of its own making, in the order of creation."""

    @linen.compact
    def __call__(self, tokens_BT):
        x = linen.Embed(5, 6, **F64)(tokens_BT)
        for _ in range(2):
            y = linen.LayerNorm(1e-5, use_fast_variance=False, **F64)(x)
            x = x + linen.MultiHeadDotProductAttention(2, **F64)(y)
            y = linen.Dense(8, **F64)(x)
            x = x + linen.Dense(6, **F64)(jnp.tanh(y))
        return linen.BatchNorm(use_running_average=True, **F64)(x)


class TorchCompact(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(5, 6)
        self.norms = nn.ModuleList([nn.LayerNorm(6) for _ in range(2)])
        self.attention = nn.ModuleList(
            [nn.MultiheadAttention(6, 2, batch_first=True) for _ in range(2)]
        )
        self.mlps = nn.ModuleList(
            [nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6)) for _ in range(2)]
        )
        self.last = nn.BatchNorm1d(6)

    def forward(self, tokens_BT):
        x = self.tokens(tokens_BT)
        for norm, attention, mlp in zip(self.norms, self.attention, self.mlps, strict=True):
            y = norm(x)
            x = x + attention(y, y, y, need_weights=False)[0]
            x = x + mlp(x)
        return self.last(x.transpose(1, 2)).transpose(1, 2)


def test_linen_automatic_names_compute_the_same(x64):
    module, flax = random_torch(TorchCompact().eval()), Compact()
    tokens_BT = np.random.default_rng(0).integers(5, size=(2, 3))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        variables = flax.init(jax.random.key(0), tokens_BT)
        weights = match("auto", module, variables["params"], variables["batch_stats"])
        for tree in (variables, {k: variables[k] for k in ("params", "batch_stats")}):
            whole = match("auto", module, tree)
            there = bridge.weights_to_jax(whole, module, tree)
            assert_in_step(module(torch.tensor(tokens_BT)), flax.apply(there, tokens_BT))
    assert [(x.torch, x.layout.name) for x in weights.links] == [
        (x.torch, x.layout.name) for x in whole.links
    ]
    assert "embedding (Linen's number)" in str(weights)


def test_layers_and_directions_of_an_lstm():
    """Names only: what a cell computes is the matter of test_weights."""
    gates = {"dense_i": dense(3, 16), "dense_h": dense(4, 16)}
    upper = {"dense_i": dense(8, 16), "dense_h": dense(4, 16)}
    both = lambda cell: {f"{d}_rnn": {"cell": cell} for d in ("forward", "backward")}  # noqa: E731
    tree = {"rnn": {0: both(gates), 1: both(upper)}}
    module = nn.ModuleDict({"rnn": nn.LSTM(3, 4, 2, bidirectional=True)})
    assert names(match("auto", module, tree)) == {
        f"rnn.weight_{t}_l{n}{suffix}": f"rnn.{n}.{side}_rnn.cell.dense_{j}.kernel"
        for n in (0, 1)
        for side, suffix in (("forward", ""), ("backward", "_reverse"))
        for t, j in (("ih", "i"), ("hh", "h"))
    }


@pytest.mark.parametrize(
    ("kind", "cell"), [("LSTM", nnx.OptimizedLSTMCell), ("GRU", nnx.GRUCell)]
)
def test_a_bidirectional_layer_computes_the_same(kind, cell, x64):
    module = random_torch(
        nn.ModuleDict({"rnn": getattr(nn, kind)(3, 4, bidirectional=True, batch_first=True)})
    )
    cells = [two_biases(cell(3, 4, rngs=R(), **F64)) for _ in range(2)]
    tree = {
        "rnn": {
            side: {"cell": nnx.state(x, nnx.Param)}
            for side, x in zip(("forward_rnn", "backward_rnn"), cells, strict=True)
        }
    }
    there = bridge.weights_to_jax(match("auto", module, tree), module, tree)["rnn"]
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        sides = []
        for side, one in zip(("forward_rnn", "backward_rnn"), cells, strict=True):
            nnx.update(one, jax.tree.map(jnp.asarray, there[side]["cell"]))
            carry = jnp.zeros((2, 4)) if kind == "GRU" else (jnp.zeros((2, 4)),) * 2
            rnn = nnx.RNN(one, reverse=side[0] == "b", keep_order=True)
            sides.append(rnn(jnp.asarray(x), initial_carry=carry))
        ours = jnp.concatenate(sides, -1)
    assert_in_step(module["rnn"](torch.tensor(x))[0], ours)


class Tied(nn.Module):
    def __init__(self, head_first: bool):
        super().__init__()
        head = nn.Linear(4, 5, bias=False)
        if head_first:
            self.head = head
        self.embed = nn.Embedding(5, 4)
        self.head = head
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("head_first", [True, False])
@pytest.mark.parametrize("rules", ["auto", [bridge.embedding("embed")]])
def test_a_tied_weight_is_one_leaf(head_first, rules):
    module, tree = Tied(head_first), {"embed": {"embedding": np.ones((5, 4))}}
    weights = match(rules, module, tree)
    there = bridge.weights_to_jax(weights, module.state_dict(), tree)
    back = bridge.weights_to_torch(weights, there)
    assert back.keys() == module.state_dict().keys()
    assert_bitwise(back["head.weight"], module.embed.weight.detach().numpy())


def test_a_tied_weight_cannot_be_two_leaves():
    tree = {
        "embed": {"embedding": np.ones((5, 4))},
        "head": {"kernel": np.ones((4, 5))},
    }
    with pytest.raises(ValueError, match=r"leaf 'embed.weight' has 2 rules"):
        match("auto", Tied(False), tree)


def test_frozen_weights_may_be_buffers():
    module = nn.ModuleDict({"fc": nn.Linear(3, 4)}).requires_grad_(False)
    kernel, bias = {"fc": {"kernel": np.ones((3, 4))}}, {"fc": {"bias": np.ones(4)}}
    assert names(match("auto", module, kernel, bias)) == {"fc.weight": "fc.kernel"}


def test_auto_takes_what_the_rules_leave():
    pair = digits_cnn.WORKLOAD.make_pair()
    sides = pair.torch.model, pair.jax.params, pair.jax.buffers
    mixed = match(["auto", digits_cnn.WEIGHTS[-1]], *sides)
    explicit = match(digits_cnn.WEIGHTS, *sides)
    as_set = lambda weights: {(x.torch, x.jax, x.layout.name) for x in weights.links}  # noqa: E731
    assert as_set(mixed) == as_set(explicit)


def test_auto_is_what_the_mlp_says():
    pair = digits_mlp.WORKLOAD.make_pair()
    auto, rules = (
        match(r, pair.torch.model, pair.jax.params) for r in ("auto", digits_mlp.WEIGHTS)
    )
    assert auto.names == rules.names


def test_a_parameter_of_its_own_keeps_its_name():
    module = nn.ModuleDict({"fc": nn.Linear(3, 4)})
    module.register_parameter("position", nn.Parameter(torch.ones(2, 3)))
    tree = {"params": {"position": np.ones((2, 3)), "fc": dense(3, 4)}}
    weights = match("auto", module, tree)
    assert weights.names["position"] == "params.position"
    assert "tensor (same path)" in str(weights)


SQUARE = dense(4, 4)


@pytest.mark.parametrize(
    ("module", "tree", "message"),
    [
        (  # three against two
            lambda: nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))),
            {"Dense_0": SQUARE, "Dense_1": SQUARE},
            r"PyTorch leaf '2.weight' has no rule.*JAX leaf 'Dense_1.kernel' has no rule",
        ),
        (  # which of the two blocks was made first, no name tells
            lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
            {"Encoder_0": {"Dense_0": SQUARE}, "Decoder_0": {"Dense_0": SQUARE}},
            r"JAX leaf 'Decoder_0.Dense_0.kernel' has no rule",
        ),
        (  # the same shapes are no reason
            lambda: nn.ModuleDict({"fc1": nn.Linear(4, 4)}),
            {"dense": SQUARE},
            r"PyTorch leaf 'fc1.weight' has no rule; its shape is \(4, 4\)",
        ),
        (  # a kind of its own
            lambda: nn.ModuleDict({"norm": nn.LayerNorm(4)}),
            {"norm": SQUARE},
            r"JAX has no leaf 'norm.scale'",
        ),
        (
            lambda: nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(4, 3)}),
            {"a": dense(3, 4), "b": dense(3, 4)},
            r"'b.weight' \(3, 4\) in layout .* is \(4, 3\), but 'b.kernel' \(3, 4\)",
        ),
    ],
)
def test_what_no_name_tells_is_an_error(module, tree, message):
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)) as raised:
        match("auto", module(), tree)
    assert 'Rules stand beside "auto"' in str(raised.value)


def test_the_error_shows_what_auto_found():
    module = nn.ModuleDict({"fc": nn.Linear(3, 4), "other": nn.Linear(4, 4)})
    with pytest.raises(ValueError, match=r"linear \(same path\) +fc.weight \(4, 3\)"):
        match("auto", module, {"fc": dense(3, 4), "rest": SQUARE})


WRONG = {
    "linear": lambda: bridge.linear("", names={"weight": "kernel"}),  # not transposed
    "attention": lambda: bridge.multihead_attention(
        "", heads=2, names={"query": "key", "key": "query"}
    ),
    "lstm, gates, two biases": lambda: bridge.lstm(
        "", "cell", names={"if_": "ig", "ig": "if_", "hf": "hg", "hg": "hf"}
    ),
    "conv transpose 2d": lambda: bridge.conv_transpose("", transpose_kernel=True),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_layout_that_fits_computes_something_else(name, x64):
    """Bijective, of the right shapes, and wrong: the forward pass tells."""
    case = CASES[name]
    module = random_torch(case.torch())
    params, buffers, forward = SIDES["nnx"](case)
    x = np.random.default_rng(0).normal(size=case.x)
    outputs = []
    for rule in (case.rule(), WRONG[name]()):
        weights = match([rule], module, params, buffers)
        there = jax.tree.map(jnp.asarray, bridge.weights_to_jax(weights, module, params))
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            outputs.append(forward(there, buffers, *map(jnp.asarray, case.inputs(x))))
    with pytest.raises(AssertionError, match="diverged"):
        assert_in_step(*outputs)


def test_a_step_count_of_several_leaves_that_disagree_equals_neither():
    module = nn.ModuleDict({"attn": nn.MultiheadAttention(4, 2, bias=False)})
    kernels = {n: {"kernel": np.ones((4, 2, 2))} for n in ("query", "key", "value")}
    tree = {"attn": kernels | {"out": {"kernel": np.ones((2, 2, 4))}}}
    weights = match("auto", module, tree)
    counts = {f"attn.{n}.kernel": np.array(3) for n in (*kernels, "out")}
    name = "attn.in_proj_weight"
    assert _scalars(weights, counts)[name] == 3
    assert np.isnan(_scalars(weights, counts | {"attn.key.kernel": np.array(2)})[name])
