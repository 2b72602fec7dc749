"""From the TARGET of a command to what it names."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import workloads
from .._errors import TargetError, where


def resolve(target: str, precision: str = "float32") -> Any:
    """What ``target`` names: a ``Workload``, or what the named callable returns.

    Args:
      target: the name of a workload, ``path/to/file.py:callable`` or
        ``package.module:callable``; the callable takes no argument.
      precision: of a workload, see ``workloads.get``.

    Raises:
      TargetError: nothing is found there, or importing or calling it raises.
    """
    if ":" not in target:
        if target in workloads.names():
            return workloads.get(target, precision)
        known = workloads.names()
        if target.endswith(".py"):
            raise TargetError(f"which callable of {target}? TARGET is {target}:callable.")
        raise TargetError(
            f"unknown workload {target!r}{_suggest(target, known)}. The workloads are "
            f"{', '.join(known)}; your own is path/to/file.py:callable or "
            f"package.module:callable."
        )
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise TargetError(
            f"{target!r} names no callable; TARGET is path/to/file.py:callable or "
            f"package.module:callable."
        )
    with _importable(place):
        return _call(target, place, name)


def _call(target: str, place: str, name: str) -> Any:
    module = _load(place)
    if not callable(getattr(module, name, None)):
        own = sorted(
            n
            for n, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        )
        raise TargetError(
            f"{place} has no callable {name!r}{_suggest(name, own)}. It defines "
            f"{', '.join(own) or 'none'}."
        )
    try:
        return getattr(module, name)()
    except (Exception, SystemExit) as error:
        raise TargetError(f"{target} raised when called: {where(error)}") from error


def _load(place: str) -> ModuleType:
    path = Path(place)
    try:
        if path.suffix != ".py":
            return importlib.import_module(place)
        if not path.is_file():
            raise TargetError(
                f"no file {place!r} in {Path.cwd()}. TARGET is path/to/file.py:callable."
            )
        return _load_file(path)
    except TargetError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise TargetError(f"{place} raised on import: {where(error)}") from error
        raise TargetError(
            f"no module {place!r} can be imported. Give a file as path/to/file.py:callable."
        ) from error
    except (Exception, SystemExit) as error:
        raise TargetError(f"{place} raised on import: {where(error)}") from error


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"instep_target_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(place: str):
    """Let a file and its callable import their neighbours, as ``python file.py`` does."""
    folder = str(Path(place).parent.resolve() if place.endswith(".py") else Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
