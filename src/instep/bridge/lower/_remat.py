"""Regions of a program, each run under ``jax.checkpoint``."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ._program import Call, Program, Ref
from ._table._control import checkpoint


Marked = tuple[Call, tuple[int, ...]]  # a call, and the regions around it, the outermost first


def in_regions(marked: Sequence[Marked], outputs: Any) -> tuple[Call, ...]:
    """The same calls, each run of those in one region as a program inside of the program.

    It takes what its calls need from before, and returns what is needed after it. A region that
    other calls interrupt becomes several.

    Args:
      marked: in the order they run in.
      outputs: the tree with what is needed after all of them.
    """
    needed = set(_names(outputs))
    made: list[Call] = []  # from the last to the first
    runs = [(number, list(run)) for number, run in itertools.groupby(marked, _outermost)]
    for number, run in reversed(runs):
        calls = [call for call, _ in run]
        if number is None:
            made += reversed(calls)
        else:
            kept = [call for call in calls if call.name in needed]
            inner = [(call, path[1:]) for call, path in run]
            made += reversed(list(_region(f"region {calls[0].name}", inner, kept)))
        needed.update(name for call in calls for name in _names((call.args, call.kwargs)))
    return tuple(reversed(made))


def _outermost(marked: Marked) -> int | None:
    return marked[1][0] if marked[1] else None


def _region(name: str, marked: Sequence[Marked], kept: Sequence[Call]) -> Iterator[Call]:
    """One call that computes ``kept``, and one for each that takes it out."""
    calls = [call for call, _ in marked]
    own = {call.name for call in calls}
    used = dict.fromkeys(x for call in calls for x in _names((call.args, call.kwargs)))
    given = [x for x in used if x not in own]
    outputs = tuple(Ref(call.name) for call in kept)
    body = Program(tuple(given), in_regions(marked, outputs), outputs)
    op, where = "torch.utils.checkpoint", calls[0].where
    yield Call(name, checkpoint, (body, *map(Ref, given)), {}, None, op, where)
    for i, call in enumerate(kept):
        item = (Ref(name), i)
        yield Call(call.name, operator.getitem, item, {}, call.made, call.op, call.where)


def _names(tree: Any) -> Iterable[str]:
    """What a tree of arguments refers to; a program inside it is given all it uses."""
    if isinstance(tree, Ref):
        yield tree.name
    elif isinstance(tree, list | tuple):
        for x in tree:
            yield from _names(x)
    elif isinstance(tree, dict):
        for x in tree.values():
            yield from _names(x)
