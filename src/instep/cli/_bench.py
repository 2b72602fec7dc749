"""``instep bench``: thin over ``instep.bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._errors import RequestError
from ..bench import CONTENDERS, Settings, UnequalWorkError, run
from ..bench._run import DEFAULT
from ..bench._settings import DEVICES, MATMUL
from ._console import err, failed, out, request_errors


Against = Annotated[
    str, typer.Option(help=f"With commas, of {', '.join(CONTENDERS)}. instep always runs.")
]
Rounds = Annotated[int, typer.Option(min=1, help="Counted; each runs every contender once.")]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Per block; not given: as many as take 0.2 s.")
]
CheckSteps = Annotated[
    int,
    typer.Option(min=0, help="That all must take in step first; 0: unchecked."),
]
CheckExamples = Annotated[
    int | None, typer.Option(min=1, help="Of each microbatch in the check; not given: all.")
]
Device = Annotated[str, typer.Option(help=f"One of {', '.join(DEVICES)}.")]
Precision = Annotated[str, typer.Option(help="Of a built-in workload: float32 or bf16.")]
Matmul = Annotated[str, typer.Option(help=f"Of both frameworks: {', '.join(MATMUL)}.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Cores for every contender.")]
KeepMemory = Annotated[
    bool,
    typer.Option(
        "--keep-memory", help="Call instep.keep_memory() in every contender's process."
    ),
]
Peak = Annotated[
    float | None,
    typer.Option(help="Dense peak of the device in TFLOP/s, for the MFU, if it is not known."),
]
Seed = Annotated[int, typer.Option(help="Of what TARGET draws, and of the order in a round.")]
JsonPath = Annotated[Path | None, typer.Option("--json", help="Write every number here.")]
PlotPath = Annotated[Path | None, typer.Option("--plot", help="Write a picture here, as SVG.")]
DEFAULT_AGAINST = ",".join(DEFAULT)


def bench(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="As for parity, or a callable that returns a JaxLoop with batches. Every "
            "process calls it anew; it must return the same each time.",
        ),
    ],
    against: Against = DEFAULT_AGAINST,
    rounds: Rounds = Settings.rounds,
    steps: Steps = None,
    check_steps: CheckSteps = Settings.check_steps,
    check_examples: CheckExamples = None,
    device: Device = Settings.device,
    precision: Precision = Settings.precision,
    matmul_precision: Matmul = Settings.matmul_precision,
    threads: Threads = None,
    keep_memory: KeepMemory = False,
    peak_tflops: Peak = None,
    seed: Seed = Settings.seed,
    json: JsonPath = None,
    plot: PlotPath = None,
) -> None:
    """Time instep's step beside others that do the same work, each in a process of its own.

    Exit 0: timed. Exit 1: the contenders do other work, so nothing was. Exit 2: the request was
    wrong.
    """
    with request_errors():
        from ..bench._table import render

        for path in (json, plot):
            if path is not None and not path.parent.is_dir():
                raise RequestError(f"no folder {str(path.parent)!r} to write {path.name} in.")
            if path is not None and path.is_dir():
                raise RequestError(f"{str(path)!r} is a folder; name a file in it.")
        if plot is not None and plot.suffix != ".svg":
            raise RequestError(
                f"the picture is an SVG; call it {plot.stem}.svg, not {plot.name}."
            )
        try:
            settings = Settings(
                rounds,
                steps=steps,
                check_steps=check_steps,
                check_examples=check_examples,
                device=device,
                precision=precision,
                matmul_precision=matmul_precision,
                threads=threads,
                keep_memory=keep_memory,
                peak_tflops=peak_tflops,
                seed=seed,
            )
        except ValueError as error:
            raise RequestError(str(error)) from error
        report = None
        with err.status("") as status:
            try:
                report = run(target, against.split(","), settings, status.update)
            except UnequalWorkError as error:
                failed(error)
        if report is not None:
            out.print(render(report))  # whatever becomes of the files
            if json is not None:
                report.to_json(json)
            if plot is not None:
                report.to_svg(plot)
    raise typer.Exit(1 if report is None else 0)
