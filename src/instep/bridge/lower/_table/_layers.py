"""Normalisation, attention, recurrent nets, embeddings, activations and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


ATEN: dict[str, Callable[..., Any]] = {}
RANDOM: dict[str, Callable[..., Any]] = {}  # these take a Draw first
