"""What a call of the fused step takes on the host, beside a jitted call written by hand.

    python benchmarks/host_time.py [--of digits-mlp] [--rounds 40] [--json NAME.json]

Without ``--of`` the step is so small that the device has nothing to do: six parameters of 4
numbers, their sum of squares, SGD. With it, it is that of a workload. All contenders are jitted
and donated: ``by hand`` returns a tuple and the loss; ``by hand, with records`` the same
numbers in a ``TrainState`` and ``Metrics``, and the count of steps and the weight that are in
them. They share a process, since what is compared is a difference of microseconds; rounds are
interleaved in changing order.
"""

from __future__ import annotations

import argparse
import gc
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import instep
import provenance
from instep import bench, workloads
from instep._loop import initial_state
from instep.bench import _by_hand


MICROSECONDS = 100_000  # a block, roughly


def squares() -> tuple[instep.JaxLoop, Any]:
    """A loop of nothing, and its batch."""

    def loss_fn(params, batch):
        return sum(jnp.sum(p * p) for p in params.values()) * batch

    params = {f"p{i}": jnp.full(4, 0.1) for i in range(6)}
    return instep.JaxLoop(loss_fn, optax.sgd(1e-3), params), jnp.ones(())


def workload(name: str) -> tuple[instep.JaxLoop, Any]:
    """Its JAX half, and a batch of it."""
    pair = workloads.get(name).make_pair()
    if pair.jax.accumulate > 1:
        raise ValueError(f"{name} accumulates over {pair.jax.accumulate} microbatches, not 1.")
    batches = pair.torch.batches
    batch = pair.batch(next(iter(batches() if callable(batches) else batches)))
    return pair.jax, jax.device_put(
        jax.tree.map(lambda x: x.numpy() if hasattr(x, "numpy") else x, batch)
    )


def contenders(loop: instep.JaxLoop) -> dict[str, tuple[Any, Any]]:
    """``(state, step)`` by name."""
    by_hand = _by_hand.step_by_hand(loop, loop.tx)

    def start() -> Any:
        params, buffers = jax.tree.map(jnp.copy, (loop.params, loop.buffers))
        return params, buffers, loop.tx.init(params)

    def with_records(state, batch):
        given = state.params, state.buffers, state.opt_state
        (params, buffers, opt_state), loss = by_hand(given, batch)
        after = replace(state, step=state.step + 1, params=params, opt_state=opt_state)
        return replace(after, buffers=buffers), instep.Metrics(loss, jnp.ones(()))

    return {
        "instep": (
            initial_state(loop),
            instep.make_train_step(loop.loss_fn, loop.tx, clip_grad_norm=loop.clip_grad_norm),
        ),
        "by hand": (start(), jax.jit(by_hand, donate_argnums=0)),
        "by hand, with records": (
            initial_state(loop),
            jax.jit(with_records, donate_argnums=0),
        ),
    }


def measured(loop: instep.JaxLoop, batch: Any, rounds: int) -> dict[str, np.ndarray]:
    """Microseconds a call, by contender, of every round."""
    found = contenders(loop)
    states = {name: state for name, (state, _) in found.items()}
    spent: dict[str, list[float]] = {name: [] for name in found}
    calls = 100
    for n in range(rounds + 3):
        for name in sorted(found, reverse=bool(n % 2)):
            step = found[name][1]
            gc.collect()
            gc.disable()
            start = time.perf_counter()
            for _ in range(calls):
                states[name], out = step(states[name], batch)
            jax.block_until_ready((states[name], out))
            spent[name].append(1e6 * (time.perf_counter() - start) / calls)
            gc.enable()
        if n == 1:  # nothing compiles any more
            calls = max(100, round(MICROSECONDS / spent["by hand"][-1]))
    return {name: np.array(times[3:]) for name, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", metavar="WORKLOAD")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    before = provenance.about()
    loop, batch = squares() if args.of is None else workload(args.of)
    us = measured(loop, batch, args.rounds)
    for name, times in us.items():
        b = bench.band(list(times))
        print(f"{name:<22} {b.median:7.1f} us a call ({b.p10:.1f} to {b.p90:.1f})")
    for name in ("by hand", "by hand, with records"):
        above = bench.band(list(us["instep"] - us[name]))
        ratio = bench.paired_ratio(list(us["instep"]), list(us[name]))
        print(
            f"instep above {name}: {above.median:.1f} us ({above.p10:.1f} to {above.p90:.1f})"
        )
        print(f"instep over {name}: {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})")
    kept = {name: list(times) for name, times in us.items()}
    provenance.write(args.json, before, of=args.of, us=kept)


if __name__ == "__main__":
    main()
