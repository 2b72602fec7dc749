"""What a call of the fused step takes on the host, beside a jitted call written by hand.

    python benchmarks/host_time.py [--leaves 6] [--rounds 40] [--json NAME.json]

The step is so small that the device has nothing to do: ``leaves`` parameters of 4 numbers,
their sum of squares, SGD. Both contenders are jitted and donated and take the same arguments;
that by hand has a tuple for its state. They share a process, since what is compared is a
difference of microseconds; rounds are interleaved in changing order.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import instep
from instep import bench
from instep.bench import _machine
from instep.parity._environment import environment


CALLS = 1000  # in a block
LIMIT = 20.0  # microseconds that the fused step may take above the other


def contenders(leaves: int) -> dict:
    """``(state, step)`` by name."""

    def loss_fn(params, batch):
        return sum(jnp.sum(p * p) for p in params.values()) * batch

    params = {f"p{i}": jnp.full(4, 0.1) for i in range(leaves)}
    tx = optax.sgd(1e-3)

    def by_hand(state, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    mine = jax.tree.map(lambda x: jnp.array(x, copy=True), params)
    return {
        "instep": (instep.init_state(params, tx), instep.make_train_step(loss_fn, tx)),
        "by hand": ((mine, tx.init(mine)), jax.jit(by_hand, donate_argnums=0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--leaves", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found, batch = contenders(args.leaves), jnp.ones(())
    states = {name: state for name, (state, _) in found.items()}
    microseconds: dict[str, list[float]] = {name: [] for name in found}
    for n in range(args.rounds + 3):
        for name in sorted(found, reverse=bool(n % 2)):
            step = found[name][1]
            gc.collect()
            gc.disable()
            start = time.perf_counter()
            for _ in range(CALLS):
                states[name], out = step(states[name], batch)
            jax.block_until_ready((states[name], out))
            microseconds[name].append(1e6 * (time.perf_counter() - start) / CALLS)
            gc.enable()
    kept = {name: np.array(times[3:]) for name, times in microseconds.items()}
    above = bench.band(list(kept["instep"] - kept["by hand"]))
    for name, times in kept.items():
        b = bench.band(list(times))
        print(f"{name:<8} {b.median:7.1f} us a call ({b.p10:.1f} to {b.p90:.1f})")
    print(
        f"above    {above.median:7.1f} us ({above.p10:.1f} to {above.p90:.1f}), limit {LIMIT}"
    )
    if args.json:
        record = {
            "commit": _machine.commit(),
            "machine": _machine.machine(),
            "environment": environment(),
            "leaves": args.leaves,
            "us": {name: list(times) for name, times in kept.items()},
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
