"""The forms of ``instep._convolve`` beside XLA's own, outside of a loop and inside of one.

    python benchmarks/convolution.py [--rounds 8] [--only NAME] [--json FILE]

Of each shape the convolution, and its gradients to the image and to the kernel, in four
programs: as they are written; as they are written, in a loop; in the forms of ``fast_on_cpu``;
and these in a loop. Milliseconds of one, the fastest of the rounds, which are interleaved.
Nothing is asserted: a timing is not a test.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import provenance
from instep import ops
from instep._on_cpu import fast_on_cpu


TIMES = 2  # in a loop


@dataclass(frozen=True)
class Shape:
    examples: int
    channels: int
    image: tuple[int, ...]
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 1
    dilation: int = 1
    groups: int = 1

    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        conv = {1: ops.conv1d, 2: ops.conv2d, 3: ops.conv3d}[len(self.image)]
        return conv(x, w, None, self.stride, self.padding, self.dilation, self.groups)


SHAPES = {
    "3x3, 64 channels, 16x16": Shape(32, 64, (16, 16), 64, 3),
    "3x3, 16 channels, 8x8": Shape(16, 16, (8, 8), 32, 3),
    "3x3, 256 channels, 8x8": Shape(32, 256, (8, 8), 256, 3),
    "3x3, 512 channels, 4x4": Shape(32, 512, (4, 4), 512, 3),
    "3x3, 256 channels, 2x2": Shape(32, 256, (2, 2), 256, 3),
    "3x3, 512 channels, 1x1": Shape(32, 512, (1, 1), 512, 3),
    "3x3, stride 2": Shape(16, 64, (28, 28), 128, 3, stride=2),
    "3x3, dilation 2": Shape(16, 64, (16, 16), 64, 3, padding=2, dilation=2),
    "1x1": Shape(32, 128, (14, 14), 256, 1, padding=0),
    "1x1, stride 2": Shape(32, 128, (14, 14), 256, 1, stride=2, padding=0),
    "5x5": Shape(32, 16, (28, 28), 32, 5, padding=2),
    "7x7, stride 2, 3 channels": Shape(8, 3, (64, 64), 64, 7, stride=2, padding=3),
    "depthwise 3x3": Shape(16, 128, (14, 14), 128, 3, groups=128),
    "depthwise 7x7": Shape(8, 96, (14, 14), 96, 7, padding=3, groups=96),
    "4 groups": Shape(16, 64, (14, 14), 64, 3, groups=4),
    "32 groups": Shape(8, 128, (14, 14), 128, 3, groups=32),
    "1d, 3": Shape(16, 64, (256,), 64, 3),
    "1d, 15": Shape(16, 64, (256,), 64, 15, padding=7),
    "3d, 3x3x3": Shape(4, 16, (8, 8, 8), 32, 3),
}


def parts(shape: Shape) -> dict[str, tuple[Callable, tuple[jax.Array, jax.Array]]]:
    """The convolution and its two gradients, each with what it is given."""
    draw = np.random.default_rng(0).standard_normal
    x = jnp.asarray(draw((shape.examples, shape.channels, *shape.image)), jnp.float32)
    kernel = (shape.kernel,) * len(shape.image)
    w = jnp.asarray(draw((shape.outputs, shape.channels // shape.groups, *kernel)), jnp.float32)
    y = jnp.ones(jax.eval_shape(shape, x, w).shape)
    return {
        "forward": (shape, (x, w)),
        "to the image": (lambda w, y: jax.vjp(lambda x: shape(x, w), x)[1](y)[0], (w, y)),
        "to the kernel": (lambda x, y: jax.vjp(lambda w: shape(x, w), w)[1](y)[0], (x, y)),
    }


def in_a_loop(fn: Callable) -> Callable:
    """``TIMES`` times the same, each after the one before."""

    def loop(a: jax.Array, b: jax.Array) -> jax.Array:
        def body(total, _):
            return total + fn(a * (1 + 0 * total.ravel()[0]), b), None

        start = jnp.zeros(jax.eval_shape(fn, a, b).shape)
        return lax.scan(body, start, jnp.arange(TIMES))[0]

    return loop


def measure(fn: Callable, operands: tuple[jax.Array, jax.Array], rounds: int) -> dict[str, Any]:
    """Milliseconds of one, by program."""
    programs = {
        "xla": (fn, 1),
        "xla, in a loop": (in_a_loop(fn), TIMES),
        "instep": (fast_on_cpu(fn), 1),
        "instep, in a loop": (fast_on_cpu(in_a_loop(fn)), TIMES),
    }
    compiled = {who: jax.jit(f).lower(*operands).compile() for who, (f, _) in programs.items()}
    seconds: dict[str, list[float]] = {who: [] for who in programs}
    for _ in range(rounds):
        for who, program in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*operands))
            seconds[who].append((time.perf_counter() - start) / programs[who][1])
    return {who: round(min(times) * 1e3, 3) for who, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, Any] = {}
    before = provenance.about()
    for name, shape in SHAPES.items():
        if args.only not in name:
            continue
        for what, (fn, operands) in parts(shape).items():
            found = results.setdefault(name, {})[what] = measure(fn, operands, args.rounds)
            shown = "  ".join(f"{who} {ms:8.2f}" for who, ms in found.items())
            print(f"{name:<28} {what:<14} {shown}", flush=True)
    provenance.write(args.json, before, unit="ms", results=results)


if __name__ == "__main__":
    main()
