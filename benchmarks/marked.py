"""A part of a page that a script makes: between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path


def filled(text: str, name: str, part: str) -> str:
    """``text`` with ``part`` between the markers of this name.

    Raises:
      ValueError: they are not there once.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    marked = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if len(marked.findall(text)) != 1:
        raise ValueError(f"the page must have {start} and {end} once")
    return marked.sub(lambda _: f"{start}\n\n{part}\n\n{end}", text)


def write_or_check(path: Path, page: Callable[[str], str], says: str) -> int:
    """The command line: writes the page, or with ``--check`` is 1 if it would be another."""
    parser = argparse.ArgumentParser(description=says)
    parser.add_argument("--check", action="store_true")
    text = path.read_text()
    if parser.parse_args().check:
        return int(page(text) != text)
    path.write_text(page(text))
    return 0
