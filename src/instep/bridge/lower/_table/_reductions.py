"""Reductions, cumulative sums, sorting and linear algebra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


ATEN: dict[str, Callable[..., Any]] = {}
