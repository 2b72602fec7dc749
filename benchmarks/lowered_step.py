"""A lowered PyTorch loop beside its Flax twin written by hand, and beside PyTorch's own.

    python benchmarks/lowered_step.py [--rounds 30] [--json benchmarks/results/NAME.json]

Of each workload and of the pairs in ``twins.py``: whether the hand-written halves are in step
(else the comparison says nothing), the seconds to lower (export and table), to trace and
compile the step of either JAX half, and the time of a step on the same batches. PyTorch's loop
is as a user writes it, without fused optimizer and channels_last. In each round every contender
runs one block, in an order that is shuffled, after a pause in which PyTorch's threads fall
asleep; ratios are taken within the round. No timing is asserted.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import instep
import provenance
from instep import bench, workloads
from instep._loop import initial_state, train_step
from instep.bridge._from_torch import jax_loop_of, lowered_loss
from instep.bridge._tensors import batch_of
from instep.bridge._torch_loop import run_step, windows
from twins import TWINS


STEPS, COMPILED, WARM_UP = 10, 3, 3
PAUSE = 0.02  # seconds


def measure(name: str, make_pair: Callable[[], instep.Pair], rounds: int) -> dict[str, Any]:
    """Seconds of every stage, and paired ratios of the step."""
    pair = make_pair()
    verdict = instep.parity.run(pair, 2).verdict
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
        compiling[who] = []
        for _ in range(COMPILED):
            jax.clear_caches()
            start = time.perf_counter()
            compiled[who] = train_step(loop).lower(states[who], batches[who][0]).compile()
            compiling[who].append(time.perf_counter() - start)

    def steps_of(who: str) -> None:
        if who == "torch":
            for n, window in enumerate(stream, start=1):
                run_step(pair.torch, window, n)
            return
        for batch in batches[who]:
            states[who], _ = compiled[who](states[who], batch)
        jax.block_until_ready(states[who])

    contenders, rng = ["lowered", "flax", "torch"], random.Random(0)
    seconds: dict[str, list[float]] = {who: [] for who in contenders}
    for _ in range(rounds + WARM_UP):
        rng.shuffle(contenders)
        for who in contenders:
            time.sleep(PAUSE)
            start = time.perf_counter()
            steps_of(who)
            seconds[who].append((time.perf_counter() - start) / STEPS)
    kept = {who: np.array(times[WARM_UP:]) for who, times in seconds.items()}
    return {
        "workload": name,
        "flax and torch": verdict,
        "lowering s": round(lowering, 2),
        **{f"{who}: trace and compile s": round(min(s), 2) for who, s in compiling.items()},
        "lowered / flax: trace and compile": round(
            min(compiling["lowered"]) / min(compiling["flax"]), 2
        ),
        **{f"{who}: ms per step": _band(times * 1e3) for who, times in kept.items()},
        "lowered / flax": _band(kept["lowered"] / kept["flax"]),
        "lowered / torch": _band(kept["lowered"] / kept["torch"]),
        "rounds": rounds,
    }


def _band(values: np.ndarray) -> dict[str, float]:
    return {name: round(x, 4) for name, x in asdict(bench.band(list(values))).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    before = provenance.about()
    digits = ("digits-cnn", "digits-mlp")
    pairs = {name: workloads.get(name).make_pair for name in digits} | TWINS
    rows = [measure(name, make_pair, options.rounds) for name, make_pair in pairs.items()]
    print(json.dumps(rows, indent=1))
    provenance.write(options.json, before, rows=rows)


if __name__ == "__main__":
    main()
