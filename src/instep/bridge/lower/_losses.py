"""The losses that a graph of ``torch.export`` holds, as calls of ``instep.losses``.

Losses that PyTorch writes in Python (gaussian_nll_loss, multilabel_soft_margin_loss,
triplet_margin_with_distance_loss, linear_cross_entropy, and mse_loss, l1_loss and huber_loss
with ``weight``) are exported as the operators they are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import torch

from ... import losses


aten = torch.ops.aten
REDUCTION = ("none", "mean", "sum")  # by their numbers in aten


def _of_aten(
    op: torch._ops.OpOverload, loss: Callable[..., jax.Array], **names: str
) -> Callable[..., jax.Array]:
    """``loss`` with the arguments of ``op``, of which ``names`` are called otherwise."""
    arguments = [names.get(a.name, a.name) for a in op._schema.arguments]

    def call(*args: Any, **kwargs: Any) -> jax.Array:
        given = dict(zip(arguments, args, strict=False)) | kwargs
        given["reduction"] = REDUCTION[given.get("reduction", 1)]
        return loss(**given)

    return call


_LOSSES: dict[torch._ops.OpOverload, Callable[..., jax.Array]] = {
    aten.binary_cross_entropy.default: losses.binary_cross_entropy,
    aten.binary_cross_entropy_with_logits.default: losses.binary_cross_entropy_with_logits,
    aten.cosine_embedding_loss.default: losses.cosine_embedding_loss,
    aten.ctc_loss.IntList: losses.ctc_loss,
    aten.ctc_loss.Tensor: losses.ctc_loss,
    aten.hinge_embedding_loss.default: losses.hinge_embedding_loss,
    aten.huber_loss.default: losses.huber_loss,
    aten.kl_div.default: losses.kl_div,
    aten.l1_loss.default: losses.l1_loss,
    aten.margin_ranking_loss.default: losses.margin_ranking_loss,
    aten.mse_loss.default: losses.mse_loss,
    aten.multi_margin_loss.default: losses.multi_margin_loss,
    aten.multilabel_margin_loss.default: losses.multilabel_margin_loss,
    aten.nll_loss_nd.default: losses.nll_loss,
    aten.poisson_nll_loss.default: losses.poisson_nll_loss,
    aten.smooth_l1_loss.default: losses.smooth_l1_loss,
    aten.soft_margin_loss.default: losses.soft_margin_loss,
    aten.triplet_margin_loss.default: losses.triplet_margin_loss,
}
LOSSES = {op: _of_aten(op, loss, self="input") for op, loss in _LOSSES.items()}
LOSSES[aten.cross_entropy_loss.default] = _of_aten(
    aten.cross_entropy_loss.default, losses.cross_entropy, self="logits", target="labels"
)
