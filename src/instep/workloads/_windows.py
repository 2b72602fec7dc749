"""Windows of a long text, and the same windows one code later."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate


Microbatch = tuple[torch.Tensor, torch.Tensor]  # inputs and labels, (B, T) int64


class Windows(Dataset):
    """Windows that do not overlap: ``(inputs, labels)``, each ``(length,)`` int64."""

    def __init__(self, codes: np.ndarray, length: int):
        self.codes = codes  # (N,) uint8
        self.length = length

    def __len__(self) -> int:
        return (len(self.codes) - 1) // self.length

    def __getitem__(self, i: int) -> Microbatch:
        start = i * self.length
        window = torch.from_numpy(self.codes[start : start + self.length + 1].astype(np.int64))
        return window[:-1], window[1:]


def train_loader(codes: np.ndarray, length: int, batch_size: int, seed: int = 0) -> DataLoader:
    """Shuffled microbatches; the seed decides the order of each epoch."""
    return DataLoader(
        Windows(codes, length),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(seed),
    )


def held_out(codes: np.ndarray, length: int, batch_size: int, count: int) -> list[Microbatch]:
    """``count`` microbatches of windows that lie evenly over the whole text."""
    windows = Windows(codes, length)
    places = np.linspace(0, len(windows) - 1, count * batch_size).astype(int)
    return [default_collate([windows[i] for i in part]) for part in places.reshape(count, -1)]
