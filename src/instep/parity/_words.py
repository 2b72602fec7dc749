"""What a report says of a divergence, in words."""

from __future__ import annotations

from ._records import Divergence, Measurement


def relative(value: float, m: Measurement) -> str:
    """``value`` over the maximum of the leaf."""
    if value == 0.0:
        return "0"
    return f"{value / m.scale:.1e}" if m.scale else f"{value:.1e} abs"


def where(first: Divergence) -> str:
    """``step 3, stage optimizer: update of fc.weight (JAX: fc.kernel)``"""
    walk = "" if first.walk == "float64" else f"{first.walk}, "
    jax = f" (JAX: {first.jax})" if first.jax else ""
    leaf = f"{first.leaf.kind} of {first.leaf.name}"
    return f"{walk}step {first.step}, stage {first.stage}: {leaf}{jax}"


def how_far(first: Divergence) -> str:
    """``1.0e-02 of its maximum, 1.3e+09 times the bound (floor 2.1e-16)``"""
    m = first.measurement
    return (
        f"{relative(m.error, m)} of its maximum, {m.ratio:.2g} times the bound "
        f"(floor {relative(m.floor, m)})"
    )
