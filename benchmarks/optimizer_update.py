"""The time of one optimizer update: instep, optax, and PyTorch's own implementations.

    python benchmarks/optimizer_update.py [--leaves 200] [--size 50000] [--rounds 20]
        [--optimizers adam,adamw] [--torch-threads N] [--json benchmarks/results/NAME.json]

10 million float32 parameters in 200 leaves of 50,000: every other one a matrix of 250 x 200,
the rest vectors (Muon: 8 of the matrices alone). instep and optax are jitted and donated,
``tx.update`` and ``optax.apply_updates`` in one call; PyTorch runs one parameter after the
other ("single"), in lists ("foreach"), and "fused" where it can. All start from the same
parameters and take the same gradients, on one device. In each round every contender makes one
update, in changing order, after a pause in which the threads of the one before it fall asleep;
the ratio is taken within the round. The first call, which compiles, is timed apart. After the
rounds the buffers are compared with those before another update, which shows that it is made in
place, and the parameters with PyTorch's, which shows that nothing was left out. Nothing is
asserted: a timing is not a test.
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

import provenance
from instep import optim


WARM_UP = 3  # rounds that are not counted
PAUSE = 0.02  # seconds
MUON_LEAVES = 8


class Rule(NamedTuple):
    """The same optimizer three times; ``optax`` is the nearest that there is."""

    ours: optax.GradientTransformation
    optax: optax.GradientTransformation
    torch: Callable[..., torch.optim.Optimizer]
    options: dict[str, Any]


FACTORED = optax.chain(
    optax.scale_by_factored_rms(min_dim_size_to_factor=1, epsilon=0.0),
    optax.clip_by_block_rms(1.0),
    optax.scale_by_schedule(lambda t: jnp.minimum(1e-2, (1.0 + t) ** -0.5)),
    optax.scale_by_param_block_rms(1e-3),
    optax.scale(-1),
)
AVERAGED = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(1e-2))  # without an average
MUON_AXES = optax.contrib.MuonDimensionNumbers(1, 0)
RULES = {
    "sgd": Rule(
        optim.sgd(1e-2, 0.9),
        optax.sgd(1e-2, momentum=0.9),
        torch.optim.SGD,
        {"lr": 1e-2, "momentum": 0.9},
    ),
    "adam": Rule(optim.adam(), optax.adam(1e-3), torch.optim.Adam, {}),
    "adamw": Rule(optim.adamw(), optax.adamw(1e-3, weight_decay=1e-2), torch.optim.AdamW, {}),
    "adagrad": Rule(optim.adagrad(), optax.adagrad(1e-2, 0.0, 1e-10), torch.optim.Adagrad, {}),
    "rmsprop": Rule(
        optim.rmsprop(),
        optax.rmsprop(1e-2, decay=0.99, eps_in_sqrt=False),
        torch.optim.RMSprop,
        {},
    ),
    "adamax": Rule(optim.adamax(), optax.adamax(2e-3), torch.optim.Adamax, {}),
    "nadam": Rule(optim.nadam(), optax.nadam(2e-3), torch.optim.NAdam, {}),
    "radam": Rule(optim.radam(), optax.radam(1e-3), torch.optim.RAdam, {}),
    "adadelta": Rule(optim.adadelta(), optax.adadelta(1.0), torch.optim.Adadelta, {}),
    "rprop": Rule(optim.rprop(), optax.rprop(1e-2), torch.optim.Rprop, {}),
    "asgd": Rule(optim.asgd(), AVERAGED, torch.optim.ASGD, {}),
    "adafactor": Rule(optim.adafactor(), FACTORED, torch.optim.Adafactor, {}),
    "muon": Rule(
        optim.muon(),
        optax.contrib.muon(
            1e-3, eps=1e-7, weight_decay=0.1, muon_weight_dimension_numbers=MUON_AXES
        ),
        torch.optim.Muon,
        {},
    ),
}

# ------------------------------------------------------------------------- the contenders


class Jax:
    """``tx.update`` and ``optax.apply_updates``, jitted and donated."""

    def __init__(self, tx: optax.GradientTransformation, params, grads):
        def update(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self.update = jax.jit(update, donate_argnums=(0, 1))
        self.params = {n: jnp.array(v) for n, v in params.items()}
        self.grads = {n: jnp.array(v) for n, v in grads.items()}
        self.state = jax.tree.map(lambda x: jnp.array(x, copy=True), tx.init(self.params))

    def __call__(self) -> None:
        self.params, self.state = self.update(self.params, self.state, self.grads)
        jax.block_until_ready((self.params, self.state))

    def in_place(self) -> bool:
        """Whether an update writes every large array where one of them was."""

        def where() -> set[int]:
            leaves = jax.tree.leaves((self.params, self.state))
            return {x.unsafe_buffer_pointer() for x in leaves if x.size > 1}

        before = where()
        self()
        return where() == before

    def values(self) -> dict[str, np.ndarray]:
        return {n: np.asarray(v) for n, v in self.params.items()}


class Torch:
    """One of PyTorch's implementations; those that it lacks raise."""

    def __init__(self, rule: Rule, how: str, params, grads, device: str):
        self.params = {n: torch.tensor(v, device=device) for n, v in params.items()}
        for n, g in grads.items():
            self.params[n].grad = torch.tensor(g, device=device)
        flags = {"single": {"foreach": False}, "foreach": {"foreach": True}}
        flags["fused"] = {"fused": True}
        chosen = {} if rule.torch is torch.optim.Muon and how == "single" else flags[how]
        self.optimizer = rule.torch(self.params.values(), **rule.options, **chosen)
        self.cuda = device == "cuda"

    def __call__(self) -> None:
        self.optimizer.step()
        if self.cuda:
            torch.cuda.synchronize()

    def values(self) -> dict[str, np.ndarray]:
        return {n: v.cpu().numpy() for n, v in self.params.items()}


def contenders(rule: Rule, params, grads) -> dict[str, Jax | Torch]:
    found: dict[str, Jax | Torch] = {
        "instep": Jax(rule.ours, params, grads),
        "optax": Jax(rule.optax, params, grads),
    }
    device = torch_device()
    for how in ("single", "foreach", "fused") if device else ():
        try:
            found[how] = Torch(rule, how, params, grads, device)
        except (TypeError, RuntimeError):
            continue  # this optimizer has no such implementation here
    return found


def torch_device() -> str | None:
    """Where JAX is, if PyTorch can be there too."""
    if jax.default_backend() == "cpu":
        return "cpu"
    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else None


def problem(name: str, leaves: int, size: int) -> tuple[dict, dict]:
    """Parameters and gradients."""
    rows = next(n for n in range(math.isqrt(size), 0, -1) if size % n == 0)
    matrix, vector = (size // rows, rows), (size,)
    shapes = [matrix if n % 2 == 0 else vector for n in range(leaves)]
    if name == "muon":
        shapes = [matrix] * min(MUON_LEAVES, leaves)
    rng = np.random.default_rng(0)
    made = [
        {f"{n:04}": scale * rng.standard_normal(s, np.float32) for n, s in enumerate(shapes)}
        for scale in (np.float32(0.1), np.float32(0.01))
    ]
    return made[0], made[1]


# ------------------------------------------------------------------------- the measurement


def measure(name: str, leaves: int, size: int, rounds: int) -> dict[str, Any]:
    """Seconds of one update of each contender, and instep's over each of the others'."""
    params, grads = problem(name, leaves, size)
    found = contenders(RULES[name], params, grads)
    first = {who: timed(update) for who, update in found.items()}
    seconds: dict[str, list[float]] = {who: [] for who in found}
    order = list(found)
    for n in range(rounds + WARM_UP):
        gc.collect()
        for who in order[n % len(order) :] + order[: n % len(order)]:
            seconds[who].append(timed(found[who]))
    kept = {who: np.array(times[WARM_UP:]) for who, times in seconds.items()}
    # Before values(): an array that NumPy looks at cannot be donated.
    in_place = {who: x.in_place() for who, x in found.items() if isinstance(x, Jax)}
    for update in found.values():
        if isinstance(update, Torch):
            update()  # in_place() has made an update too
    values = {who: update.values() for who, update in found.items()}
    reference = values.get("single", values["instep"])
    return {
        "optimizer": name,
        "leaves": len(params),
        "parameters": sum(v.size for v in params.values()),
        "ms": {who: band(times * 1e3) for who, times in kept.items()},
        "instep over": {
            who: band(kept["instep"] / times) for who, times in kept.items() if who != "instep"
        },
        "first call, s": {who: round(t, 3) for who, t in first.items()},
        "in place": in_place,
        "from PyTorch": {who: far(reference, v) for who, v in values.items()},
        "rounds": rounds,
    }


def timed(update: Callable[[], None]) -> float:
    gc.disable()
    time.sleep(PAUSE)
    start = time.perf_counter()
    update()
    taken = time.perf_counter() - start
    gc.enable()
    return taken


def band(values: np.ndarray) -> dict[str, float]:
    low, median, high = values.min(), np.median(values), values.max()
    return {k: round(float(x), 4) for k, x in zip(BAND, (low, median, high), strict=True)}


BAND = ("min", "median", "max")


def far(theirs: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> float:
    """max|difference| / max|leaf| of the worst leaf."""
    worst = max(float(np.abs(ours[n] - a).max() / np.abs(a).max()) for n, a in theirs.items())
    return float(f"{worst:.2g}")


# ------------------------------------------------------------------------- the table

OTHERS = ("optax", "single", "foreach", "fused")


def line(result: dict[str, Any]) -> str:
    ratios = []
    for who in OTHERS:
        r = result["instep over"].get(who)
        ratios.append(f"{r['median']:.2f} ({r['min']:.2f}..{r['max']:.2f})" if r else "")
    ms = f"{result['ms']['instep']['median']:.2f}"
    return f"{result['optimizer']:<10}{ms:>9}" + "".join(f"{r:>20}" for r in ratios)


def losses(results: list[dict[str, Any]]) -> list[str]:
    """Whatever is to be said against instep, and against the measurement."""
    said = []
    for r in results:
        slower = {w: x["median"] for w, x in r["instep over"].items() if x["median"] > 1.0}
        if slower:
            than = ", ".join(f"{who} by {x:.2f}" for who, x in slower.items())
            said.append(f"{r['optimizer']}: instep is slower than {than}")
        said += [
            f"{r['optimizer']}: {w} is not in place" for w, x in r["in place"].items() if not x
        ]
        if r["from PyTorch"]["instep"] > 1e-5:
            said.append(
                f"{r['optimizer']}: instep is {r['from PyTorch']['instep']:.1e} from PyTorch"
            )
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--leaves", type=int, default=200)
    parser.add_argument("--size", type=int, default=50_000, help="elements of a leaf")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--optimizers", default=",".join(RULES), help="names, with commas")
    parser.add_argument("--torch-threads", type=int, help="PyTorch's own choice if not given")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    names = args.optimizers.split(",")
    if unknown := sorted(set(names) - set(RULES)):
        parser.error(f"unknown optimizers {unknown}; there are {list(RULES)}")

    if args.torch_threads:
        torch.set_num_threads(args.torch_threads)

    results, before = [], provenance.about()
    print(f"{'':<10}{'instep':>9}" + "".join(f"{'instep / ' + who:>20}" for who in OTHERS))
    print(f"{'':<10}{'ms':>9}" + f"{'median (min..max)':>20}" * len(OTHERS))
    for name in names:
        results.append(measure(name, args.leaves, args.size, args.rounds))
        print(line(results[-1]), flush=True)
    print("\nfirst call in seconds (trace, compile, one update): instep, optax")
    for r in results:
        t = r["first call, s"]
        print(f"{r['optimizer']:<10}{t['instep']:>9.2f}{t['optax']:>9.2f}")
    print("", *losses(results), sep="\n")
    threads = torch.get_num_threads()
    provenance.write(args.json, before, torch_threads=threads, results=results)


if __name__ == "__main__":
    main()
