"""Where a step spends its time, by kind of operation, beside PyTorch.

    python benchmarks/operations.py byte-gpt [--lowered] [--steps 8] [--json FILE]

The profilers of both frameworks, over the same windows; milliseconds a step. PyTorch's
operators run one after another, each on all cores; XLA's run beside each other, and add up to
more than the step takes.
A matrix product of XLA's that takes in a sum or a bias counts whole as a product, and so does
the attention of PyTorch with its softmax: compare the sums too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import torch

import instep
import provenance
from instep import workloads


KINDS = ("products", "batched products, attention", "convolutions", "reductions", "the rest")
OF_TORCH = {
    "aten::mm": 0,
    "aten::addmm": 0,
    "aten::bmm": 1,
    "aten::baddbmm": 1,
    "aten::_scaled_dot_product_flash_attention_for_cpu": 1,
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": 1,
    "aten::mkldnn_convolution": 2,
    "aten::convolution_backward": 2,
    "aten::sum": 3,
    "aten::mean": 3,
    "aten::native_batch_norm": 3,
    "aten::native_batch_norm_backward": 3,
    "aten::native_layer_norm": 3,
    "aten::native_layer_norm_backward": 3,
}


def torch_step(loop: instep.TorchLoop, window: list[Any]) -> None:
    """One step of PyTorch's own loop; the scheduler stands still."""
    loop.optimizer.zero_grad()
    for microbatch in window:
        (loop.loss_fn(loop.model, microbatch) / len(window)).backward()
    if loop.clip_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(loop.model.parameters(), loop.clip_grad_norm)
    loop.optimizer.step()


def torch_kinds(loop: instep.TorchLoop, window: list[Any], steps: int) -> dict[str, float]:
    """Milliseconds a step of PyTorch's operators, by their own CPU time."""

    for _ in range(3):
        torch_step(loop, window)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(steps):
            torch_step(loop, window)
    spent = Counter[str]()
    for event in profile.key_averages():
        spent[KINDS[OF_TORCH.get(event.key, 4)]] += event.self_cpu_time_total / 1e3 / steps
    return dict(spent)


def jax_kinds(train_step: Any, state: Any, batch: Any, steps: int) -> dict[str, float]:
    """Milliseconds a step of the operations of the compiled step."""
    step = jax.jit(train_step, donate_argnums=0)
    kinds = kinds_of(step.lower(state, batch).compile().as_text())
    for _ in range(3):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    spent = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
        (path,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    for event in events:
        name = event.get("args", {}).get("hlo_op")
        if event.get("ph") == "X" and name is not None and not name.startswith("while"):
            spent[kinds.get(name, KINDS[4])] += event["dur"] / 1e3 / steps
    return dict(spent)


def kinds_of(text: str) -> dict[str, str]:
    """The kind of every operation of a compiled program, by its name."""
    bodies = dict(re.findall(r"^%(\S+) \(.*?\n(.*?)^\}", text, re.M | re.S))
    found = {}
    for name, line in re.findall(r"^\s+(?:ROOT )?%(\S+) = (.*)$", text, re.M):
        called = re.search(r"calls=%([\w.\-]+)", line)
        body = bodies.get(called[1], "") if called else line
        if " convolution(" in body:
            found[name] = KINDS[2]
        elif re.search(r" dot\(.*batch_dims", body):
            found[name] = KINDS[1]
        elif " dot(" in body:
            found[name] = KINDS[0]
        elif " reduce(" in body:
            found[name] = KINDS[3]
    return found


def made(name: str, lowered: bool) -> tuple[instep.TorchLoop, list[Any], Any, Any, Any]:
    """PyTorch's loop and a window of it; the JAX step, its state and the same window."""
    pair = workloads.get(name).make_pair()
    loop, half = pair.torch, pair.jax
    batches = iter(loop.batches() if callable(loop.batches) else loop.batches)
    window = [next(batches) for _ in range(loop.accumulate)]
    stacked = instep.stack if loop.accumulate > 1 else lambda windows: windows[0]
    if lowered:
        train_step, state = instep.from_torch(loop)
        batch = stacked(window)
    else:
        train_step = instep.make_train_step(
            half.loss_fn,
            half.tx,
            accumulate=half.accumulate,
            clip_grad_norm=half.clip_grad_norm,
        )
        state = instep.init_state(half.params, half.tx, buffers=half.buffers)
        batch = stacked([pair.batch(microbatch) for microbatch in window])
    batch = jax.device_put(
        jax.tree.map(lambda x: x.numpy() if hasattr(x, "numpy") else x, batch)
    )
    return loop, window, train_step, state, batch


def measure(name: str, lowered: bool, steps: int) -> dict[str, Any]:
    loop, window, train_step, state, batch = made(name, lowered)
    return {
        "jax": jax_kinds(train_step, state, batch, steps),
        "torch": torch_kinds(loop, window, steps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument(
        "--lowered", action="store_true", help="PyTorch's half through from_torch"
    )
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    before = provenance.about()
    spent = measure(args.name, args.lowered, args.steps)
    print(f"{args.name}, ms a step, by operation: {'lowered' if args.lowered else 'JAX half'}")
    for kind in (*KINDS, "in all"):
        ours, theirs = (
            sum(of.values()) if kind == "in all" else of.get(kind, 0) for of in spent.values()
        )
        print(f"{kind:<28} JAX {ours:8.1f}   PyTorch {theirs:8.1f}")
    provenance.write(args.json, before, target=args.name, lowered=args.lowered, ms=spent)


if __name__ == "__main__":
    main()
