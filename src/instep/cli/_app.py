"""The commands. Thin: each resolves its TARGET, calls the library and prints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from .. import __version__
from .._errors import RequestError, TargetError
from ..workloads import Workload, names
from ..workloads._target import resolve
from ._bench import bench
from ._console import err, out, request_errors
from ._train import train


if TYPE_CHECKING:
    from ..parity import Report


app = typer.Typer(
    help="JAX in step with PyTorch.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ReportPath = Annotated[
    Path | None, typer.Option("--report", help="Write the report here, as one HTML page.")
]
JsonPath = Annotated[
    Path | None, typer.Option("--json", help="Write every number of the report here.")
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(
        help="Judge rounding in float32, bfloat16 or float16; can be given several times. "
        "Default: the dtype of the PyTorch model."
    ),
]
Leaves = Annotated[bool, typer.Option("--leaves", help="Print a row for every leaf.")]


@app.callback(invoke_without_command=True)
def _instep(
    version: Annotated[bool, typer.Option("--version", help="Print it and exit.")] = False,
) -> None:
    if version:
        print(f"instep {__version__}")
        raise typer.Exit


@app.command()
def parity(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help=f"A workload ({', '.join(names())}), path/to/file.py:callable or "
            "package.module:callable; the callable returns a TorchLoop or a Pair of instep.",
        ),
    ],
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps to compare.")] = 20,
    report: ReportPath = None,
    json: JsonPath = None,
    precision: Precisions = None,
    leaves: Leaves = False,
) -> None:
    """Walk a PyTorch loop and its JAX step side by side, and judge every leaf of every step.

    Exit 0: in step. Exit 1: not in step, or inconclusive. Exit 2: the request was wrong.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch is there too
    with request_errors():
        _check_folders(report, json)
        found, workload = _walk(target, steps, precision)
        _show(found, Path(target).name, report, json, leaves)
        if workload is not None and workload.target is not None and found.in_step:
            _train_on(workload)
    raise typer.Exit(0 if found.in_step else 1)


@app.command()
def record(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="As for parity; of a Pair or a workload the PyTorch half, with its batch.",
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new one.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps to record.")] = 20,
    precision: Precisions = None,
) -> None:
    """Walk a PyTorch loop alone and write its steps to a folder, for compare.

    Exit 0: the folder is there. Exit 2: the request was wrong.
    """
    with request_errors():
        from ..bridge import TorchLoop
        from ..parity import Pair, record

        _check_precisions(precision)
        found = _pair_of(resolve(target))
        given = {"batch": found.batch} if isinstance(found, Pair) else {}
        loop = found.torch if isinstance(found, Pair) else found
        if not isinstance(loop, TorchLoop):
            raise TargetError(
                f"{target} returned a {type(loop).__name__}; record takes an "
                f"instep.TorchLoop, or the PyTorch half of an instep.Pair."
            )
        with _bar(Path(target).name, steps) as on_step:
            record(loop, folder, steps, precision, on_step=on_step, **given)
        size = sum(path.stat().st_size for path in folder.iterdir())
        out.print(
            f"{folder}: {steps} steps, {size / 1e6:.1f} MB", soft_wrap=True, highlight=False
        )


@app.command()
def compare(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Written by record.")],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="path/to/file.py:callable or package.module:callable; the callable returns a "
            "JaxLoop, an opaque loop, (loop, weights), or a Pair, of which only the JAX half "
            "is taken.",
        ),
    ],
    report: ReportPath = None,
    json: JsonPath = None,
    leaves: Leaves = False,
) -> None:
    """Walk a JAX loop beside a recorded PyTorch loop; PyTorch need not be installed.

    Exit 0: in step. Exit 1: not in step, or inconclusive. Exit 2: the request was wrong.
    """
    with request_errors():
        from ..parity import compare

        _check_folders(report, json)
        found = _pair_of(resolve(target))
        if hasattr(found, "torch"):  # a Pair
            found = (found.jax, found.weights)
        half, *weights = found if isinstance(found, tuple) else (found,)
        with _bar(Path(target).name, None) as on_step:
            made = compare(folder, half, *weights, on_step=on_step)
        _show(made, Path(target).name, report, json, leaves)
    raise typer.Exit(0 if made.in_step else 1)


app.command()(train)
app.command()(bench)


@app.command(name="list")
def list_() -> None:
    """List the built-in workloads: real training problems with a PyTorch and a Flax half."""
    from rich.table import Table

    from ..workloads import get

    with request_errors():
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for column in ("workload", "steps", "what it is"):
            table.add_column(column)
        for name in names():
            workload = get(name)
            table.add_row(name, str(workload.total_steps), workload.summary)
        out.print(table)
        out.print(
            "\nCompare its halves: instep parity NAME. Train the JAX half: instep train NAME.\n"
            "Your own: FILE.py:CALLABLE in place of NAME."
        )


def _walk(target: str, steps: int, precisions: list[str] | None):
    """Run the walk behind a progress bar; the workload is None for a user's own target."""
    from ..bridge import TorchLoop
    from ..parity import Pair, run

    _check_precisions(precisions)
    found = resolve(target)
    workload = found if isinstance(found, Workload) else None
    pair = _pair_of(found)
    if not isinstance(pair, Pair | TorchLoop):
        raise TargetError(
            f"{target} returned a {type(pair).__name__}; parity takes an instep.TorchLoop, or "
            f"an instep.Pair(torch=TorchLoop(...), jax=JaxLoop(...), weights=[...])."
        )
    with _bar(Path(target).name, steps) as on_step:
        report = run(pair, steps, precisions, on_step)
    return report, workload


def _pair_of(found: Any) -> Any:
    return found.make_pair() if isinstance(found, Workload) else found


def _check_precisions(precisions: list[str] | None) -> None:
    from ..parity._walks import PRECISIONS

    if unknown := set(precisions or ()) - set(PRECISIONS):
        raise RequestError(
            f"no precision {min(unknown)!r}: rounding is judged in {', '.join(PRECISIONS)}."
        )


def _check_folders(*paths: Path | None) -> None:
    for path in paths:
        if path is not None and not path.parent.is_dir():
            raise RequestError(f"no folder {str(path.parent)!r} to write {path.name} in.")


def _show(
    found: Report, title: str, report: Path | None, json: Path | None, leaves: bool
) -> None:
    """Write what is asked for, and print."""
    from ..parity._table import render

    if report is not None:
        found.to_html(report, title)
    if json is not None:
        found.to_json(json)
    out.print(render(found, title, leaves))
    if report is not None:
        out.print(f"  report     {report}", soft_wrap=True, highlight=False)


def _train_on(workload: Workload) -> None:
    """Train both halves to the end and print what they have learned."""
    from ..workloads._train import train as train_both

    total, metric = workload.total_steps, workload.metric
    with _bar(f"{workload.name}  {workload.precision}", total) as on_step:
        trained = train_both(workload, on_step=on_step)
    out.print(
        f"  trained    {trained.steps} steps in {workload.precision}; {metric.name}: PyTorch "
        f"{metric.text.format(trained.torch)}, JAX {metric.text.format(trained.jax)}"
        f"{metric.unit}\n",
        soft_wrap=True,
    )


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar, and what tells it the number of each step."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda n: bar.update(task, completed=n)
