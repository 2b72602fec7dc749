"""Gradients of loops: what `_loop_sums` and `_residuals` change, in time and in memory.

    python benchmarks/loops.py [--rounds 12]

A transformer as a ``scan`` over its layers, and an LSTM over time, both in plain jax: each with
neither, with the sums alone, and with both. What else instep changes, it changes in all three.
Rounds are interleaved, and ratios are taken within the round. No timing is asserted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core.primitives import scan_p

from instep import _changed_scan, _on_cpu
from instep._scan import Body
from instep.bench import paired_ratio


LAYERS, BATCH, TIME, WIDTH, HEADS = 8, 4, 128, 128, 4  # of the transformer
EXAMPLES, STEPS = 32, 64  # of the LSTM
NO_SUMS = (_changed_scan, "loop_sums", lambda body: ())
NO_RESIDUALS = (_on_cpu, "residuals", lambda jaxpr: {})
SWITCHED_OFF = {"neither": (NO_SUMS, NO_RESIDUALS), "sums": (NO_RESIDUALS,), "both": ()}
CALLS, WARM_UP = 4, 2  # in a round; rounds
Case = tuple[Callable[..., jax.Array], Any, jax.Array]


def draw(*shape: int) -> jax.Array:
    found = np.random.default_rng(sum(shape)).standard_normal(shape) / 20
    return jnp.asarray(found, jnp.float32)


def transformer() -> Case:
    """The loss, its weights stacked by layer, and embedded tokens."""

    def norm(x, gain):
        x = x - x.mean(-1, keepdims=True)
        return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5) * gain

    def attend(x_BTD):
        split = (BATCH, TIME, HEADS, WIDTH // HEADS)
        q, k, v = (part.reshape(split) for part in jnp.split(x_BTD, 3, -1))
        return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(BATCH, TIME, WIDTH)

    def layer(x, w):
        x = x + attend(norm(x, w["gain_1"]) @ w["qkv"]) @ w["out"]
        return x + jax.nn.gelu(norm(x, w["gain_2"]) @ w["up"]) @ w["down"], None

    def loss_fn(weights, x_BTD):
        return jnp.mean(lax.scan(layer, x_BTD, weights)[0] ** 2)

    weights = {
        "qkv": draw(LAYERS, WIDTH, 3 * WIDTH),
        "out": draw(LAYERS, WIDTH, WIDTH),
        "up": draw(LAYERS, WIDTH, 4 * WIDTH),
        "down": draw(LAYERS, 4 * WIDTH, WIDTH),
        "gain_1": jnp.ones((LAYERS, WIDTH)),
        "gain_2": jnp.ones((LAYERS, WIDTH)),
    }
    return loss_fn, weights, draw(BATCH, TIME, WIDTH)


def lstm() -> Case:
    """The loss, the weights, and inputs."""

    def step(carry, x, w):
        h, c = carry
        i, f, g, o = jnp.split(x @ w["in"] + h @ w["state"] + w["bias"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def loss_fn(weights, x_TBD):
        zeros = jnp.zeros(x_TBD.shape[1:])
        return jnp.mean(
            lax.scan(lambda c, x: step(c, x, weights), (zeros, zeros), x_TBD)[1] ** 2
        )

    weights = {
        "in": draw(WIDTH, 4 * WIDTH),
        "state": draw(WIDTH, 4 * WIDTH),
        "bias": draw(4 * WIDTH),
    }
    return loss_fn, weights, draw(STEPS, EXAMPLES, WIDTH)


def compiled(case: Case, off: Sequence[tuple[Any, str, Any]]) -> tuple[Any, int]:
    """The gradient without parts of what instep does, and how many arrays its loop writes."""
    loss_fn, *operands = case
    jax.clear_caches()
    for cached in (_on_cpu._is_changed, _on_cpu._program):
        cached.cache_clear()
    with ExitStack() as stack:
        for part in off:
            stack.enter_context(patch.object(*part))
        traced = jax.jit(_on_cpu.fast_on_cpu(jax.grad(loss_fn))).trace(*operands)
    loops = [eqn for eqn in traced.jaxpr.eqns if eqn.primitive is scan_p]
    return traced.lower().compile(), len(Body.of(loops[0]).ys)


def measure(case: Case, rounds: int) -> None:
    programs = {name: compiled(case, off) for name, off in SWITCHED_OFF.items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for n in range(rounds + WARM_UP):
        for name in list(programs)[:: 1 if n % 2 else -1]:
            start = time.perf_counter()
            for _ in range(CALLS):
                jax.block_until_ready(programs[name][0](*case[1:]))
            seconds[name].append((time.perf_counter() - start) / CALLS)
    counted = {name: times[WARM_UP:] for name, times in seconds.items()}
    for name, (program, written) in programs.items():
        r = paired_ratio(counted[name], counted["neither"])
        ms = 1e3 * np.median(counted[name])
        temporary = program.memory_analysis().temp_size_in_bytes / 1e6
        print(
            f"  {name:<8} {ms:7.1f} ms, over neither {r.median:.2f} ({r.low:.2f} to "
            f"{r.high:.2f}), {written} arrays written, temporary memory {temporary:.1f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    for make in (transformer, lstm):
        print(make.__name__)
        measure(make(), args.rounds)


if __name__ == "__main__":
    main()
