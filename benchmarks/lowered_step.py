"""A lowered PyTorch loop beside its Flax twin written by hand, and beside PyTorch eager.

    python benchmarks/lowered_step.py [--rounds 30] [--json benchmarks/results/NAME.json]

Of each workload: the seconds to lower it (export and table), to trace and compile the step of
either JAX half, and the time of a step, from the same weights on the same batches. Rounds are
interleaved in changing order, and ratios are taken within the round. Nothing is asserted: a
timing is not a test.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from instep import workloads
from instep._loop import initial_state, train_step
from instep.bridge._from_torch import jax_loop_of, lowered_loss
from instep.bridge._tensors import batch_of
from instep.bridge._torch_loop import run_step, windows
from instep.parity._environment import environment


STEPS = 10


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Seconds of every stage, and paired ratios of the step."""
    pair = workloads.get(name).make_pair()
    stream = list(islice(windows(pair.torch), STEPS))

    start = time.perf_counter()
    loss_fn = lowered_loss(pair.torch)
    lowering = time.perf_counter() - start
    halves = {
        "lowered": (jax_loop_of(pair.torch, loss_fn), loss_fn.leaves),
        "flax": (pair.jax, pair.batch),
    }
    compiled, states, batches, compiling = {}, {}, {}, {}
    for who, (loop, convert) in halves.items():
        states[who] = initial_state(loop)
        batches[who] = [
            jax.tree.map(jnp.asarray, batch_of(window, convert)) for window in stream
        ]
        start = time.perf_counter()
        compiled[who] = train_step(loop).lower(states[who], batches[who][0]).compile()
        compiling[who] = time.perf_counter() - start

    def steps_of(who: str) -> None:
        if who == "torch":
            for n, window in enumerate(stream, start=1):
                run_step(pair.torch, window, n)
            return
        for batch in batches[who]:
            states[who], _ = compiled[who](states[who], batch)
        jax.block_until_ready(states[who])

    contenders = ["lowered", "flax", "torch"]
    seconds: dict[str, list[float]] = {who: [] for who in contenders}
    for n in range(rounds + 3):
        for who in contenders[:: 1 if n % 2 else -1]:
            start = time.perf_counter()
            steps_of(who)
            seconds[who].append((time.perf_counter() - start) / STEPS)
    kept = {who: np.array(times[3:]) for who, times in seconds.items()}
    return {
        "workload": name,
        "lowering s": round(lowering, 2),
        **{f"{who}: trace and compile s": round(s, 2) for who, s in compiling.items()},
        **{f"{who}: ms per step": _band(times * 1e3) for who, times in kept.items()},
        "lowered / flax": _band(kept["lowered"] / kept["flax"]),
        "lowered / torch": _band(kept["lowered"] / kept["torch"]),
        "rounds": rounds,
    }


def _band(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(values, [10, 50, 90])
    return {"p10": round(low, 4), "median": round(median, 4), "p90": round(high, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [measure(name, options.rounds) for name in workloads.names()]
    command = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    text = json.dumps({"commit": commit, "environment": environment(), "rows": rows}, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
