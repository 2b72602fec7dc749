"""What the cross entropy of a linear map costs with and without its logits.

    python benchmarks/linear_cross_entropy.py [--rounds 5] [--quick]
        [--json benchmarks/results/NAME.json]

The mean loss of N examples with D features over C classes, and its gradients for the input and
the weight: ``linear_cross_entropy`` in chunks of several sizes, the plain form
``cross_entropy(x @ W.T, y)``, the plain form with optax's loss, and three of PyTorch:
``cross_entropy(linear(x, W), y)``, and its ``linear_cross_entropy`` without and with
``LinearCrossEntropyOptions()``, which chunks the examples and takes the gradients in forward.

Memory first: for each contender a fresh process makes the inputs, takes one step and reads its
peak resident set; what a process that only makes the inputs holds is subtracted. The gradients,
which are results, and some 30 to 80 MiB of the compiler remain. XLA's own number, the bytes of
temporary arrays, counts neither. Then time: in each round every contender takes one
step, in changing order, and the ratio is taken within the round. Compilation is timed apart.
``from plain`` shows that nothing was left out. Nothing is asserted: a timing is not a test.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F

import provenance
from instep.losses import cross_entropy, linear_cross_entropy


WARM_UP = 1  # rounds that are not counted
PAUSE = 0.02  # seconds
MIB = 2**20


class Problem(NamedTuple):
    examples: int
    features: int
    classes: int
    dtype: str = "float32"


PROBLEMS = [
    Problem(1024, 256, 32_000),
    Problem(1024, 256, 128_256),
    Problem(1024, 256, 32_000, "bfloat16"),
]
QUICK = [Problem(64, 16, 3000), Problem(64, 16, 3000, "bfloat16")]
CHUNK_SIZES = (256, 1024, 8192)

# ------------------------------------------------------------------------- the contenders


def plain(x, W, y):
    return cross_entropy(x @ W.T, y)


def of_optax(x, W, y):
    return optax.softmax_cross_entropy_with_integer_labels(x @ W.T, y).mean()


def torch_plain(x, W, y):
    return F.cross_entropy(F.linear(x, W), y)


def torch_chunked(x, W, y):
    return F.linear_cross_entropy(x, W, y, options=torch.nn.LinearCrossEntropyOptions())


JAX = {"plain": plain, "optax": of_optax} | {
    f"chunks of {size}": partial(linear_cross_entropy, chunk_size=size) for size in CHUNK_SIZES
}
TORCH = {
    "torch plain": torch_plain,
    "torch, no options": F.linear_cross_entropy,
    "torch, chunked": torch_chunked,
}
CONTENDERS = [*JAX, *TORCH]

Step = Callable[[], tuple[Any, ...]]


def inputs(problem: Problem, library: str) -> tuple[Any, Any, Any]:
    """x (N, D), W (C, D) and y (N,); the logits have a variance of 1."""
    N, D, C, dtype = problem
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, D), np.float32)
    W = rng.standard_normal((C, D), np.float32)
    W *= D**-0.5
    y = rng.integers(0, C, N)
    if library == "jax":
        return jnp.asarray(x, dtype), jnp.asarray(W, dtype), jnp.asarray(y)
    x, W = (torch.from_numpy(a).to(getattr(torch, dtype)).requires_grad_() for a in (x, W))
    return x, W, torch.from_numpy(y)


def library_of(who: str) -> str:
    return "jax" if who in JAX else "torch"


def made(who: str, args: tuple[Any, Any, Any]) -> tuple[Step, dict[str, float]]:
    """The step, compiled for JAX, and what compiling it took and told."""
    if who in TORCH:
        return partial(torch_step, TORCH[who], *args), {}
    start = time.perf_counter()
    step = jax.jit(jax.value_and_grad(JAX[who], (0, 1))).lower(*args).compile()
    taken, memory = time.perf_counter() - start, step.memory_analysis()
    return lambda: jax.block_until_ready(step(*args)), {
        "compile, s": round(taken, 3),
        "temporary, MiB": round(memory.temp_size_in_bytes / MIB, 1),
        "results, MiB": round(memory.output_size_in_bytes / MIB, 1),
    }


def torch_step(loss: Callable, x, W, y) -> tuple[Any, ...]:
    value = loss(x, W, y)
    return value, torch.autograd.grad(value, (x, W))


# ------------------------------------------------------------------------- the measurement


def peaks(problem: Problem) -> dict[str, float]:
    """MiB: the peak of a process that makes one step, above what one of inputs alone holds."""
    held = {library: in_a_process(library, problem) for library in ("jax", "torch")}
    return {
        who: round(in_a_process(who, problem) - held[library_of(who)], 1) for who in CONTENDERS
    }


def in_a_process(who: str, problem: Problem) -> float:
    command = [sys.executable, __file__, "--child", json.dumps([who, *problem])]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def child(who: str, problem: Problem) -> None:
    """Print the resident set of this process in MiB: the peak, or without a step the last."""
    held = inputs(problem, library_of(who) if who in CONTENDERS else who)
    jax.block_until_ready(held)
    gc.collect()  # JAX copies large arrays later, and holds what it copies until then
    if who in CONTENDERS:
        made(who, held)[0]()
    # Not getrusage's ru_maxrss, which a process inherits from the one that started it.
    number = "VmHWM" if who in CONTENDERS else "VmRSS"
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in status if line.startswith(number)) / 1024)


def measure(problem: Problem, rounds: int) -> dict[str, Any]:
    """Memory and seconds of one step of each contender, and their ratio to the plain form's."""
    peak = peaks(problem)
    args = {library: inputs(problem, library) for library in ("jax", "torch")}
    steps, compiled = {}, {}
    for who in CONTENDERS:
        steps[who], compiled[who] = made(who, args[library_of(who)])
    reference = steps["plain"]()
    distance = {who: far(reference, steps[who]()) for who in CONTENDERS}
    seconds: dict[str, list[float]] = {who: [] for who in CONTENDERS}
    for n in range(rounds + WARM_UP):
        gc.collect()
        first = 3 * n % len(CONTENDERS)
        for who in CONTENDERS[first:] + CONTENDERS[:first]:
            seconds[who].append(timed(steps[who]))
    kept = {who: np.array(times[WARM_UP:]) for who, times in seconds.items()}
    return {
        **problem._asdict(),
        "rounds": rounds,
        "contenders": {
            who: {
                "peak, MiB": peak[who],
                **compiled[who],
                "ms": band(kept[who] * 1e3),
                "over plain": band(kept[who] / kept["plain"]),
                "over torch plain": band(kept[who] / kept["torch plain"]),
                "from plain": distance[who],
            }
            for who in CONTENDERS
        },
    }


def timed(step: Step) -> float:
    gc.disable()
    time.sleep(PAUSE)
    start = time.perf_counter()
    step()
    taken = time.perf_counter() - start
    gc.enable()
    return taken


def band(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(values, [10, 50, 90])
    return {"p10": round(low, 4), "median": round(median, 4), "p90": round(high, 4)}


def far(theirs: Any, ours: Any) -> float:
    """max|difference| / max|leaf| of the worst of the loss and the two gradients."""
    pairs = zip(_arrays(theirs), _arrays(ours), strict=True)
    return float(f"{max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs):.2g}")


def _arrays(made) -> list[np.ndarray]:
    value, (dx, dW) = made
    leaves = (value, dx, dW)
    if torch.is_tensor(value):
        return [v.detach().float().numpy() for v in leaves]
    return [np.asarray(v, np.float32) for v in leaves]


# ------------------------------------------------------------------------- the table


def table(result: dict[str, Any]) -> str:
    N, D, C, dtype = (result[k] for k in Problem._fields)
    lines = [
        f"{N} examples, {D} features, {C} classes, {dtype}: "
        f"logits of {N * C * np.dtype(jnp.dtype(dtype)).itemsize / MIB:.0f} MiB",
        f"{'':<18}{'peak':>8}{'temp.':>8}{'compile':>9}{'ms':>8}{'over plain':>21}{'from':>9}",
    ]
    for who, r in result["contenders"].items():
        ratio = r["over plain"]
        lines.append(
            f"{who:<18}{r['peak, MiB']:>8.0f}{r.get('temporary, MiB', ''):>8}"
            f"{r.get('compile, s', ''):>9}{r['ms']['median']:>8.0f}"
            f"{ratio['median']:>7.2f} ({ratio['p10']:.2f}..{ratio['p90']:.2f})"
            f"{r['from plain']:>9.1e}"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small size, to see it run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child[0], Problem(*args.child[1:]))
    before = provenance.about()
    results = []
    for problem in QUICK if args.quick else PROBLEMS:
        results.append(measure(problem, args.rounds))
        print(table(results[-1]), flush=True)
    threads = torch.get_num_threads()
    provenance.write(args.json, before, torch_threads=threads, results=results)


if __name__ == "__main__":
    main()
