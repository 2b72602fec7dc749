"""Optional packages, and the one place for differences between versions."""

from __future__ import annotations

import importlib
from types import ModuleType

from ._errors import MissingExtraError


_EXTRA = {
    "torch": "parity",
    "rich": "compare",
    "safetensors": "parity",
    "typer": "parity",
    "flax": "flax",
    "sklearn": "data",
    "grain": "data",
    "orbax": "checkpoint",
    "tensorboardX": "tensorboard",
}


def require(module: str, purpose: str) -> ModuleType:
    """Import ``module``, or say which extra of instep brings its package.

    Raises:
      MissingExtraError: the package is not installed.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingExtraError(
            f"{purpose} needs {package}, which is not installed. Run: "
            f"pip install 'instep[{_EXTRA[package]}]'"
        ) from None
