"""``instep`` on the command line."""

from __future__ import annotations

import sys

from .._compat import require
from .._errors import MissingExtraError


def main() -> None:
    """The console script: exit 0 in step, 1 not in step, 2 the request was wrong."""
    try:
        require("typer", "the command line")
        require("rich", "the command line")
    except MissingExtraError as error:
        print(f"instep: {error}", file=sys.stderr)
        sys.exit(2)
    from ._app import app

    app()
