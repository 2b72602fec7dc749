"""Memory and time of a parity walk over a large model: byte-gpt-124m beside its Flax half.

    python benchmarks/parity_memory.py --json benchmarks/results/parity_memory_cpu_DATE.json

Batches are cut to one line of a few bytes: what takes the memory is the parameters. Memory is
sampled from the kernel: anonymous pages cannot leave memory, those of files can.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import instep
import provenance
from instep import parity
from instep.workloads import get


GIB = 2**20  # in the kernel's kB


class Peak:
    """The most memory of this process while it is entered, in GiB."""

    def __enter__(self):
        self.anonymous = self.resident = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *raised):
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            sizes = {line.split(":")[0]: line.split() for line in lines if " kB" in line}
            self.anonymous = max(self.anonymous, int(sizes["RssAnon"][1]) / GIB)
            self.resident = max(self.resident, int(sizes["VmRSS"][1]) / GIB)


def cut(pair: instep.Pair, length: int, steps: int) -> instep.Pair:
    """The pair over one line of ``length`` bytes a step, without accumulation."""
    batches = [(x[:1, :length], y[:1, :length]) for x, y in islice(pair.torch.batches, steps)]
    return replace(
        pair,
        torch=replace(pair.torch, batches=batches, accumulate=1),
        jax=replace(pair.jax, accumulate=1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="byte-gpt-124m")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start, before = time.monotonic(), provenance.about()
    with Peak() as peak:
        pair = cut(get(options.workload).make_pair(), options.length, options.steps)
        count = sum(p.numel() for p in pair.torch.model.parameters())
        report = parity.run(pair, options.steps, on_step=lambda n: print("step", n, flush=True))
    found = {
        "command": f"python benchmarks/parity_memory.py --workload {options.workload} "
        f"--steps {options.steps} --length {options.length}",
        "parameters": count,
        "verdict": str(report.verdict),
        "reason": report.reason,
        "peak_anonymous_gib": round(peak.anonymous, 2),
        "peak_resident_gib": round(peak.resident, 2),
        "seconds": round(time.monotonic() - start),
    }
    print(report)
    print(json.dumps(found, indent=1))
    provenance.write(options.json, before, **found)


if __name__ == "__main__":
    main()
