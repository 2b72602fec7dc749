"""Operators of single elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .... import ops


ATEN: dict[str, Callable[..., Any]] = {"abs": ops.abs}
