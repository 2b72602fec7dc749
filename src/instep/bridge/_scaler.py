"""torch.amp.GradScaler as instep.GradScaler, and back."""

from __future__ import annotations

import torch

from .._scaler import GradScaler


def scaler_from_torch(scaler: torch.amp.GradScaler) -> GradScaler | None:
    """The scaler as it stands now; None for one that is disabled.

    Args:
      scaler: a ``torch.amp.GradScaler``; left as it is.
    """
    if not scaler.is_enabled():
        return None
    state = scaler.state_dict()
    return GradScaler(
        growth_factor=state["growth_factor"],
        backoff_factor=state["backoff_factor"],
        growth_interval=state["growth_interval"],
        scale=state["scale"],
        growth_tracker=state["_growth_tracker"],
    )


def scaler_to_torch(scaler: GradScaler | None, into: torch.amp.GradScaler) -> None:
    """Write scale, growth tracker and factors into PyTorch's scaler, in place.

    PyTorch: ``torch.amp.GradScaler.load_state_dict``.

    Args:
      scaler: of the state; None without one.
      into: changed in place.

    Raises:
      ValueError: one of the two is disabled, or None, and the other is not.
    """
    if (scaler is None) == into.is_enabled():
        raise ValueError(
            f"the JAX side has {'no' if scaler is None else 'a'} scaler, and PyTorch's is "
            f"{'enabled' if into.is_enabled() else 'disabled'}. Give both or none."
        )
    if scaler is not None:
        into.load_state_dict(
            {
                "scale": float(scaler.scale),
                "growth_factor": float(scaler.growth_factor),
                "backoff_factor": float(scaler.backoff_factor),
                "growth_interval": int(scaler.growth_interval),
                "_growth_tracker": int(scaler.growth_tracker),
            }
        )
