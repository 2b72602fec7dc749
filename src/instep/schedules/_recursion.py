"""How PyTorch's schedulers move: a plain-Python model of ``scheduler.step()``, in float64.

PyTorch's schedulers are objects that overwrite ``optimizer.param_groups[0]["lr"]``; most
compute the new rate from the one they find there. When several share an optimizer
(``ChainedScheduler``, ``SequentialLR``) the rates are therefore not a function of their closed
forms. Here is what happens, in PyTorch's order, so that it can be run once and tabulated:

* Every constructor makes an initial step, in the order of construction. The first one saves the
  rate as ``initial_lr``, from which the later ones take theirs.
* ``SequentialLR`` puts ``initial_lr`` back, takes one off every leaf's ``last_epoch``, and
  makes the initial step of the member that is active at 0 once more. At a milestone the next
  member does not step, it *enters*: closed form at 0 if it has one, else its recursion.
* A sequence inside a sequence is stepped instead of started over, so that it is one step ahead
  of its members; and a chain in a sequence steps its members without their initial mode.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import jax
import numpy as np


Group = dict[str, float]  # of a PyTorch optimizer: lr, initial_lr, momentum, ...


class Running(Protocol):
    """A scheduler in motion, bound to its group."""

    def initial_step(self) -> None: ...
    def step(self) -> None: ...
    def enter(self) -> None: ...
    def undo(self) -> None: ...


@dataclass(frozen=True)
class Node:
    """A scheduler at rest."""

    name: str
    base_lr: float | None  # None: it brings its own rates

    def start(self, group: Group) -> Running:
        """PyTorch's constructor, with its initial step."""
        raise NotImplementedError

    def simulate(self, total_steps: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Rates and momenta (None: not touched) after 0, 1, ..., total_steps calls of step.

        Raises:
          ValueError: PyTorch raises on the way.
        """
        group: Group = {"lr": 0.0 if self.base_lr is None else self.base_lr}
        rates, momenta = [], []
        with jax.enable_x64(True):  # for functions of the user's that are written in JAX
            try:
                running = self.start(group)
                for count in range(total_steps + 1):
                    if count:
                        running.step()
                    rates.append(group["lr"])
                    momenta.append(group.get("momentum"))
            except ArithmeticError as error:
                raise ValueError(
                    f"{self.name} stops at step {len(rates)} with {error!r}, as PyTorch does. "
                    f"Check the members whose total_iters or factor is 0."
                ) from error
        cycled = momenta[0] is not None
        return np.array(rates, np.float64), np.array(momenta, np.float64) if cycled else None


@dataclass(frozen=True)
class Leaf(Node):
    """One scheduler. ``get_lr`` and ``get_momentum`` are functions of its ``Moment``."""

    get_lr: Callable[[Moment], float]
    closed_form: Callable[[Moment], float] | None = None
    get_momentum: Callable[[Moment], float] | None = None
    setup: Callable[[Group], None] | None = None  # what the constructor writes first
    own_base_lr: float | None = None  # replaces base_lr once the constructor is done
    advance: Callable[[Moment], None] | None = None  # last_epoch and memory; default: + 1

    def start(self, group: Group) -> Moment:
        return Moment(self, group)


@dataclass
class Moment:
    """What a leaf's rule may look at: PyTorch's attributes of the scheduler, and the group."""

    leaf: Leaf
    group: Group
    last_epoch: int = -1
    step_count: int = 0
    is_initial: bool = False
    base_lr: float = field(init=False)
    memory: tuple[int, ...] = ()  # of a scheduler that has one

    def __post_init__(self):
        if self.leaf.setup:
            self.leaf.setup(self.group)
        self.base_lr = self.group.setdefault("initial_lr", self.lr)
        self.initial_step()
        if self.leaf.own_base_lr is not None:
            self.base_lr = self.leaf.own_base_lr

    @property
    def lr(self) -> float:
        return self.group["lr"]

    def initial_step(self) -> None:
        self.step_count, self.is_initial = 0, True
        self.step()
        self.is_initial = False

    def step(self) -> None:
        self.step_count += 1
        if self.leaf.advance:
            self.leaf.advance(self)
        else:
            self.last_epoch += 1
        self._write(self.leaf.get_lr)

    def enter(self) -> None:
        self.last_epoch = 0
        self._write(self.leaf.closed_form or self.leaf.get_lr)

    def undo(self) -> None:
        self.last_epoch -= 1

    def _write(self, rule: Callable[[Moment], float]) -> None:
        self.group["lr"] = float(rule(self))
        if self.leaf.get_momentum:
            self.group["momentum"] = float(self.leaf.get_momentum(self))


@dataclass(frozen=True)
class Chain(Node):
    """All members step at every step, in order."""

    members: tuple[Node, ...]

    def start(self, group: Group) -> RunningChain:
        return RunningChain(self, [member.start(group) for member in self.members])


@dataclass
class RunningChain:
    chain: Chain
    members: list[Running]

    def initial_step(self) -> None:
        self.step()

    def step(self) -> None:
        for member in self.members:
            member.step()

    def enter(self) -> None:
        _refuse(self.chain)

    def undo(self) -> None:
        for member in self.members:
            member.undo()


@dataclass(frozen=True)
class Sequence(Node):
    """One member at a time; the next one takes over at its milestone."""

    members: tuple[Node, ...]
    milestones: tuple[int, ...]

    def start(self, group: Group) -> RunningSequence:
        members = [member.start(group) for member in self.members]
        group["lr"] = group["initial_lr"]
        for member in members:
            member.undo()
        members[bisect_right(self.milestones, 0)].initial_step()
        return RunningSequence(self, members)


@dataclass
class RunningSequence:
    sequence: Sequence
    members: list[Running]
    last_epoch: int = 0

    def initial_step(self) -> None:
        self.step()

    def step(self) -> None:
        self.last_epoch += 1
        milestones = self.sequence.milestones
        active = bisect_right(milestones, self.last_epoch)
        if active and milestones[active - 1] == self.last_epoch:
            self.members[active].enter()
        else:
            self.members[active].step()

    def enter(self) -> None:
        _refuse(self.sequence)

    def undo(self) -> None:
        for member in self.members:
            member.undo()


def common_base_lr(name: str, members: tuple[Node, ...]) -> float | None:
    """The ``base_lr`` of the members, which share one optimizer in PyTorch.

    Raises:
      ValueError: they have several.
    """
    given = [(m.name, m.base_lr) for m in members if m.base_lr is not None]
    if len({base_lr for _, base_lr in given}) > 1:
        listed = ", ".join(f"{name}(base_lr={base_lr})" for name, base_lr in given)
        raise ValueError(
            f"the members of {name} share one optimizer, hence one base_lr; got {listed}."
        )
    return given[0][1] if given else None


def _refuse(node: Node) -> None:
    raise ValueError(
        f"a {node.name} cannot be entered at a milestone of a sequential_lr: PyTorch raises "
        f"NotImplementedError there. It may be the first member; for a later one, put the "
        f"members of an inner sequential_lr and their milestones into the outer one."
    )
