"""Versions and machine, for the record."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import jax


PACKAGES = ("instep", "jax", "jaxlib", "torch", "optax", "flax", "numpy", "ml_dtypes")


def environment(device: str | None = None) -> dict[str, str]:
    """``{"python": "3.11.7", "machine": "x86_64", "jax": "0.10.2", ...}``

    Args:
      device: None: that of JAX, which then asks for its memory.
    """
    found = {"python": platform.python_version(), "machine": platform.machine()}
    found["device"] = jax.devices()[0].device_kind if device is None else device
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
