"""The same random numbers at every step: a key that is burnt in, or never split."""

from __future__ import annotations

from collections.abc import Iterator

from jax.extend.core import JaxprEqn

from .._interpret import Values
from ._jaxpr import Run, equations, recording
from ._probe import Probe


DRAWING = ("random_bits", "random_gamma", "threefry2x32", "rng_bit_generator", "rng_uniform")


def repeated_draws(probe: Probe) -> Iterator[str]:
    """Two steps, from one state to the next, must not draw the same bits anywhere."""
    if not any(_draws(eqn) for eqn in equations(probe.jaxpr)):
        return
    state, drawn, step = probe.state(), [], recording(probe.step, _bits)
    for batch in probe.batches[:2]:
        (state, _), record = step(state, batch)
        drawn.append(_by_place(record))
    first, second = drawn
    again = [place for place, bits in first.items() if second.get(place) == bits]
    if again:
        yield (
            f"{len(again)} of {len(first)} random draws give the same bits at step 1 and at "
            f"step 2, the first one of shape {min(again)[1]}: a mask made of them is the same "
            f"at every step. Draw with the rng of loss_fn(params, buffers, batch, rng), or "
            f"keep a key in the state and split it at every step; what shall stay the same is "
            f"made outside of the step"
        )


def _draws(eqn: JaxprEqn) -> bool:
    return eqn.primitive.name in DRAWING


def _bits(eqn: JaxprEqn, values: Values, made: Values) -> Values | None:
    return made[-1:] if _draws(eqn) else None


def _by_place(record: list[Run]) -> dict[tuple, list[bytes]]:
    """The bits of every draw; a loop draws several times in one place."""
    bits: dict[tuple, list[bytes]] = {}
    for run in record:
        (drawn,) = run.kept
        if drawn.size:
            bits.setdefault((run.place, drawn.shape), []).append(drawn.tobytes())
    return {place: sorted(values) for place, values in bits.items()}
