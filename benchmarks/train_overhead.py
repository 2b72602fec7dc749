"""What the whole of ``instep train`` costs over the bare step loop.

    python benchmarks/train_overhead.py [--rounds 6] [--steps 400] [--batch 1024] [--json FILE]

Both contenders run the jitted, donated step of the same loop on the same NumPy batches; neither
compiles while it is timed. The bare loop is ``for batch in batches: state, metrics =
step(state, batch)``, and waits at its end. The other has everything on: batches prefetched from
the host, the progress display, the metrics file, and a checkpoint at the end of every round,
whole on disk before the clock stops; what it does at its start, looking its program up, is in
its time. Rounds are interleaved in changing order, and the ratio is taken within the round: of
wall time, and of the CPU time of all threads, which other work on the machine moves less. The
interval holds the median ratio with a confidence of 95 % or more, by the order of the rounds
alone, whatever their distribution. The first round is dropped. Nothing is asserted: a timing is
not a test. A step should take 50 ms or more; --batch sets it.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import provenance
from instep import JaxLoop, bench, data, losses, optim, progress
from instep._loop import initial_state, train_step
from instep._train import run
from instep.checkpoint import Checkpointer


WIDTH, LAYERS = 512, 6


def loop(batch: int) -> JaxLoop:
    """A deep network of square layers, AdamW: 1.6 M parameters, 19 MB of state."""
    rng = np.random.default_rng(0)
    scale = (2 / WIDTH) ** 0.5
    params = {
        f"w{i}": (rng.normal(size=(WIDTH, WIDTH)) * scale).astype("f") for i in range(LAYERS)
    }
    x = rng.normal(size=(8, batch, WIDTH)).astype("f")
    y = rng.integers(0, WIDTH, (8, batch))

    def loss_fn(params, batch):
        h, labels = batch
        for i in range(LAYERS):
            h = jax.nn.relu(h @ params[f"w{i}"])
        return losses.cross_entropy(h, labels)

    return JaxLoop(loss_fn, optim.adamw(1e-3), params, batches=list(zip(x, y, strict=True)))


class Bare:
    """The step loop, and its state from round to round."""

    def __init__(self, loop: JaxLoop):
        self.state, self.step = initial_state(loop), train_step(loop)
        self.batches = loop.batches or ()

    def __call__(self, steps: int) -> tuple[float, float]:
        start = _now()
        metrics = None
        for batch in islice(cycle(self.batches), steps):
            self.state, metrics = self.step(self.state, batch)
        jax.block_until_ready((self.state, metrics))
        return _since(start)


class Whole:
    """The same with everything on; a round goes on where the last one stopped."""

    def __init__(self, loop: JaxLoop, folder: Path):
        self.loop, self.folder = loop, folder
        self.state, self.step = progress.seen_state(loop), progress.seen_step(loop)
        batch = next(iter(loop.batches or ()))
        self.state, _ = self.step(self.state, jax.tree.map(jnp.asarray, batch))  # compiles
        self.n = 1

    def __call__(self, steps: int) -> tuple[float, float]:
        console = Console(file=io.StringIO(), force_terminal=True, width=100)
        self.n += steps
        live = progress.Live(console, "overhead", self.n)
        file = progress.MetricsFile(self.folder / "metrics.jsonl", {})
        watch = progress.Watch(self.step, self.n, 1, live, [file])
        with Checkpointer(self.folder / str(self.n)) as checkpointer:
            start = _now()
            self.state = run(
                watch.step,
                self.state,
                data.prefetch(self.loop.batches),
                self.n,
                checkpointer=checkpointer,
                save_every=steps,
                on_step=watch.on_step,
                on_save=watch.on_save,
            )
            watch.close()
            return _since(start)


def _now() -> tuple[float, float]:
    """Wall and CPU seconds, the latter of all threads."""
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> tuple[float, float]:
    wall, cpu = _now()
    return wall - start[0], cpu - start[1]


def measure(rounds: int, steps: int, batch: int, folder: Path) -> dict[str, Any]:
    """Seconds per step of both contenders, and their paired ratio."""
    described = loop(batch)
    contenders = {"bare": Bare(described), "whole": Whole(described, folder)}
    seconds: dict[str, list[tuple[float, float]]] = {who: [] for who in contenders}
    for n in range(rounds + 1):
        for who in sorted(contenders, reverse=bool(n % 2)):
            seconds[who].append(contenders[who](steps))
    kept = {who: np.array(times[1:]) / steps for who, times in seconds.items()}
    return {
        **{f"{who} ms per step": _band(times[:, 0]) for who, times in kept.items()},
        **{f"{who} CPU ms": _band(times[:, 1]) for who, times in kept.items()},
        "ratio": _ratio(kept["whole"][:, 0], kept["bare"][:, 0]),
        "CPU ratio": _ratio(kept["whole"][:, 1], kept["bare"][:, 1]),
        "rounds": rounds,
        "steps per round": steps,
        "examples per step": batch,
    }


def _band(seconds: np.ndarray) -> dict[str, float]:
    return {name: round(1e3 * x, 4) for name, x in asdict(bench.band(list(seconds))).items()}


def _ratio(whole: np.ndarray, bare: np.ndarray) -> dict[str, Any]:
    r = bench.paired_ratio(list(whole), list(bare))
    return {"median": round(r.median, 4), "interval": [round(r.low, 4), round(r.high, 4)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    before = provenance.about()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.rounds, args.steps, args.batch, Path(folder))
    for who in ("bare", "whole"):
        wall, cpu = (found[f"{who} {what}"]["median"] for what in ("ms per step", "CPU ms"))
        print(f"{who:<9} {wall:.1f} ms per step, {cpu:.1f} ms of CPU")
    for name in ("ratio", "CPU ratio"):
        r = found[name]
        low, high = r["interval"]
        print(f"{name:<9} {r['median']:.3f} ({low:.3f} to {high:.3f})")
    provenance.write(args.json, before, results=found)


if __name__ == "__main__":
    main()
