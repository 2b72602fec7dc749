"""What the JAX half of a comparison must be."""

from __future__ import annotations

from typing import Any

from .._loop import JaxLoop, OpaqueLoop


def check_half(half: Any, what: str, accumulate: int, drop_last: bool) -> None:
    """Raise TypeError or ValueError unless ``half`` can go beside a PyTorch loop.

    Args:
      half: a ``JaxLoop`` or an opaque one.
      what: the messages call it.
      accumulate, drop_last: of the PyTorch loop.
    """
    if not isinstance(half, JaxLoop | OpaqueLoop):
        raise TypeError(
            f"{what} is a {type(half).__name__}; give an instep.JaxLoop or "
            f"JaxLoop.opaque(step, state, view)."
        )
    for name, here in (("accumulate", accumulate), ("drop_last", drop_last)):
        there = getattr(half, name, None)
        if isinstance(half, JaxLoop) and here != there:
            raise ValueError(
                f"the halves accumulate over different windows: PyTorch has {name}={here}, "
                f"JAX {there}. Both see the same microbatches; make {name} equal."
            )
