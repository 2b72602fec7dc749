"""Mistakes planted by hand in the JAX half of a pair, and what each is called.

Nothing here knows how a mistake is found. A workload is a function of what its port does; a
plant is that port with one thing done as people get it wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import instep


class Plant(NamedTuple):
    """A pair with a mistake in it.

    Args:
      name: of the plant.
      make: the pair.
      causes: names under which the mistake may go; more than one where they are one mistake
        here. Empty: the catalogue does not know it.
      place: the PyTorch module, parameter or call where it is; "" where it is nowhere.
      stage: that it must be found in, if no cause can be named.
    """

    name: str
    make: Callable[[], instep.Pair]
    causes: tuple[str, ...] = ()
    place: str = ""
    stage: str = ""


def rows(make: Callable[..., instep.Pair], table: dict[str, tuple[Any, ...]]) -> list[Plant]:
    """Plants from ``name: (what the port does, causes, place)``, causes apart by spaces."""
    return [
        Plant(name, lambda does=does: make(**does), tuple(causes.split()), *place)
        for name, (does, causes, *place) in table.items()
    ]
