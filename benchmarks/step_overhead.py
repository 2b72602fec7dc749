"""What instep's fused step costs over the same step written by hand in jax + optax.

    python benchmarks/step_overhead.py [--rounds 40] [--json benchmarks/results/NAME.json]

Both contenders start from the same weights and take the same batches, already on the device;
both are jitted and donated. Rounds are interleaved, each times ``STEPS`` steps of one after
``STEPS`` of the other, in changing order, and the ratio is taken within the round. Compilation
is not timed. Nothing is asserted: a timing is not a test.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from instep import workloads
from instep._loop import initial_state, train_step
from instep.bridge._tensors import batch_of
from instep.bridge._torch_loop import windows
from instep.parity._environment import environment
from instep.workloads import digits_cnn as cnn


STEPS = 20

Step = Callable[[Any, Any], tuple[Any, Any]]


def cnn_by_hand(loop) -> tuple[Any, Step]:
    """digits-cnn in jax + optax: scan, average, clip, update."""
    tx = optax.chain(
        optax.clip_by_global_norm(cnn.MAX_NORM),
        optax.add_decayed_weights(cnn.WEIGHT_DECAY),
        optax.sgd(optax.cosine_decay_schedule(cnn.LR, cnn.STEPS), momentum=cnn.MOMENTUM),
    )

    def loss_fn(params, buffers, batch):
        out = loop.loss_fn(params, jax.tree.map(lambda x: x, buffers), batch, None)
        return out.total, out.buffers

    def step(state, batch):
        params, buffers, opt_state = state

        def microstep(carry, microbatch):
            grads, loss, buffers = carry
            (value, buffers), g = jax.value_and_grad(loss_fn, has_aux=True)(
                params, buffers, microbatch
            )
            return (jax.tree.map(jnp.add, grads, g), loss + value, buffers), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        (grads, loss, buffers), _ = jax.lax.scan(microstep, (zeros, 0.0, buffers), batch)
        grads = jax.tree.map(lambda g: g / loop.accumulate, grads)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), buffers, opt_state), loss

    params, buffers = _copies((loop.params, loop.buffers))
    return (params, buffers, tx.init(params)), jax.jit(step, donate_argnums=0)


def mlp_by_hand(loop) -> tuple[Any, Step]:
    """digits-mlp in jax + optax: the five lines of the optax tutorial."""

    def step(state, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(loop.loss_fn)(params, batch)
        updates, opt_state = loop.tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    params = _copies(loop.params)
    return (params, loop.tx.init(params)), jax.jit(step, donate_argnums=0)


BY_HAND = {"digits-cnn": cnn_by_hand, "digits-mlp": mlp_by_hand}


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Seconds per step of both contenders, and their paired ratio."""
    pair = workloads.get(name).make_pair()
    loop = pair.jax
    batches = [
        jax.tree.map(jnp.asarray, batch_of(window, pair.batch))
        for window in islice(windows(pair.torch), STEPS)
    ]
    contenders = {
        "instep": (initial_state(loop), train_step(loop)),
        "by hand": BY_HAND[name](replace(loop)),
    }
    states = {who: state for who, (state, _) in contenders.items()}
    seconds: dict[str, list[float]] = {who: [] for who in contenders}
    for n in range(rounds + 3):
        for who in sorted(contenders, reverse=bool(n % 2)):
            start, step = time.perf_counter(), contenders[who][1]
            for batch in batches:
                states[who], out = step(states[who], batch)
            jax.block_until_ready((states[who], out))
            seconds[who].append((time.perf_counter() - start) / STEPS)
    kept = {who: np.array(times[3:]) for who, times in seconds.items()}
    ratio = kept["instep"] / kept["by hand"]
    return {
        "workload": name,
        **{f"{who} ms per step": _band(times * 1e3) for who, times in kept.items()},
        "ratio": _band(ratio),
        "rounds": rounds,
        "steps per round": STEPS,
    }


def _band(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(values, [10, 50, 90])
    return {"p10": round(low, 4), "median": round(median, 4), "p90": round(high, 4)}


def _copies(tree):
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = []
    print(f"{'workload':<12} {'instep':>12} {'by hand':>12} {'ratio (p10 to p90)':>24}")
    for name in BY_HAND:
        r = measure(name, args.rounds)
        ms = [f"{r[f'{who} ms per step']['median']:.3f} ms" for who in ("instep", "by hand")]
        q = r["ratio"]
        band = f"{q['median']:.3f} ({q['p10']:.3f} to {q['p90']:.3f})"
        print(f"{name:<12} {ms[0]:>12} {ms[1]:>12} {band:>24}")
        results.append(r)
    if args.json:
        hardware = {
            "device": str(jax.devices()[0].device_kind),
            "cores": os.cpu_count(),
            "processor": platform.machine(),
        }
        record = {"commit": _commit(), "hardware": hardware, "environment": environment()}
        args.json.write_text(json.dumps(record | {"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
