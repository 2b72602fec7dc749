"""What a step's matrix products and convolutions take alone: the floor under the step.

    python benchmarks/ceilings.py byte-gpt [--lowered] [--as-written] [--rounds 7] [--json FILE]

Every ``dot_general`` and ``conv_general_dilated`` of the step's jaxpr, loops counted, is jitted
and timed by itself on arrays that lie ready, and matrix products once more as PyTorch's
``einsum``. Their sum is what the step would take if all else were free; beside it the step, and
PyTorch's own loop. Times are medians, in milliseconds a step; JAX's are without what a call
costs that computes nothing, those of ``einsum`` contain it. A kernel alone has warm caches and
all cores to itself, so the floor is low.
"""

from __future__ import annotations

import argparse
import string
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from jax.extend import core

import provenance
from instep._on_cpu import as_written
from operations import made, torch_step


MATH = ("dot_general", "conv_general_dilated")
AT_LEAST = 0.05  # seconds of one timing


class Kernel(NamedTuple):
    """One product or convolution, and how often the step makes it."""

    eqn: core.JaxprEqn
    times: int

    @property
    def shapes(self) -> str:
        return " ".join(str(list(v.aval.shape)) for v in self.eqn.invars)

    @property
    def flops(self) -> float:
        left, right = (v.aval.shape for v in self.eqn.invars)
        made = np.prod(self.eqn.outvars[0].aval.shape, dtype=float)
        if self.eqn.primitive.name == "dot_general":
            ((contracted, _), _) = self.eqn.params["dimension_numbers"]
            return 2 * made * float(np.prod([left[i] for i in contracted]))
        out = self.eqn.params["dimension_numbers"].rhs_spec[0]
        return 2 * made * float(np.prod(right)) / right[out]

    def jax(self) -> Callable[[], Any]:
        run = jax.jit(partial(self.eqn.primitive.bind, **self.eqn.params))
        arrays = [jax.device_put(x) for x in self._arrays()]
        return lambda: jax.block_until_ready(run(*arrays))

    def torch(self) -> Callable[[], Any] | None:
        if self.eqn.primitive.name != "dot_general":
            return None
        equation = einsum(self.eqn)
        tensors = [torch.from_numpy(x) for x in self._arrays()]
        return lambda: torch.einsum(equation, *tensors)

    def _arrays(self) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        return [rng.normal(size=v.aval.shape).astype(v.aval.dtype) for v in self.eqn.invars]


def kernels(jaxpr: core.Jaxpr, times: int = 1) -> Iterator[Kernel]:
    """Of a jaxpr and what it calls; the body of a scan as often as it runs."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in MATH:
            yield Kernel(eqn, times)
        inside = times * eqn.params["length"] if eqn.primitive.name == "scan" else times
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                yield from kernels(getattr(value, "jaxpr", value), inside)


def _is_jaxpr(x: Any) -> bool:
    return isinstance(x, core.Jaxpr | core.ClosedJaxpr)


def einsum(eqn: core.JaxprEqn) -> str:
    """The equation of a ``dot_general``: batch axes, then the free ones of each side."""
    (contracted, batch) = eqn.params["dimension_numbers"]
    names = iter(string.ascii_letters)
    sides: list[dict[int, str]] = [{}, {}]
    made = []
    for kind in (batch, contracted):
        for i, j in zip(*kind, strict=True):
            sides[0][i] = sides[1][j] = next(names)
            made += [sides[0][i]] if kind is batch else []
    for side, v in zip(sides, eqn.invars, strict=True):
        free = [i for i in range(v.aval.ndim) if i not in side]
        side |= {i: next(names) for i in free}
        made += [side[i] for i in free]
    left, right = ("".join(side[i] for i in sorted(side)) for side in sides)
    return f"{left},{right}->{''.join(made)}"


@jax.jit
def identity(x: jax.Array) -> jax.Array:
    """What a call costs that computes nothing: subtracted from each kernel's time."""
    return x


def median(run: Callable[[], Any], rounds: int) -> float:
    """Milliseconds of one call, after two that warm up."""
    run(), run()
    start = time.perf_counter()
    run()
    n = max(1, round(AT_LEAST / (time.perf_counter() - start)))
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(n):
            run()
        taken.append(1e3 * (time.perf_counter() - start) / n)
    return float(np.median(taken))


def measure(name: str, lowered: bool, rounds: int) -> dict[str, Any]:
    loop, window, train_step, state, batch = made(name, lowered)
    found = Counter[str]()
    first: dict[str, core.JaxprEqn] = {}
    for one in kernels(jax.make_jaxpr(train_step)(state, batch).jaxpr):
        key = f"{one.shapes} {one.eqn.params}"
        found[key] += one.times
        first.setdefault(key, one.eqn)
    nothing = jax.device_put(np.zeros(()))
    call = median(lambda: jax.block_until_ready(identity(nothing)), rounds)
    rows = []
    for key, times in found.items():
        one = Kernel(first[key], times)
        theirs = one.torch()
        rows.append(
            {
                "kernel": one.eqn.primitive.name,
                "shapes": one.shapes,
                "times": times,
                "gflop": one.flops / 1e9,
                "jax": max(0.0, median(one.jax(), rounds) - call),
                "torch": None if theirs is None else median(theirs, rounds),
            }
        )
    step = jax.jit(train_step, donate_argnums=0)
    held = [state]

    def ours() -> None:
        held[0], metrics = step(held[0], batch)
        jax.block_until_ready(metrics)

    return {
        "rows": sorted(rows, key=lambda row: -row["times"] * row["jax"]),
        "call": call,
        "step": median(ours, rounds),
        "torch": median(partial(torch_step, loop, window), rounds),
    }


def _rate(gflop: float, milliseconds: float | None) -> str:
    return f"{1e3 * gflop / milliseconds:.0f}" if milliseconds else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--lowered", action="store_true", help="PyTorch's half, lowered")
    parser.add_argument("--as-written", action="store_true", help="without instep's own forms")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    before = provenance.about()
    with as_written() if args.as_written else nullcontext():
        found = measure(args.name, args.lowered, args.rounds)
    print("  ms a step  GFLOP/s  PyTorch  times  kernel")
    for row in found["rows"]:
        rates = [_rate(row["gflop"], row[who]) for who in ("jax", "torch")]
        spent = row["times"] * row["jax"]
        said = f"{row['kernel']} {row['shapes']}"
        print(f"{spent:11.2f}  {rates[0]:>7}  {rates[1]:>7}  {row['times']:5}  {said}")
    floor = sum(row["times"] * row["jax"] for row in found["rows"])
    print(
        f"all of them {floor:.1f} ms; the step {found['step']:.1f}; PyTorch's loop "
        f"{found['torch']:.1f}: floor over PyTorch {floor / found['torch']:.2f}, step over "
        f"PyTorch {found['step'] / found['torch']:.2f}"
    )
    asked = {name: getattr(args, name) for name in ("lowered", "as_written")}
    provenance.write(args.json, before, target=args.name, **asked, **found)


if __name__ == "__main__":
    main()
