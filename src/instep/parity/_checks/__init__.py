"""Checks of what a walk cannot replay: masks that repeat, data order, recompiles, labels."""

from ._all import checks as checks
