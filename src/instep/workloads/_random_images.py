"""Random images with random labels: for speed alone, there is nothing to learn in them."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, TensorDataset


def train_loader(
    side: int, classes: int, batch_size: int, batches: int = 8, seed: int = 0
) -> DataLoader:
    """``batches`` microbatches ``(images, labels)``: (B, 3, side, side) normal, (B,) int64."""
    draw = torch.Generator().manual_seed(seed)
    count = batches * batch_size
    images = torch.randn(count, 3, side, side, generator=draw)
    labels = torch.randint(classes, (count,), generator=draw)
    return DataLoader(TensorDataset(images, labels), batch_size=batch_size, drop_last=True)


def held_out(side: int, classes: int, batch_size: int) -> list[tuple[torch.Tensor, ...]]:
    """One microbatch more, of another seed."""
    loader = train_loader(side, classes, batch_size, batches=1, seed=1)
    return [tuple(batch) for batch in loader]
