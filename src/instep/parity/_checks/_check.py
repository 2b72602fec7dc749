"""What a check found. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One question about a pair, and its answer."""

    name: str  # a key of CHECKS
    passed: bool  # False too where the check could not be made
    sentence: str = ""  # what was found, with numbers and the remedy; "" if it passed

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence or 'passed'}"
