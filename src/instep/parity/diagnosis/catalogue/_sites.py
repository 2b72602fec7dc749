"""The calls of a forward pass that a mistake may be made in: all of a kind, or some."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .._evidence import Evidence
from .._mistake import Dial, Variant
from .._passes import calls
from .._rewrite import Call, Rewrite


def changed_calls(
    evidence: Evidence,
    names: tuple[str, ...],
    change: Rewrite,
    value: str = "",
    when: Callable[[Call], bool] = lambda call: True,
) -> Iterator[Variant]:
    """Variants that change the calls of these functions.

    All of them; those in modules of one name (``ln1`` of every block); those anywhere inside
    one module; each by itself. Where two of these are the same calls, the first is said.

    Args:
      evidence: whose forward pass it is.
      names: of functions of PyTorch.
      change: what it makes of such a call; None: nothing, here.
      value: what is used instead.
      when: which of these calls.
    """
    for where, chosen in _sites(evidence, names, when):
        numbers = frozenset(call.number for call in chosen)
        yield Variant({"call": _only(numbers, change)}, where, value, numbers)


def dialled_calls(
    evidence: Evidence,
    names: tuple[str, ...],
    argument: str,
    own: Callable[[Call], float],
    change: Callable[[Call, float], Call],
    when: Callable[[Call], bool] = lambda call: True,
) -> Iterator[Dial]:
    """Dials of a number that such calls are given, for the groups of ``changed_calls``.

    Args:
      evidence, names, when: as of ``changed_calls``.
      argument: what the number is called.
      own: the number that PyTorch gives a call.
      change: what a call is with another number.
    """
    for where, chosen in _sites(evidence, names, when):
        numbers = frozenset(call.number for call in chosen)
        yield Dial(_turning(numbers, change, where, argument), own(chosen[0]), numbers)


def _sites(
    evidence: Evidence, names: tuple[str, ...], when: Callable[[Call], bool]
) -> Iterator[tuple[str, list[Call]]]:
    """The groups of such calls, none of them twice."""
    found = [call for call in calls(evidence) if call.name in names and when(call)]
    seen: set[frozenset[int]] = set()
    for where, chosen in _groups(found):
        numbers = frozenset(call.number for call in chosen)
        if numbers and numbers not in seen:
            seen.add(numbers)
            yield where, chosen


def _turning(
    numbers: frozenset[int], change: Callable[[Call, float], Call], where: str, argument: str
) -> Callable[[float], Variant]:
    def turn(value: float) -> Variant:
        rewrite = _only(numbers, lambda call: change(call, value))
        said = f"{argument}={value:.6g}" if argument else f"{value:.6g}"
        return Variant({"call": rewrite}, where, said, numbers)

    return turn


def _groups(found: list[Call]) -> Iterator[tuple[str, list[Call]]]:
    modules = dict.fromkeys(call.module for call in found)
    yield (next(iter(modules)) if len(modules) == 1 else ""), found
    for last in dict.fromkeys(module.rpartition(".")[2] for module in modules):
        alike = [c for c in found if c.module.rpartition(".")[2] == last]
        inside = dict.fromkeys(c.module for c in alike)
        yield (next(iter(inside)) if len(inside) == 1 else f"every {last}"), alike
    parts = [module.split(".") for module in modules]
    inner = dict.fromkeys(".".join(p[:i]) for p in parts for i in range(1, len(p) + 1))
    for prefix in inner:
        yield prefix, [c for c in found if f"{c.module}.".startswith(f"{prefix}.")]
    for call in found:
        yield call.module, [call]


def _only(numbers: frozenset[int], change: Rewrite) -> Rewrite:
    return lambda call: change(call) if call.number in numbers else None
