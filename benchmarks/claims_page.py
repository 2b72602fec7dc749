"""The claims of the README that have a result file, as its table between two markers.

python benchmarks/claims_page.py            writes the table into README.md
python benchmarks/claims_page.py --check    exit 1 if it would write another one
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import ratios_page
from instep.bench import Settings, paired_ratio
from marked import filled, write_or_check
from ratios_page import with_interval


ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BENCH = "benchmarks/results/bench_{}_cpu_2026-11-30.json"
PLANTS = "parity_tests/results/plants.json"
LOWERED = "benchmarks/results/lowered_step_cpu_2026-11-30.json"
UPDATE = "benchmarks/results/optimizer_update_cpu_2026-11-30.json"
ONE_THREAD = "benchmarks/results/optimizer_update_cpu_1_thread_2026-11-30.json"


class Claim(NamedTuple):
    """One row: ``number`` is a function of what the files hold, as ``made_by`` may be."""

    says: str
    number: Callable[..., str]
    made_by: str | Callable[[dict], str]
    files: tuple[str, ...]


# ------------------------------------------------------------------------------- numbers


def worst_ratios(clean: dict) -> list[float]:
    """The largest error over its bound in float64, float32 and bfloat16."""
    return [
        max(
            leaf["ratio"]
            for runs in clean.values()
            for walk, kinds in runs["worst"].items()
            if walk.startswith(dtype)
            for leaf in kinds.values()
        )
        for dtype in ("float64", "float32", "bfloat16")
    ]


def false_alarms(kept: dict) -> str:
    clean = kept["clean"]
    alarms = sum(len(runs["false_alarms"]) for runs in clean.values())
    seeds = {runs["seeds"] for runs in clean.values()}
    first, second, third = (f"{ratio:.2f}" for ratio in worst_ratios(clean))
    return (
        f"{alarms} in {min(seeds)} seeds of each; the largest error over its bound was "
        f"{first}, {second} and {third}"
    )


def known(kept: dict) -> str:
    rows = [row for name in ("cnn", "lstm", "transformer") for row in kept[name].values()]
    found = sum(row["verdict"] == "not in step" for row in rows)
    named = sum(row["rank"] == 1 for row in rows)
    return f"{found} of {len(rows)} detected, the right cause named first in {named}"


def unknown(kept: dict) -> str:
    rows = kept["unknown"].values()
    found = sum(row["verdict"] == "not in step" for row in rows)
    placed = sum(row["placed"] for row in rows)
    named = sum(bool(row["causes"]) for row in rows)
    return f"{found} of {len(rows)} detected, {placed} placed, a cause named in {named}"


def pairs(kept: dict) -> str:
    both = sum(row["both"] for row in kept["pairs"].values())
    clean = kept["clean"].values()
    named = sum(bool(row["causes"]) for row in clean)
    return (
        f"both named in {both} of {len(kept['pairs'])}; a cause named in {named} of "
        f"{len(clean)} walks without a mistake"
    )


def modules(kept: dict) -> str:
    rows = {name: row for name, row in kept.items() if isinstance(row, dict)}
    walks = [x for row in rows.values() for x in _walks(row)]
    whole = [n for n, row in rows.items() if not any(x["wrong"] for x in _walks(row))]
    rest = dict.fromkeys(
        f"{name}: {', '.join(says)}"
        for name, row in rows.items()
        for x in _walks(row)
        for says in x["wrong"].values()
    )
    calls = sum(x["calls"] for x in walks)
    return "; ".join([f"{len(whole)} of {len(rows)} in all of {calls:,} calls", *rest])


def _walks(row: dict) -> list[dict]:
    return [x for x in row.values() if isinstance(x, dict)]


def operators(kept: dict) -> str:
    n = kept["totals"]
    some = n["entries_in_step"] - n["entries_wholly_in_step"]
    return (
        f"{n['entries_wholly_in_step']} of {n['entries']} entries in all their calls, {some} "
        f"more in some; of {n['calls']:,} calls {n['in_step']:,} in step, {n['refused']} "
        f"refused with the reason, {n['not_compared']} draw or are uninitialised, "
        f"{n['diverged']} diverge"
    )


def architectures(kept: dict) -> str:
    walks = [walk for rows in kept.values() for walk in rows.values()]
    there = sum(walk["verdict"] == "in step" for walk in walks)
    return f"{there} of {len(walks)} walks of {len(kept)} architectures in step"


def _band(row: dict) -> str:
    low, mid, high = (f"{row[key]:.2f}" for key in ("p10", "median", "p90"))
    return f"{mid} ({low} to {high})"


def over_flax(kept: dict) -> str:
    step = ", ".join(
        f"{row['workload']} {_band(row['lowered / flax'])}" for row in kept["rows"]
    )
    first = [row["lowered / flax: trace and compile"] for row in kept["rows"]]
    before = [row["lowering s"] for row in kept["rows"]]
    return (
        f"{step}; trace and compile {min(first):.2f} to {max(first):.2f}, and lowering before "
        f"that {min(before):.1f} to {max(before):.1f} s"
    )


def over_eager(kept: dict) -> str:
    rows = kept["rows"]
    said = ", ".join(f"{row['workload']} {_band(row['lowered / torch'])}" for row in rows)
    lost = [row["workload"] for row in rows if row["lowered / torch"]["median"] > 1]
    return f"{said}; we lose with {', '.join(lost)}" if lost else said


OTHERS = {
    "torch-eager": "PyTorch eager",
    "torch-compile": "`torch.compile`",
    "jax-plain": "the same by hand in jax",
    "flax": "Flax's loop",
    "multisteps": "`optax.MultiSteps`",
}


def bench(kept: dict) -> str:
    rounds = {one["name"]: one["rounds"] for one in kept["contenders"]}
    ratios = {
        title: paired_ratio(rounds["instep"], rounds[name])
        for name, title in OTHERS.items()
        if name in rounds
    }
    if "instep-lowered" in rounds:
        lowered = paired_ratio(rounds["instep-lowered"], rounds["torch-eager"])
        ratios["PyTorch eager by the lowered step"] = lowered
    said = "; ".join(
        f"{with_interval(r)} of {title}" + ", not resolved" * (r.verdict == "not resolved")
        for title, r in ratios.items()
    )
    lost = [title for title, r in ratios.items() if r.verdict == "above 1"]
    return f"{said}. We lose to {' and '.join(lost)}" if lost else said


def whole_training(kept: dict) -> str:
    time, cpu = (kept["results"][key] for key in ("ratio", "CPU ratio"))
    low, high = time["interval"]
    return f"{time['median']:.3f} ({low:.3f} to {high:.3f}); CPU time {cpu['median']:.3f}"


def host_time(nothing: dict, mlp: dict) -> str:
    def more(kept: dict, other: str) -> float:
        us = kept["us"]
        return median(a - b for a, b in zip(us["instep"], us[other], strict=True))

    records = "by hand, with records"
    return (
        f"{more(nothing, 'by hand'):.1f} us more a call, {more(nothing, records):.1f} where it "
        f"returns the same records; on digits-mlp {more(mlp, 'by hand'):.1f} and "
        f"{more(mlp, records):.1f}"
    )


def updates(kept: dict, one_thread: dict) -> str:
    over = {row["optimizer"]: row["instep over"] for row in kept["results"]}
    rows = sorted((x["optax"]["median"], name) for name, x in over.items() if "optax" in x)
    usual = [f"{name} {ratio:.2f}" for ratio, name in rows if ratio <= 1.25]
    lost = [f"{name} {ratio:.2f}" for ratio, name in rows if ratio > 1.25]
    alone = {row["optimizer"]: row["instep over"] for row in one_thread["results"]}["adamw"]

    def of_pytorch(adamw: dict) -> str:
        said = (
            f"{adamw[how]['median']:.2f} of {how}" for how in ("single", "foreach", "fused")
        )
        return ", ".join(said)

    return (
        f"of optax: {', '.join(usual)}; we lose with {', '.join(lost)}. AdamW of PyTorch: "
        f"{of_pytorch(over['adamw'])}, where we lose; with one thread {of_pytorch(alone)}"
    )


def bench_command(kept: dict) -> str:
    """The line that repeats a run of ``instep bench``, by what its result says."""
    options = Settings(**kept["settings"]).options()
    assert options is not None, "the results are of the command line"
    against = ",".join(one["name"] for one in kept["contenders"][1:])
    words = ["instep", "bench", kept["target"], "--against", against, *options]
    return f"`{shlex.join(words)}`"


TIMED = {  # by the name of the result
    "digits-cnn": "digits-cnn, 4 microbatches",
    "digits-mlp": "digits-mlp",
    "gpt-k8": "a GPT, 8 microbatches",
    "byte-gpt": "byte-gpt, 4 microbatches",
    "digits-vit": "digits-vit",
    "text-lstm": "text-lstm, whose LSTM `torch.compile` leaves eager",
    "resnet18-32": "ResNet-18 at 32 x 32",
    "resnet18-224": "ResNet-18 at 224 x 224",
    "resnet50-224": "ResNet-50 at 224 x 224",
}
# That of text-lstm on the EPYC is of before its loops were changed.
EPYC = {name: TIMED[name] for name in ratios_page.EPYC if name != "text-lstm"}
EPYC_KEPT = {f"{name}-kept": f"{TIMED[name]}, memory kept" for name in ratios_page.KEPT}
XEON = {f"{name}-xeon": f"{title}, on the Xeon" for name, title in TIMED.items()}
XEON_KEPT = {
    f"{name}-kept-xeon": f"{TIMED[name]}, memory kept, on the Xeon" for name in ratios_page.KEPT
}

CLAIMS = (
    Claim(
        "No false alarm: digits-cnn, digits-mlp and an LSTM in float64, float32 and bfloat16",
        false_alarms,
        "`python benchmarks/tolerance.py`",
        ("benchmarks/results/tolerance_cpu_2026-11-23.json",),
    ),
    Claim(
        "Mistakes written by hand into a CNN, an LSTM and a transformer are found and named",
        known,
        "`python parity_tests/plants_results.py`",
        (PLANTS,),
    ),
    Claim(
        "Mistakes that no catalogue has are found and placed, and no cause is made up",
        unknown,
        "`python parity_tests/plants_results.py unknown`",
        (PLANTS,),
    ),
    Claim(
        "Two mistakes at once; no mistake at all",
        pairs,
        "`python parity_tests/plants_results.py pairs clean`",
        (PLANTS,),
    ),
    Claim(
        "PyTorch's `module_db`, train and eval, lowered: outputs, gradients and buffers",
        modules,
        "`python parity_tests/modules_results.py`",
        ("parity_tests/results/module_db.json",),
    ),
    Claim(
        "PyTorch's `op_db`, up to 4 calls of each entry: values, dtypes, shapes, gradients",
        operators,
        "`python parity_tests/ops_results.py`",
        ("parity_tests/results/op_db.json",),
    ),
    Claim(
        "Transformers, CNNs, recurrent nets and others, lowered from their PyTorch loops, 20 "
        "steps, without dropout and with it",
        architectures,
        "`python parity_tests/architectures_results.py`",
        ("parity_tests/results/architectures.json",),
    ),
    Claim(
        "Time of the lowered step over its Flax twin, on the Xeon",
        over_flax,
        "`python benchmarks/lowered_step.py --rounds 20`",
        (LOWERED,),
    ),
    Claim(
        "Time of the lowered step over PyTorch's loop as it is written, on the Xeon",
        over_eager,
        "`python benchmarks/lowered_step.py --rounds 20`",
        (LOWERED,),
    ),
    *(
        Claim(
            f"Time of a step, {title}",
            bench,
            bench_command,
            (BENCH.format(name),),
        )
        for name, title in (EPYC | EPYC_KEPT | XEON | XEON_KEPT).items()
    ),
    Claim(
        "`instep train` with prefetch, display, metrics file and checkpoints over the bare "
        "loop, at 54 ms a step",
        whole_training,
        "`python benchmarks/train_overhead.py`",
        ("benchmarks/results/train_overhead_cpu_2026-11-30.json",),
    ),
    Claim(
        "Host time of the fused step over a jitted call by hand",
        host_time,
        "`python benchmarks/host_time.py`, `--of digits-mlp`",
        (
            "benchmarks/results/host_time_cpu_2026-11-30.json",
            "benchmarks/results/host_time_digits-mlp_cpu_2026-11-30.json",
        ),
    ),
    Claim(
        "One update of 10 M float32 parameters in 200 leaves, Muon's of 0.4 M in 8, on the "
        "Xeon",
        updates,
        "`python benchmarks/optimizer_update.py`",
        (UPDATE, ONE_THREAD),
    ),
)


# ------------------------------------------------------------------------------- the table


def table() -> str:
    """Every claim with the number that its files hold. A file that is missing is an error."""
    lines = ["| claim | number | made by, result |", "|---|---|---|"]
    for claim in CLAIMS:
        kept: list[Any] = [json.loads((ROOT / file).read_text()) for file in claim.files]
        links = ", ".join(f"[{_short(file)}]({file})" for file in claim.files)
        made_by = claim.made_by if isinstance(claim.made_by, str) else claim.made_by(kept[0])
        lines.append(f"| {claim.says} | {claim.number(*kept)} | {made_by}, {links} |")
    return "\n".join(lines)


def _short(file: str) -> str:
    """The name of a result without its device and date."""
    return Path(file).stem.replace("_cpu", "").partition("_20")[0]


def page(text: str) -> str:
    """The README with this table between its markers."""
    return filled(text, "claims", table())


if __name__ == "__main__":
    sys.exit(write_or_check(README, page, (__doc__ or "").partition("\n")[0]))
