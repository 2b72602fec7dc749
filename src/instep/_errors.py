"""Requests that cannot be met. The command line prints their message and exits with 2."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path


class RequestError(Exception):
    """The request was wrong; the message says what to change."""


class MissingExtraError(RequestError, ImportError):
    """A package that only an optional part of instep needs is not installed."""


class TargetError(RequestError):
    """The TARGET of a command does not name something that can be used."""


class CheckpointError(RequestError, ValueError):
    """A checkpoint is of another training, or none can be used; the message says why."""


class LoweringError(RequestError):
    """A PyTorch module cannot be lowered to JAX; the message says where, and what to do."""


class ParityError(RequestError):
    """The walk could not be made: one half raised, or the halves do not fit together."""


def where(error: BaseException) -> str:
    """``ValueError: message (my_loop.py:12)``: the innermost line of the user's own code."""
    libraries = (str(Path(__file__).parent), *sysconfig.get_paths().values(), "<")
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(libraries)]
    at = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{at}"
