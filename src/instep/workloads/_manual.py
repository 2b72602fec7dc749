"""The text of Python's reference manual that ``help()`` shows: English, and always there."""

from __future__ import annotations

import zlib
from functools import cache
from pydoc_data.topics import topics

import numpy as np


HELD_OUT = 8  # one topic in so many is for validation


def topic_names() -> tuple[list[str], list[str]]:
    """The topics for training and for validation, sorted."""
    train, validation = [], []
    for name in sorted(topics):
        last = zlib.crc32(name.encode()) % HELD_OUT == 0
        (validation if last else train).append(name)
    return train, validation


@cache
def alphabet() -> str:
    """The characters of all topics, sorted; the place of one in it is its code."""
    return "".join(sorted(set("".join(topics.values()))))


@cache
def manual_codes() -> tuple[np.ndarray, np.ndarray]:
    """The text for training and for validation, one topic after another; uint8."""
    code = {character: i for i, character in enumerate(alphabet())}
    train, validation = (
        np.array([code[c] for name in names for c in topics[name]], np.uint8)
        for names in topic_names()
    )
    return train, validation
