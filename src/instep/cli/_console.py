"""Where the commands print, and how a wrong request ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from .._errors import RequestError


out, err = Console(), Console(stderr=True)


@contextmanager
def request_errors() -> Iterator[None]:
    """A wrong request is one message and exit 2; anything unforeseen also keeps its trace."""
    try:
        yield
    except RequestError as error:
        failed(error)
        raise typer.Exit(2) from error
    except Exception as error:
        err.print_exception()
        raise typer.Exit(2) from error


def failed(error: Exception) -> None:
    err.print(f"instep: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
