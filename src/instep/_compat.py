"""Optional packages, and the one place for differences between versions."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ._errors import MissingExtraError


_EXTRA = {
    "torch": "parity",
    "rich": "compare",
    "safetensors": "parity",
    "typer": "compare",
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


def scan_counts(params: Mapping[str, Any]) -> tuple[int, int]:
    """Of the operands of a ``scan``: how many are constants, and how many are carried."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carry, _ = params["ft_in"].unpack()  # from jax 0.12 on
    return len(constants), len(carry)


def jax_has_started() -> bool:
    """Whether JAX has chosen its devices, with the options that they take only then."""
    return sys.modules["jax._src.xla_bridge"].backends_are_initialized()
