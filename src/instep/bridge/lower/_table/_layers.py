"""Normalisation, attention, recurrent nets, embeddings, activations and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from .... import ops
from ....ops._distance import COMPUTE_MODES
from ....ops._norm import native_batch_norm


def batch_norm(input, weight, bias, mean, var, training, momentum, eps, cudnn_enabled):
    del cudnn_enabled
    return native_batch_norm(input, mean, var, weight, bias, training, momentum, eps)[0]


def batch_norm_statistics(input, weight, bias, mean, var, training, momentum, eps):
    """Output, and the mean and inverse deviation of the batch."""
    return native_batch_norm(input, mean, var, weight, bias, training, momentum, eps)[:3]


def batch_norm_functional(input, weight, bias, mean, var, training, momentum, eps):
    """These, and the new running statistics."""
    return native_batch_norm(input, mean, var, weight, bias, training, momentum, eps)


def batch_norm_without_running(input, weight, bias, training, momentum, eps):
    return native_batch_norm(input, None, None, weight, bias, training, momentum, eps)[:3]


def batch_norm_no_training(input, weight, bias, mean, var, momentum, eps):
    return native_batch_norm(input, mean, var, weight, bias, False, momentum, eps)[:3]


def batch_norm_no_update(input, weight, bias, mean, var, momentum, eps):
    made = native_batch_norm(input, mean, var, weight, bias, False, momentum, eps)
    return *made[:3], RESERVE


def batch_norm_with_update(input, weight, bias, mean, var, momentum, eps):
    made = native_batch_norm(input, mean, var, weight, bias, True, momentum, eps)
    return *made[:3], RESERVE


def batch_norm_with_update_functional(input, weight, bias, mean, var, momentum, eps):
    made = native_batch_norm(input, mean, var, weight, bias, True, momentum, eps)
    return *made[:3], RESERVE, *made[3:]


RESERVE = np.zeros(0, np.uint8)  # what cuDNN keeps for the backward pass


def group_norm(input, num_groups, weight, bias, eps, cudnn_enabled):
    del cudnn_enabled
    return ops.group_norm(input, num_groups, weight, bias, eps)


def native_group_norm(input, weight, bias, N, C, HxW, group, eps):
    del N, C, HxW
    return ops.native_group_norm(input, group, weight, bias, eps)


def layer_norm(input, normalized_shape, weight, bias, eps, cudnn_enabled):
    del cudnn_enabled
    return ops.layer_norm(input, normalized_shape, weight, bias, eps)


def embedding(weight, indices, padding_idx, scale_grad_by_freq, sparse):
    del sparse
    padding_idx = None if padding_idx < 0 else padding_idx
    return ops.embedding(indices, weight, padding_idx, scale_grad_by_freq)


def embedding_bag(
    weight,
    indices,
    offsets,
    scale_grad_by_freq,
    mode,
    sparse,
    per_sample_weights,
    include_last_offset,
    padding_idx=None,
):
    """The bags, and of the three things that PyTorch keeps for the backward pass the shapes."""
    del sparse
    padding_idx = None if padding_idx in (None, -1) else padding_idx
    mode = ("sum", "mean", "max")[mode]
    output = ops.embedding_bag(
        indices,
        weight,
        offsets,
        scale_grad_by_freq,
        mode,
        per_sample_weights,
        include_last_offset,
        padding_idx,
    )
    fast = mode == "sum" and padding_idx is None and weight.dtype in ("float32", "float16")
    bags, dim = output.shape
    shapes = (0 if fast else len(indices),), (bags,), (bags, dim) if mode == "max" else (bags,)
    return output, *(jnp.zeros(shape, offsets.dtype) for shape in shapes)


def cdist(x1, x2, p, compute_mode):
    return ops.cdist(x1, x2, p, COMPUTE_MODES[compute_mode or 0])


def attention(draw, query, key, value, mask, dropout_p, is_causal, *, scale, enable_gqa):
    kept = None
    if dropout_p:
        batch = jnp.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        if enable_gqa:
            batch = query.shape[:-2]
        kept = draw.bernoulli(1 - dropout_p, (*batch, query.shape[-2], key.shape[-2]))
    return ops.scaled_dot_product_attention(
        query, key, value, mask, dropout_p, is_causal, scale, enable_gqa, kept=kept
    )


def half_to_float(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as ``_softmax``, whose last argument asks for float32."""
    return lambda input, dim, to_float: function(input, dim, jnp.float32 if to_float else None)


def log_sigmoid_forward(input):
    return ops.log_sigmoid(input), lax.stop_gradient(jnp.exp(-jnp.abs(input)))


def dropout_of(function: Callable[..., Any], shape: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, drawing what it keeps of ``shape(input.shape)``."""

    def call(draw, input, p, train):
        if not train or p == 0 or input.size == 0:
            return input
        if p == 1:
            return input * 0
        return function(input, draw.bernoulli(1 - p, shape(input.shape)), p)

    return call


def recurrent(net: Callable[..., Any]) -> Callable[..., Any]:
    """``net`` of padded sequences, drawing what dropout keeps between its layers."""

    def call(
        draw,
        input,
        hx,
        params,
        has_biases,
        num_layers,
        dropout,
        train,
        bidirectional,
        batch_first,
        batch_sizes=None,
    ):
        h = hx[0] if isinstance(hx, list) else hx
        batch = input.shape[:-1]
        if batch_first:
            batch = batch[::-1]
        shape = (*batch, h.shape[-1] * (1 + bidirectional))
        kept = []
        if train and dropout:
            kept = [_kept(draw, dropout, shape) for _ in range(num_layers - 1)]
        return net(
            input,
            hx,
            params,
            has_biases=has_biases,
            num_layers=num_layers,
            dropout=dropout if train else 0.0,
            bidirectional=bidirectional,
            batch_first=batch_first,
            batch_sizes=batch_sizes,
            kept=kept,
        )

    return call


def packed(net: Callable[..., Any]) -> Callable[..., Any]:
    """``net`` of packed sequences."""
    padded = recurrent(net)

    def call(draw, data, batch_sizes, *args):
        return padded(draw, data, *args, False, batch_sizes)

    return call


def _kept(draw, p, shape):
    return jnp.zeros(shape, bool) if p == 1 else draw.bernoulli(1 - p, shape)


def native_dropout(draw, input, p, train):
    if train is False or input.size == 0:
        return input, jnp.ones(input.shape, bool)
    kept = draw.bernoulli(1 - p, input.shape)
    return ops.dropout(input, kept, p), kept


def rrelu(draw, input, lower, upper, training):
    return rrelu_with_noise(draw, input, None, lower, upper, training)[0]


def rrelu_with_noise(draw, input, noise, lower, upper, training):
    if not training:
        return ops.leaky_relu(input, (lower + upper) / 2), noise
    slope = lower + (upper - lower) * draw.uniform(input.shape, input.dtype)
    return ops.rrelu(input, slope), jnp.where(input <= 0, slope, 1)


ATEN: dict[str, Callable[..., Any]] = {
    "_batch_norm_no_update": batch_norm_no_update,
    "_batch_norm_with_update": batch_norm_with_update,
    "_batch_norm_with_update_functional": batch_norm_with_update_functional,
    "_cdist_forward": cdist,
    "_embedding_bag": embedding_bag,
    "_embedding_bag_forward_only": embedding_bag,
    "_euclidean_dist": lambda x1, x2: cdist(x1, x2, 2.0, 1),
    "_fused_rms_norm": ops.fused_rms_norm,
    "_log_softmax": half_to_float(ops.log_softmax),
    "_native_batch_norm_legit": batch_norm_statistics,
    "_native_batch_norm_legit.no_stats": batch_norm_without_running,
    "_native_batch_norm_legit_functional": batch_norm_functional,
    "_native_batch_norm_legit_no_training": batch_norm_no_training,
    "_pdist_forward": ops.pdist,
    "_prelu_kernel": lambda input, weight: ops.prelu(input, weight.reshape(-1)),
    "_safe_softmax": ops.safe_softmax,
    "_softmax": half_to_float(ops.softmax),
    "_weight_norm": ops.weight_norm,
    "batch_norm": batch_norm,
    "bilinear": ops.bilinear,
    "cdist": cdist,
    "celu": ops.celu,
    "cosine_similarity": ops.cosine_similarity,
    "elu": ops.elu,
    "embedding": embedding,
    "embedding_bag": embedding_bag,
    "gelu": ops.gelu,
    "glu": ops.glu,
    "group_norm": group_norm,
    "gru_cell": ops.gru_cell,
    "hardshrink": ops.hardshrink,
    "hardsigmoid": ops.hardsigmoid,
    "hardswish": ops.hardswish,
    "hardtanh": ops.hardtanh,
    "layer_norm": layer_norm,
    "leaky_relu": ops.leaky_relu,
    "linear": ops.linear,
    "log_sigmoid": ops.log_sigmoid,
    "log_sigmoid_forward": log_sigmoid_forward,
    "log_softmax.int": ops.log_softmax,
    "logit": ops.logit,
    "lstm_cell": ops.lstm_cell,
    "mish": ops.mish,
    "native_batch_norm": batch_norm_statistics,
    "native_group_norm": native_group_norm,
    "native_layer_norm": ops.native_layer_norm,
    "pairwise_distance": ops.pairwise_distance,
    "pdist": ops.pdist,
    "prelu": ops.prelu,
    "relu": ops.relu,
    "relu6": ops.relu6,
    "rms_norm": ops.rms_norm,
    "rnn_relu_cell": ops.rnn_relu_cell,
    "rnn_tanh_cell": ops.rnn_tanh_cell,
    "selu": ops.selu,
    "sigmoid": ops.sigmoid,
    "silu": ops.silu,
    "softmax.int": ops.softmax,
    "softplus": ops.softplus,
    "softshrink": ops.softshrink,
    "special_log_softmax": ops.log_softmax,
    "special_softmax": ops.softmax,
    "tanh.default": ops.tanh,
    "threshold": ops.threshold,
}
RANDOM: dict[str, Callable[..., Any]] = {  # these take a Draw first
    "alpha_dropout": dropout_of(ops.alpha_dropout, tuple),
    "dropout": dropout_of(ops.dropout, tuple),
    "feature_alpha_dropout": dropout_of(ops.alpha_dropout, ops.feature_shape),
    "feature_dropout": dropout_of(ops.dropout, ops.feature_shape),
    "gru.data": packed(ops.gru),
    "gru.input": recurrent(ops.gru),
    "lstm.data": packed(ops.lstm),
    "lstm.input": recurrent(ops.lstm),
    "native_dropout": native_dropout,
    "rnn_relu.data": packed(ops.rnn_relu),
    "rnn_relu.input": recurrent(ops.rnn_relu),
    "rnn_tanh.data": packed(ops.rnn_tanh),
    "rnn_tanh.input": recurrent(ops.rnn_tanh),
    "rrelu": rrelu,
    "rrelu_with_noise_functional": rrelu_with_noise,
    "scaled_dot_product_attention": attention,
}
