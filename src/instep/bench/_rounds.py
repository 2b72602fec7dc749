"""Interleaved rounds: one contender computes, all others wait."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ._process import Worker
from ._settings import Settings


LONGEST = 5.0  # seconds that a block of the slowest contender may take, if a step allows it


@dataclass(frozen=True)
class Rounds:
    """Seconds per step, by contender, a value for each round that is counted."""

    steps: int  # in a block
    seconds: dict[str, list[float]]
    handed_over: dict[str, list[float]]  # the same until the last step was handed over


def interleave(
    workers: Mapping[str, Worker],
    settings: Settings,
    on_round: Callable[[int], None] = lambda n: None,
) -> Rounds:
    """Run every contender once in each round, in an order that is shuffled anew."""
    steps = settings.steps or _steps_of_a_block(workers, settings)
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    handed: dict[str, list[float]] = {name: [] for name in workers}
    order, rng = list(workers), random.Random(settings.seed)
    for n in range(-settings.warm_up, settings.rounds):
        rng.shuffle(order)
        for name in order:
            time.sleep(settings.pause)
            block = workers[name].ask(steps=steps)
            if n >= 0:
                seconds[name].append(block["seconds"] / steps)
                handed[name].append(block["handed_over"] / steps)
        if n >= 0:
            on_round(n + 1)
    return Rounds(steps, seconds, handed)


def _steps_of_a_block(workers: Mapping[str, Worker], settings: Settings) -> int:
    """Enough for the fastest to take ``settings.block`` seconds; the same for all."""
    found = []
    for worker in workers.values():
        steps = 1
        while (taken := worker.ask(steps=steps)["seconds"]) < settings.block / 4:
            steps *= 4
        found.append(taken / steps)
    wanted = math.ceil(settings.block / min(found))
    return max(1, min(wanted, math.floor(LONGEST / max(found))))
