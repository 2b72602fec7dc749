"""The losses that a graph of ``torch.export`` holds, as calls of ``instep.losses``.

Losses that PyTorch writes in Python (gaussian_nll_loss, multilabel_soft_margin_loss,
triplet_margin_with_distance_loss, linear_cross_entropy without options, and mse_loss, l1_loss
and huber_loss with ``weight``) are exported as the operators they are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from .... import losses


REDUCTION = ("none", "mean", "sum")  # by their numbers in aten


def _named(names: str, loss: Callable[..., Any]) -> Callable[..., Any]:
    """``loss`` with the arguments in the order of ``names``, and its reduction as a number."""

    def call(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names.split(), args, strict=True)) | kwargs
        return loss(**given | {"reduction": REDUCTION[given["reduction"]]})

    return call


PAIR = "input target reduction"
CTC = "log_probs targets input_lengths target_lengths blank reduction zero_infinity"
TRIPLET = "anchor positive negative margin p eps swap reduction"

ATEN: dict[str, Callable[..., Any]] = {
    "binary_cross_entropy": _named(
        "input target weight reduction", losses.binary_cross_entropy
    ),
    "binary_cross_entropy_with_logits": _named(
        "input target weight pos_weight reduction", losses.binary_cross_entropy_with_logits
    ),
    "cosine_embedding_loss": _named(
        "input1 input2 target margin reduction", losses.cosine_embedding_loss
    ),
    "cross_entropy_loss": _named(
        "logits labels weight reduction ignore_index label_smoothing", losses.cross_entropy
    ),
    "ctc_loss": _named(CTC, losses.ctc_loss),
    "hinge_embedding_loss": _named(
        "input target margin reduction", losses.hinge_embedding_loss
    ),
    "huber_loss": _named(f"{PAIR} delta", losses.huber_loss),
    "kl_div": _named(PAIR, losses.kl_div),
    "l1_loss": _named(PAIR, losses.l1_loss),
    "margin_ranking_loss": _named(
        "input1 input2 target margin reduction", losses.margin_ranking_loss
    ),
    "mse_loss": _named(PAIR, losses.mse_loss),
    "multi_margin_loss": _named(
        "input target p margin weight reduction", losses.multi_margin_loss
    ),
    "multilabel_margin_loss": _named(PAIR, losses.multilabel_margin_loss),
    "nll_loss_nd": _named("input target weight reduction ignore_index", losses.nll_loss),
    "poisson_nll_loss": _named(
        "input target log_input full eps reduction", losses.poisson_nll_loss
    ),
    "smooth_l1_loss": _named(f"{PAIR} beta", losses.smooth_l1_loss),
    "soft_margin_loss": _named(PAIR, losses.soft_margin_loss),
    "triplet_margin_loss": _named(TRIPLET, losses.triplet_margin_loss),
}


def _of_chunks(x, linear_weight, target, linear_bias, weight, reduction, ignore_index, *how):
    """``linear_cross_entropy`` with options, which say how PyTorch cuts its work.

    The operator returns the gradients that it was asked for too, which only its own backward
    takes: here they are NaN.
    """
    loss = _each_of_chunks(
        x, linear_weight, target, linear_bias, weight, ignore_index, reduction=reduction
    )
    shapes = x.shape, linear_weight.shape, linear_weight.shape[:1]
    gradients = [
        jnp.full(shape if asked else (0,) * len(shape), jnp.nan, x.dtype)
        for shape, asked in zip(shapes, how[-3:], strict=True)
    ]
    return loss, *gradients


def _each_of_chunks(
    x, linear_weight, target, linear_bias, weight, ignore_index, *how, reduction="none"
):
    """The same of each example."""
    del how
    loss = losses.linear_cross_entropy(
        x,
        linear_weight,
        target,
        linear_bias=linear_bias,
        weight=weight,
        reduction=reduction,
        ignore_index=ignore_index,
    )
    return loss.astype(x.dtype)


TORCH_NN: dict[str, Callable[..., Any]] = {
    "_linear_cross_entropy_batch_chunked": _of_chunks,
    "_linear_cross_entropy_batch_chunked_no_reduction": _each_of_chunks,
}
