"""The collectives of a compiled step, inside and outside of its loops."""

from __future__ import annotations

import re
from collections import Counter


_OPERATION = re.compile(
    r"= .*? (all-reduce|reduce-scatter|all-gather|all-to-all|collective-permute)(?:-start)?\("
)
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=\{?(%[\w.\-, %]+)")


def collectives(text: str) -> tuple[Counter, Counter]:
    """How many there are of each, outside of all loops and in their bodies.

    Args:
      text: ``compiled.as_text()``.
    """
    computations = _computations(text)
    inside = set()
    for lines in computations.values():
        for line in lines:
            for body in re.findall(r"body=(%[\w.\-]+)", line):
                _reach(body, computations, inside)
    counts = Counter(), Counter()
    for name, lines in computations.items():
        for line in lines:
            if found := _OPERATION.search(line):
                counts[name in inside][found[1]] += 1
    return counts


def _computations(text: str) -> dict[str, list[str]]:
    computations, name = {}, ""
    for line in text.splitlines():
        if start := re.match(r"(?:ENTRY )?(%[\w.\-]+) .*\{$", line):
            name = start[1]
            computations[name] = []
        elif name:
            computations[name].append(line)
    return computations


def _reach(name: str, computations: dict[str, list[str]], found: set[str]) -> None:
    if name in found or name not in computations:
        return
    found.add(name)
    for line in computations[name]:
        for called in _CALLED.findall(line):
            for other in called.split(","):
                _reach(other.strip(), computations, found)
