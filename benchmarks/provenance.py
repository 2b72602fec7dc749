"""What a script measured, as JSON beside the sources and the machine it was measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instep.bench import _machine
from instep.parity._environment import environment


def about() -> dict[str, Any]:
    """Commit, machine, load and versions of now: asked for before anything is measured."""
    return {
        "commit": _machine.commit(),
        "machine": _machine.machine(),
        "load before": _machine.load(),
        "environment": environment(),
    }


def write(path: Path | None, before: Mapping[str, Any], **found: Any) -> None:
    """The record of a run; nothing without a path."""
    if path is not None:
        path.write_text(json.dumps({**before, **found}, indent=1) + "\n")
