"""From the TARGET of a command to what it names."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import workloads
from .._errors import TargetError


def resolve(target: str) -> Any:
    """What ``target`` names: a ``Workload``, or what the named callable returns.

    Args:
      target: the name of a workload, ``path/to/file.py:callable`` or
        ``package.module:callable``; the callable takes no argument.

    Raises:
      TargetError: nothing is found there, or importing or calling it raises.
    """
    if ":" not in target:
        if target in workloads.names():
            return workloads.get(target)
        known = workloads.names()
        raise TargetError(
            f"unknown workload {target!r}{_suggest(target, known)}. The workloads are "
            f"{', '.join(known)}; your own is path/to/file.py:callable or "
            f"package.module:callable."
        )
    where, _, name = target.rpartition(":")
    module = _load(where)
    if not callable(getattr(module, name, None)):
        own = sorted(
            n
            for n, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        )
        raise TargetError(
            f"{where} has no callable {name!r}{_suggest(name, own)}. It defines "
            f"{', '.join(own) or 'none'}."
        )
    try:
        return getattr(module, name)()
    except Exception as error:
        raise TargetError(f"{target} raised when called: {_where(error)}") from error


def _load(where: str) -> ModuleType:
    path = Path(where)
    try:
        if path.suffix != ".py":
            return importlib.import_module(where)
        if not path.is_file():
            raise TargetError(
                f"no file {where!r} in {Path.cwd()}. TARGET is path/to/file.py:callable."
            )
        return _load_file(path)
    except TargetError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):
            raise TargetError(f"{where} raised on import: {_where(error)}") from error
        raise TargetError(
            f"no module {where!r} can be imported. Give a file as path/to/file.py:callable."
        ) from error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise TargetError(f"{where} raised on import: {_where(error)}") from error


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"instep_target_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up
    sys.path.insert(0, str(path.parent.resolve()))  # as `python path/to/file.py` does
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _where(error: BaseException) -> str:
    """``ValueError: message (my_loop.py:12)``: the innermost line that is not instep's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith((_HERE, "<frozen"))]
    at = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{at}"


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


_HERE = str(Path(__file__).parent.parent)
