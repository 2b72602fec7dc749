"""Real training problems, each with a PyTorch half and a Flax half."""

from __future__ import annotations

from importlib import import_module

from .._compat import require
from ._workload import Workload as Workload


_MODULES = {"digits-cnn": "digits_cnn", "digits-mlp": "digits_mlp"}


def names() -> list[str]:
    """The names that ``get`` knows."""
    return list(_MODULES)


def get(name: str) -> Workload:
    """The workload called ``name``.

    Raises:
      KeyError: there is none of that name.
      MissingExtraError: PyTorch, Flax or scikit-learn is not installed.
    """
    for package in ("torch", "flax", "sklearn"):
        require(package, f"the workload {name}")
    return import_module(f".{_MODULES[name]}", __name__).WORKLOAD
