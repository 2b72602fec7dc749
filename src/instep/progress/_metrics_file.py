"""The numbers of every step, one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from .._errors import RequestError
from ._record import Record, Sink


class MetricsFile(Sink):
    """A file that starts with one header, and goes on with a line for every step, in order.

    A run that goes on from step s keeps the lines up to s; what came after, done by a process
    that was killed before it saved, is done again and replaced. A run that starts at 0 starts a
    new file, and the old one is renamed: ``metrics.jsonl`` becomes ``metrics.1.jsonl``.

    Args:
      path: in a folder that exists.
      header: JSON; ``"starts"`` is added to it, the steps after which a process began.

    Raises:
      RequestError: there is a file that is none of this kind.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]):
        self.path = path
        self.moved: Path | None = None  # the old file, where it was renamed
        self._header = dict(header)
        self._file: TextIO | None = None
        if path.exists():
            _header_of(path)

    def start(self, step: int) -> None:
        there = self.path.exists()
        if there and step == 0:
            self.moved = _free(self.path)
            self.path.rename(self.moved)
        if there and step > 0:
            starts = [s for s in _header_of(self.path).get("starts", []) if s < step]
            _rewrite(self.path, self._header | {"starts": [*starts, step]}, step)
            self._file = self.path.open("a", buffering=1)
        else:
            self._file = self.path.open("x", buffering=1)  # line by line
            self._line(self._header | {"starts": [step]})

    def write(self, record: Record) -> None:
        self._line(record.json())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _line(self, content: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(content, allow_nan=False) + "\n")


def _rewrite(path: Path, header: Mapping[str, Any], step: int) -> None:
    """Replace the header, and cut what comes after ``step``; whole or not at all."""
    new = path.with_name(path.name + ".new")
    with path.open() as old, new.open("w") as file:
        next(old)
        file.write(json.dumps(header) + "\n")
        for line in old:
            content = _parsed(line)
            if content is not None and content.get("step", step + 1) <= step:
                file.write(line)
    os.replace(new, path)


def _header_of(path: Path) -> dict[str, Any]:
    with path.open(errors="replace") as file:
        content = _parsed(next(file, ""))
    if content is None or "starts" not in content:
        raise RequestError(
            f"{path} is no metrics file of instep: its first line is not a header. Give "
            f"another --metrics."
        )
    return content


def _parsed(line: str) -> dict[str, Any] | None:
    """None of what is no object: a killed process may have written half a line."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _free(path: Path) -> Path:
    number = 1
    while (other := path.with_suffix(f".{number}{path.suffix}")).exists():
        number += 1
    return other
