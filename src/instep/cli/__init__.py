"""``instep`` on the command line."""

from __future__ import annotations

import os
import sys

from .._compat import require
from .._errors import MissingExtraError


def main() -> None:
    """The console script: exit 0 in step, 1 not in step, 2 the request was wrong."""
    # PyTorch and XLA share the cores: a thread that spins while it waits stops the others. What
    # is timed has a process of its own, and waits as it does for everybody.
    if sys.argv[1:2] != ["bench"]:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        require("typer", "the command line")
        require("rich", "the command line")
    except MissingExtraError as error:
        print(f"instep: {error}", file=sys.stderr)
        sys.exit(2)
    from ._app import app

    app()
