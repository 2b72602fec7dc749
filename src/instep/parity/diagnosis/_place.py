"""Where the forward or backward pass of JAX parts from PyTorch's: the first number missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...bridge._arrays import tensor_to_array
from ...bridge._tensors import tensors_in
from .._records import Place
from ._evidence import Evidence
from ._passes import window_of, work_of
from ._rewrite import Call, Rewriting
from ._step import Step
from ._trace import Fingerprint, Trace, Value, same_numbers


BEFORE = 3  # calls, on each way to the one that is lost


@dataclass
class Node:
    """A call of PyTorch's pass, and what it made."""

    call: Call
    made_of: list[int]  # numbers of the calls that made its tensors
    print: Fingerprint | None  # None: nothing by which it could be told
    made: np.ndarray | None
    gradient: Fingerprint | None = None
    found: bool = False
    reaches: bool = False  # whether anything that is made of it is found


def forward_place(seen: Trace, evidence: Evidence, step: Step) -> Place | None:
    """The first call whose result is missing, and everything that is made of it; None: none."""
    nodes = _nodes(seen, evidence, step)
    lost = _first_lost(nodes)
    if lost is None:
        return None
    before = _module_before(nodes, lost)
    after = f"{before.name} in {before.module}" if before else ""
    return Place(lost.call.module, lost.call.name, _line(seen, lost, nodes), after)


def reached(seen: Trace, evidence: Evidence, step: Step) -> int:
    """How many calls of the pass come before the first that is lost."""
    nodes = _nodes(seen, evidence, step)
    lost = _first_lost(nodes)
    return len(nodes) + 1 if lost is None else lost.call.number


def suspects(seen: Trace, evidence: Evidence, step: Step) -> frozenset[int]:
    """The calls whose own results are not missed, and which may be wrong all the same.

    Those before the first that is lost: JAX may have the right numbers too, and use others. And
    those whose results nothing tells: one number, all alike, or not finite.
    """
    nodes = _nodes(seen, evidence, step)
    found = {node.call.number for node in nodes if node.print is None}
    lost = _first_lost(nodes)
    now = [lost] if lost else []
    for _ in range(BEFORE):
        now = [_by_number(nodes, number) for node in now for number in node.made_of]
        found |= {node.call.number for node in now}
    return frozenset(found)


def backward_place(seen: Trace, evidence: Evidence, step: Step) -> Place | None:
    """The last call whose result has a gradient that is missing: there it parts, going back."""
    nodes = _nodes(seen, evidence, step, backward=True)
    there = {
        node.call.number: seen.find(node.gradient, scaled=True)
        for node in nodes
        if node.gradient is not None
    }
    for node in reversed(nodes):
        if there.get(node.call.number, True):
            continue
        users = [n for n in nodes if node.call.number in n.made_of]
        if users and all(there.get(n.call.number) for n in users):
            last = users[-1].call
            line = next((v.line for v in there[last.number] if v.line), "")
            return Place(last.module, last.name, line, backward=True)
    return None


def _nodes(seen: Trace, evidence: Evidence, step: Step, backward: bool = False) -> list[Node]:
    nodes: list[Node] = []
    makers: dict[int, int] = {}
    alive: list[Any] = []

    def watch(call: Call, made: Any) -> None:
        tensors = [x for x in tensors_in(made) if x.is_floating_point()]
        given = [
            makers[id(x)] for x in tensors_in((call.args, dict(call.kwargs))) if id(x) in makers
        ]
        array = tensor_to_array(tensors[0].detach()) if tensors else None
        node = Node(call, given, _print(array), array)
        for x in tensors:
            makers[id(x)] = call.number
        if backward and tensors and tensors[0].requires_grad:
            tensors[0].register_hook(lambda g, node=node: _keep(node, g))
        alive.append(made)
        nodes.append(node)

    work = work_of(evidence)
    (first, *_) = window_of(evidence, step)
    with torch.set_grad_enabled(backward), Rewriting(work.model, step.changes("call"), watch):
        loss = work.loss_fn(work.model, first)
    if backward:
        loss.backward()
        for p in work.model.parameters():
            p.grad = None
        return nodes
    for node in nodes:
        node.found = bool(_found(seen, node))
    for node in reversed(nodes):
        node.reaches = node.reaches or node.found
        if node.reaches:
            for number in node.made_of:
                _by_number(nodes, number).reaches = True
    return nodes


def _module_before(nodes: list[Node], lost: Node) -> Call | None:
    """The last call of another module whose numbers the lost one takes."""
    now, known = list(reversed(lost.made_of)), set(lost.made_of)
    for number in now:  # grows on the way
        node = _by_number(nodes, number)
        if node.call.module != lost.call.module:
            return node.call if node.call.module else None
        new = [x for x in reversed(node.made_of) if x not in known]
        known |= set(new)
        now += new
    return None


def _by_number(nodes: list[Node], number: int) -> Node:
    return next(node for node in nodes if node.call.number == number)


def _found(seen: Trace, node: Node) -> list[Value]:
    """The JAX values with the numbers that the node made."""
    if node.print is None or node.made is None:
        return []
    return [x for x in seen.find(node.print) if same_numbers(node.made, x.array)]


def _keep(node: Node, gradient: torch.Tensor) -> None:
    node.gradient = _print(tensor_to_array(gradient.detach()))


# What moves, casts or copies numbers is no place of its own.
CARRIERS = ("to", "type", "float", "double", "half", "bfloat16", "clone", "contiguous")


def _first_lost(nodes: list[Node]) -> Node | None:
    """The first call whose result is lost, and everything that is made of it."""
    lost = (n for n in nodes if n.print is not None and not n.reaches)
    return next((n for n in lost if n.call.name not in CARRIERS), None)


def _line(seen: Trace, lost: Node, nodes: list[Node]) -> str:
    """The line that makes of what the lost call takes what PyTorch has nowhere, or made it."""
    known = {value.identity for node in nodes for value in _found(seen, node)}
    for number in reversed(_sources(nodes, lost)):
        values = _found(seen, _by_number(nodes, number))
        uses = [v for value in values for v in seen.uses(value)]
        strangers = [v for v in uses if v.identity not in known]
        lines = [_line_of(seen, v) for v in strangers] + [v.line for v in (*uses, *values)]
        if there := next(filter(None, lines), ""):
            return there
    return ""


def _line_of(seen: Trace, value: Value) -> str:
    """Its own, or that of the first made of it: inside of a library function there is none."""
    while not value.line and (uses := seen.uses(value)):
        value = uses[0]
    return value.line


def _sources(nodes: list[Node], lost: Node) -> list[int]:
    """The calls that made what the lost one takes; of what only carries, those before it."""
    found: list[int] = []
    for number in lost.made_of:
        node = _by_number(nodes, number)
        carries = node.call.name in CARRIERS and not node.found
        found += _sources(nodes, node) if carries else [number]
    return found


def _print(array: np.ndarray | None) -> Fingerprint | None:
    """None of what says nothing: no number, one number, all alike, or not finite."""
    if array is None or array.size < 1 or not (abs(array) < float("inf")).all():
        return None
    alike = array.size > 1 and array.min() == array.max()
    return None if alike or not array.any() else Fingerprint.of(array)
