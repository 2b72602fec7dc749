"""Operators of layers where PyTorch's database does not look: kinks, masks, draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import assert_in_step
from instep import ops
from instep.bridge.lower._draws import Draw, Replay
from instep.bridge.lower._table import rule_of


INF, NAN = float("inf"), float("nan")


def agree(theirs, ours, *inputs, second=False):
    """Values, gradients for random cotangents, and the gradients of these if ``second``."""
    xs = [torch.tensor(x, requires_grad=True) for x in inputs]
    y = theirs(*xs)
    noise = np.random.default_rng(1)
    cotangent = noise.normal(size=y.shape)

    def both(*xs):
        made, pull = jax.vjp(ours, *xs)
        return made, pull(jnp.asarray(cotangent))

    made, pulled = jax.jit(both)(*map(jnp.asarray, inputs))
    assert_in_step(y, made, "value", finite=False)
    grads = torch.autograd.grad(y, xs, torch.tensor(cotangent), create_graph=second)
    for i, (a, b) in enumerate(zip(grads, pulled, strict=True)):
        assert_in_step(a, b, f"gradient of input {i}", finite=False)
    if second:
        direction = [noise.normal(size=np.shape(x)) for x in inputs]
        total = sum((g * torch.tensor(d)).sum() for g, d in zip(grads, direction, strict=True))
        expected = torch.autograd.grad(total, xs, materialize_grads=True)

        def slope(*xs):
            grads = jax.vjp(ours, *xs)[1](jnp.asarray(cotangent))
            return sum(jnp.sum(g * d) for g, d in zip(grads, direction, strict=True))

        got = jax.jit(jax.grad(slope, range(len(xs))))(*map(jnp.asarray, inputs))
        for a, b in zip(expected, got, strict=True):
            assert_in_step(a, b, "second derivative", finite=False)


KINKS = np.array([-7.0, -3, -1, -0.5, -0.0, 0.0, 0.25, 0.5, 1, 3, 6, 7])
ACTIVATIONS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "log_sigmoid": F.logsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
LINEAR = ["relu", "relu6", "hardtanh", "hardsigmoid", "leaky_relu"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_at_their_kinks(name, x64):
    ours = getattr(ops, name)
    agree(ACTIVATIONS[name], ours, KINKS, second=name not in LINEAR)
    wide = np.array([-800.0, 800.0])
    agree(ACTIVATIONS[name], ours, wide)
    x = torch.tensor([-INF, INF, NAN])
    assert_in_step(ACTIVATIONS[name](x), ours(jnp.asarray(x.numpy())), finite=False)
    half = torch.linspace(-4, 4, 101, dtype=torch.bfloat16)
    made = ours(jnp.asarray(half.float().numpy(), jnp.bfloat16))
    assert made.dtype == jnp.bfloat16
    ulp = np.abs(ACTIVATIONS[name](half).float().numpy()) * 2**-7
    assert np.all(
        np.abs(ACTIVATIONS[name](half).float().numpy() - np.asarray(made, float)) <= ulp
    )


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda x: F.threshold(x, 0.5, -7), lambda x: ops.threshold(x, 0.5, -7)),
        (lambda x: F.hardtanh(x, -3, 0.5), lambda x: ops.hardtanh(x, -3, 0.5)),
        (lambda x: F.elu(x, 0.3), lambda x: ops.elu(x, 0.3)),
        (lambda x: F.celu(x, 0.3), lambda x: ops.celu(x, 0.3)),
        (lambda x: F.leaky_relu(x, -0.2), lambda x: ops.leaky_relu(x, -0.2)),
        (lambda x: F.softplus(x, 2, 6), lambda x: ops.softplus(x, 2, 6)),
        (lambda x: F.gelu(x, approximate="tanh"), lambda x: ops.gelu(x, "tanh")),
        (lambda x: F.glu(x.reshape(2, 6), 0), lambda x: ops.glu(x.reshape(2, 6), 0)),
        (lambda x: torch.logit(x, 0.25), lambda x: ops.logit(x, 0.25)),
    ],
)
def test_activations_with_arguments(theirs, ours, x64):
    agree(theirs, ours, KINKS)


def test_logit(x64):
    """Without -0.0: there the slope of PyTorch's kernels is inf or -inf, as the host has it."""
    agree(torch.logit, ops.logit, KINKS + 0.0)


def test_prelu(x64):
    agree(F.prelu, ops.prelu, KINKS.reshape(4, 3), np.array([0.1, -2, 0]), second=True)
    agree(F.prelu, ops.prelu, KINKS, np.array([0.3]))
    agree(F.prelu, ops.prelu, np.array([INF, 0, -1.0]), np.array([0.0]))


@pytest.mark.parametrize("name", ["relu", "relu6", "hardtanh"])
def test_integers_stay_integers(name, x64):
    theirs = ACTIVATIONS[name](torch.tensor([-7, 0, 1, 8]))
    ours = getattr(ops, name)(jnp.array([-7, 0, 1, 8]))
    assert ours.dtype == "int64"
    np.testing.assert_array_equal(theirs, ours)


def test_sigmoid_of_integers_is_the_default_float():
    assert (
        ops.sigmoid(jnp.array([1, 2])).dtype == ops.tanh(jnp.array([True])).dtype == "float32"
    )


NORMS = {
    "layer_norm": (
        lambda x, w, b: F.layer_norm(x, (4,), w, b),
        lambda x, w, b: ops.layer_norm(x, (4,), w, b),
    ),
    "rms_norm": (
        lambda x, w, b: F.rms_norm(x, (4,), w) + b,
        lambda x, w, b: ops.rms_norm(x, (4,), w) + b[None, None],
    ),
    "group_norm": (
        lambda x, w, b: F.group_norm(x, 2, w, b),
        lambda x, w, b: ops.group_norm(x, 2, w, b),
    ),
    "instance_norm": (
        lambda x, w, b: F.instance_norm(x, None, None, w, b),
        lambda x, w, b: ops.instance_norm(x, None, None, w, b)[0],
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_twice_differentiated(name, x64):
    rng = np.random.default_rng(0)
    theirs, ours = NORMS[name]
    agree(theirs, ours, rng.normal(size=(3, 4, 4)) + 2, *rng.normal(size=(2, 4)), second=True)
    constant = np.ones((3, 4, 4))
    agree(theirs, ours, constant, *rng.normal(size=(2, 4)))


@pytest.mark.parametrize("use_input_stats", [True, False])
def test_instance_norm_moves_its_statistics(use_input_stats, x64):
    rng = np.random.default_rng(0)
    x, mean, var = rng.normal(size=(3, 2, 5)), rng.normal(size=2), rng.uniform(1, 2, size=2)
    tmean, tvar = torch.tensor(mean), torch.tensor(var)
    theirs = F.instance_norm(torch.tensor(x), tmean, tvar, use_input_stats=use_input_stats)
    given = map(jnp.asarray, (x, mean, var))
    ours, mean, var = ops.instance_norm(*given, use_input_stats=use_input_stats)
    for a, b in zip((theirs, tmean, tvar), (ours, mean, var), strict=True):
        assert_in_step(a, b)


@pytest.mark.parametrize("op", ["native_layer_norm", "native_group_norm", "native_batch_norm"])
def test_what_is_kept_for_the_backward_pass_in_half_precision(op):
    x = torch.linspace(-2, 3, 60).reshape(4, 3, 5).bfloat16()
    args = {
        "native_layer_norm": ([5], None, None, 1e-5),
        "native_group_norm": (None, None, 4, 3, 5, 3, 1e-5),
        "native_batch_norm": (None, None, None, None, True, 0.1, 1e-5),
    }[op]
    rule = rule_of("aten", op, "default").function
    theirs = getattr(torch.ops.aten, op)(x, *args)
    ours = rule(jnp.asarray(x.float().numpy(), jnp.bfloat16), *args)
    assert [tuple(t.shape) for t in theirs] == [y.shape for y in ours]
    assert ours[0].dtype == jnp.bfloat16


def test_safe_softmax_of_a_row_that_sees_nothing(x64):
    x = np.array([[1.0, -INF, 2], [-INF, -INF, -INF]])
    agree(lambda x: torch.ops.aten._safe_softmax(x, -1), lambda x: ops.safe_softmax(x, -1), x)


ATTENTION = {
    "plain": ((2, 3, 4), (2, 5, 4), {}, None),
    "causal": ((2, 3, 4), (2, 5, 4), {"is_causal": True}, None),
    "causal, of fewer keys": ((2, 5, 4), (2, 3, 4), {"is_causal": True}, None),
    "causal, in blocks": ((2, 200, 4), (2, 200, 4), {"is_causal": True}, None),
    "causal, in blocks of fewer keys": ((2, 200, 4), (2, 150, 4), {"is_causal": True}, None),
    "causal, in blocks of more keys": ((2, 150, 4), (2, 200, 4), {"is_causal": True}, None),
    "causal, in blocks, gqa": (
        (1, 4, 130, 3),
        (1, 2, 130, 3),
        {"is_causal": True, "enable_gqa": True},
        None,
    ),
    "scale": ((2, 3, 4), (2, 5, 4), {"scale": 0.3}, None),
    "flags": ((2, 3, 4), (2, 5, 4), {}, np.array([[1, 1, 0, 1, 0]] * 2 + [[0] * 5], bool)),
    "bias": ((2, 2, 3, 4), (2, 2, 5, 4), {}, np.linspace(-1, 1, 15).reshape(3, 5)),
    "gqa": ((2, 6, 3, 4), (2, 2, 5, 4), {"enable_gqa": True}, None),
    "gqa with a mask": (
        (1, 6, 3, 4),
        (1, 2, 5, 4),
        {"enable_gqa": True},
        np.linspace(-1, 1, 90).reshape(1, 6, 3, 5),
    ),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name, x64):
    query, key, options, mask = ATTENTION[name]
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape) for shape in (query, key, (*key[:-1], 6))]
    theirs, ours = F.scaled_dot_product_attention, ops.scaled_dot_product_attention
    tmask, jmask = (None, None) if mask is None else (torch.tensor(mask), jnp.asarray(mask))
    agree(
        lambda *x: theirs(*x, attn_mask=tmask, **options),
        lambda *x: ours(*x, attn_mask=jmask, **options),
        *inputs,
    )


def test_causal_attention_is_computed_in_blocks():
    """What no query of a block sees is not computed."""

    def numbers(L):
        x = jnp.zeros((1, L, 8))
        jaxpr = jax.make_jaxpr(
            lambda x: ops.scaled_dot_product_attention(x, x, x, is_causal=True)
        )
        products = [e for e in jaxpr(x).eqns if e.primitive.name == "dot_general"]
        return sum(e.outvars[0].aval.size for e in products[::2]) / L**2

    assert [numbers(L) for L in (64, 128, 512)] == [1, 0.75, 0.5625]


@pytest.mark.parametrize("L", [4, 130])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1, 1)])
def test_what_attention_keeps_is_broadcast(L, shape):
    x, kept = jnp.ones((2, L, 4)), (jnp.arange(shape[0]) == 0).reshape(shape)
    whole = jnp.broadcast_to(kept, (2, L, L))

    def attend(kept):
        return ops.scaled_dot_product_attention(x, x, x, None, 0.3, True, kept=kept)

    np.testing.assert_array_equal(attend(kept), attend(whole))


def test_causal_attention_of_any_length_is_exported():
    n = jax.export.symbolic_shape("n")[0]

    @jax.jit
    def attend(x):
        return ops.scaled_dot_product_attention(x, x, x, is_causal=True)

    exported = jax.export.export(attend)(jax.ShapeDtypeStruct((2, n, 4), jnp.float32))
    x = jnp.linspace(-1, 1, 2 * 5 * 4).reshape(2, 5, 4)
    assert_in_step(attend(x), exported.call(x), "output")


@pytest.mark.parametrize(("L", "S"), [(0, 3), (3, 0), (0, 0)])
def test_grouped_heads_of_nothing(L, S):
    q, k = np.ones((1, 4, L, 2), np.float32), np.ones((1, 2, S, 2), np.float32)
    theirs = F.scaled_dot_product_attention(
        *map(torch.tensor, (q, k, k)), is_causal=True, enable_gqa=True
    )
    ours = ops.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True)
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize(("L", "is_causal"), [(4, False), (4, True), (130, True)])
def test_attention_drops_what_is_drawn(L, is_causal, x64):
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 2, L, 3))
    torch.manual_seed(0)
    theirs = F.scaled_dot_product_attention(
        *map(torch.tensor, (q, k, v)), dropout_p=0.4, is_causal=is_causal
    )
    torch.manual_seed(0)
    kept = torch.empty(2, L, L).bernoulli_(0.6)
    rule = rule_of("aten", "scaled_dot_product_attention", "default")
    draw = Replay([kept.numpy()]).of_call(0, "attention")
    given = map(jnp.asarray, (q, k, v))
    ours = rule.function(draw, *given, None, 0.4, is_causal, scale=None, enable_gqa=False)
    assert_in_step(theirs, ours)


@pytest.mark.parametrize("p", [0.3, 0.0, 1.0])
@pytest.mark.parametrize(
    ("op", "shape"),
    [
        ("dropout", (4, 3, 5)),
        ("alpha_dropout", (4, 3, 5)),
        ("feature_dropout", (4, 3, 1)),
        ("feature_alpha_dropout", (4, 3, 1)),
    ],
)
def test_dropout_drops_what_is_drawn(op, shape, p, x64):
    x = np.random.default_rng(0).normal(size=(4, 3, 5))
    torch.manual_seed(0)
    theirs = getattr(torch.ops.aten, op)(torch.tensor(x), p, True)
    torch.manual_seed(0)
    kept = torch.empty(shape).to(torch.float64).bernoulli_(1 - p)
    draw = Replay([kept.numpy()]).of_call(0, op)
    rule = rule_of("aten", op, "default").function
    assert_in_step(theirs, rule(draw, jnp.asarray(x), p, True))
    assert rule(Draw(None), x, p, False) is x


@pytest.mark.parametrize("options", [{}, {"padding_idx": 1}, {"scale_grad_by_freq": True}])
def test_embedding(options, x64):
    index = np.array([[1, 0, 1], [3, 1, 3]])
    table = np.random.default_rng(0).normal(size=(5, 4))
    agree(
        lambda w: F.embedding(torch.tensor(index), w, **options),
        lambda w: ops.embedding(jnp.asarray(index), w, **options),
        table,
    )


@pytest.mark.parametrize("norm_type", [2.0, 1.0, INF])
def test_embedding_renorm(norm_type, x64):
    table, index = np.random.default_rng(0).normal(size=(5, 4)), np.array([1, 3, 1])
    theirs = torch.embedding_renorm_(torch.tensor(table), torch.tensor(index), 0.9, norm_type)
    assert_in_step(theirs, ops.embedding_renorm(jnp.asarray(table), index, 0.9, norm_type))


BAGS = [
    ([0, 2, 2, 5], {}),
    ([0, 3, 7], {"include_last_offset": True}),
    ([0, 2, 3], {"padding_idx": 1}),
]
SCALED = [([0, 2], {"scale_grad_by_freq": True}, mode) for mode in ("sum", "mean")]


@pytest.mark.parametrize(
    ("offsets", "options", "mode"),
    [(*bag, mode) for bag in BAGS for mode in ("sum", "mean", "max")] + SCALED,
)
def test_embedding_bag(offsets, options, mode, x64):
    index = np.array([1, 0, 1, 3, 1, 3, 2])
    table = np.random.default_rng(0).normal(size=(5, 4))
    table[3] = table[2]  # ties
    agree(
        lambda w: F.embedding_bag(
            torch.tensor(index), w, torch.tensor(offsets), mode=mode, **options
        ),
        lambda w: ops.embedding_bag(
            jnp.asarray(index), w, jnp.asarray(offsets), mode=mode, **options
        ),
        table,
    )


def test_embedding_bag_of_weighted_rows(x64):
    rng, index = np.random.default_rng(0), np.array([[1, 0, 1], [3, 1, 3]])
    agree(
        lambda w, s: F.embedding_bag(torch.tensor(index), w, mode="sum", per_sample_weights=s),
        lambda w, s: ops.embedding_bag(jnp.asarray(index), w, mode="sum", per_sample_weights=s),
        rng.normal(size=(5, 4)),
        rng.normal(size=(2, 3)),
    )


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, INF])
def test_distances_at_zeros_and_ties(p, x64):
    x = np.array([[1.0, 2, 0], [1, 2, 0], [0, 3, 1], [4, 2, 3]])
    y = np.array([[1.0, 2, 0], [2, 2, 1]])
    agree(lambda x, y: torch.cdist(x, y, p), lambda x, y: ops.cdist(x, y, p), x, y)
    agree(lambda x: F.pdist(x, p), lambda x: ops.pdist(x, p), x)


def test_cdist_by_a_matrix_product(x64):
    x, y = np.random.default_rng(0).normal(size=(2, 2, 30, 4))
    agree(torch.cdist, ops.cdist, x, y[:, :5])


def test_cosine_similarity_of_short_vectors(x64):
    x, y = np.array([[3e-9, 0], [1, 2.0]]), np.array([[1.0, 2], [0, 1e-12]])
    agree(F.cosine_similarity, ops.cosine_similarity, x, y)


NETS = [
    ("lstm", nn.LSTM, {}),
    ("lstm", nn.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    ("lstm", nn.LSTM, {"num_layers": 2, "bidirectional": True, "proj_size": 2, "bias": False}),
    ("gru", nn.GRU, {"num_layers": 2, "bidirectional": True}),
    ("rnn_tanh", nn.RNN, {"batch_first": True}),
    ("rnn_relu", nn.RNN, {"nonlinearity": "relu", "bias": False}),
]


@pytest.mark.parametrize(("name", "kind", "options"), NETS)
@pytest.mark.parametrize("packed", [False, True])
def test_recurrent_nets(name, kind, options, packed, x64):
    torch.manual_seed(0)
    net = kind(3, 4, **options)
    x = torch.randn(5, 4, 3)
    batch = x.shape[0 if net.batch_first else 1]
    layers = net.num_layers * (1 + net.bidirectional)
    hx = [torch.randn(layers, batch, net.proj_size or 4)]
    if name == "lstm":
        hx.append(torch.randn(layers, batch, 4))
    sizes = None
    if packed:
        lengths = torch.arange(batch, 0, -1).clamp(max=x.shape[net.batch_first])
        x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=net.batch_first)
        sizes = x.batch_sizes.numpy()
    output, states = net(x, tuple(hx) if len(hx) == 2 else hx[0])
    made = [output.data if packed else output, *([states] if len(hx) == 1 else states)]
    cotangents = [torch.randn_like(y) for y in made]
    torch.autograd.backward(made, cotangents)

    def ours(params):
        states = [jnp.asarray(h.numpy()) for h in hx]
        return getattr(ops, name)(
            jnp.asarray((x.data if packed else x).numpy()),
            states if len(hx) == 2 else states[0],
            params,
            has_biases=net.bias,
            num_layers=net.num_layers,
            bidirectional=net.bidirectional,
            batch_first=net.batch_first and not packed,
            batch_sizes=sizes,
        )

    params = [jnp.asarray(p.detach().numpy()) for p in net._flat_weights]
    values, pull = jax.vjp(jax.jit(ours), params)
    for a, b in zip(made, values, strict=True):
        assert_in_step(a, b)
    [grads] = pull(tuple(jnp.asarray(c.numpy()) for c in cotangents))
    for p, grad in zip(net._flat_weights, grads, strict=True):
        assert_in_step(p.grad, grad)


def test_dropout_between_layers_is_drawn(x64):
    torch.manual_seed(0)
    net, x = nn.GRU(3, 4, num_layers=3, dropout=0.4), torch.randn(5, 2, 3)
    torch.manual_seed(1)
    theirs, _ = net(x)
    torch.manual_seed(1)
    kept = [torch.empty(5, 2, 4).bernoulli_(0.6).numpy() for _ in range(2)]
    draw = Replay(kept).of_call(0, "gru")
    params = [jnp.asarray(p.detach().numpy()) for p in net._flat_weights]
    rule = rule_of("aten", "gru", "input").function
    hx = jnp.zeros((3, 2, 4))
    ours, _ = rule(draw, jnp.asarray(x), hx, params, True, 3, 0.4, True, False, False)
    assert_in_step(theirs, ours)


@pytest.mark.parametrize("name", ["lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"])
def test_cells(name, x64):
    rng = np.random.default_rng(0)
    gates = {"lstm_cell": 4, "gru_cell": 3}.get(name, 1)
    x, h = rng.normal(size=(2, 3)), rng.normal(size=(2, 5))
    weights = [rng.normal(size=(gates * 5, n)) for n in (3, 5)]

    def of(cell):
        if name == "lstm_cell":
            return lambda x, h, *w: cell(x, (h, h), *w)[0]
        return cell

    agree(of(getattr(torch, name)), of(getattr(ops, name)), x, h, *weights)


def test_packed_sequences_of_unknown_lengths_are_refused():
    def run(sizes):
        return ops.gru(jnp.ones((3, 1)), jnp.ones((1, 2, 1)), [], batch_sizes=sizes)

    with pytest.raises(NotImplementedError, match="must be constants"):
        jax.jit(run)(jnp.array([2, 1]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.gelu(x, "fast"), "approximate='fast' must be"),
        (lambda x: ops.glu(x), r"axis -1 of shape \[2, 3\] must be of even length"),
        (lambda x: ops.layer_norm(x, (2,)), r"\[2\] must be the last axes of .* \[2, 3\]"),
        (lambda x: ops.group_norm(x, 2), "3 channels are not divisible into num_groups=2"),
        (lambda x: ops.dropout(x, x, 1.5), "p=1.5 must be a probability"),
        (lambda x: ops.cdist(x, x, -1.0), r"p=-1\.0 must be 0 or more"),
        (lambda x: ops.embedding_bag(x, x, mode="min"), "mode='min' must be"),
        (
            lambda x: ops.scaled_dot_product_attention(x, x, x, dropout_p=0.1),
            "dropout_p=0.1 needs kept",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((2, 3)))
