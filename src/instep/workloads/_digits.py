"""scikit-learn's handwritten digits: 1797 grey images of 8 x 8, real and bundled."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


TRAIN = 1344  # of 1797; the others are the test set
Images = np.ndarray  # (N, 1, 8, 8) float32 in [0, 1]
Labels = np.ndarray  # (N,) int64 in 0..9


@cache
def _digits() -> tuple[Images, Labels]:
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    order = np.random.default_rng(0).permutation(len(labels))
    images = (pixels / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    return images[order], labels.astype(np.int64)[order]


def train_loader(batch_size: int, seed: int = 0) -> DataLoader:
    """Shuffled microbatches ``(images, labels)``; the seed decides the order of each epoch."""
    images, labels = _digits()
    return DataLoader(
        TensorDataset(torch.tensor(images[:TRAIN]), torch.tensor(labels[:TRAIN])),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(seed),
    )


def test_set() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The 453 images that training does not see, and their labels, as one batch."""
    images, labels = _digits()
    return [(torch.tensor(images[TRAIN:]), torch.tensor(labels[TRAIN:]))]
