"""The loop that every architecture is trained with, and random batches for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import instep


MICROBATCHES = 4


def trained(
    model: nn.Module, loss_fn: Callable[[nn.Module, Any], torch.Tensor], batch: Callable
) -> instep.TorchLoop:
    """AdamW with clipping and accumulation, in train mode.

    Args:
      model: as it was made.
      loss_fn: ``(model, microbatch) -> scalar``.
      batch: makes one microbatch.
    """
    return instep.TorchLoop(
        model.train(),
        loss_fn,
        torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3),
        [batch() for _ in range(MICROBATCHES)],
        clip_grad_norm=1.0,
        accumulate=2,
    )


def own_loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a model of transformers computes from its labels."""
    return model(**batch).loss


def tokens(batch: int, length: int, vocab: int, low: int = 4) -> torch.Tensor:
    """Token ids; those below ``low`` are special."""
    return torch.randint(low, vocab, (batch, length))


def padded(ids: torch.Tensor, pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """``(ids, attention_mask)`` with the last row three tokens shorter."""
    mask = torch.ones_like(ids)
    mask[-1, -3:] = 0
    return torch.where(mask == 1, ids, pad), mask


def ignored(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Labels: the tokens themselves, padding left out."""
    return torch.where(mask == 1, ids, -100)
