"""PyTorch's exported operators as pure JAX functions."""

from ._losses import LOSSES as LOSSES
