"""The commands. Thin: each resolves its TARGET, calls the library and prints."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from .. import __version__
from .._errors import RequestError, TargetError
from ..workloads import names
from ._target import resolve


app = typer.Typer(
    help="JAX in step with PyTorch.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out, err = Console(), Console(stderr=True)


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
    report: Annotated[
        Path | None, typer.Option(help="Write the report here, as one HTML page.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write every number of the report here.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Judge rounding in float32, bfloat16 or float16; can be given several times. "
            "Default: the dtype of the PyTorch model."
        ),
    ] = None,
    leaves: Annotated[
        bool, typer.Option("--leaves", help="Print a row for every leaf.")
    ] = False,
) -> None:
    """Walk a PyTorch loop and its JAX step side by side, and judge every leaf of every step.

    Exit 0: in step. Exit 1: not in step, or inconclusive. Exit 2: the request was wrong.
    """
    with _request_errors():
        for path in (report, json):
            if path is not None and not path.parent.is_dir():
                raise RequestError(f"no folder {str(path.parent)!r} to write {path.name} in.")
        found, workload = _compare(target, steps, precision)
        title = Path(target).name
        if report is not None:
            found.to_html(report, title)
        if json is not None:
            found.to_json(json)

        from ..parity._table import render

        out.print(render(found, title, leaves))
        if report is not None:
            out.print(f"  report     {report}", soft_wrap=True, highlight=False)
        if workload is not None and found.in_step:
            _train_on(workload)
    raise typer.Exit(0 if found.in_step else 1)


@app.command(name="list")
def list_() -> None:
    """List the built-in workloads: real training problems with a PyTorch and a Flax half."""
    from rich.table import Table

    from ..workloads import get

    with _request_errors():
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for column in ("workload", "steps", "what it is"):
            table.add_column(column)
        for name in names():
            workload = get(name)
            table.add_row(name, str(workload.total_steps), workload.summary)
        out.print(table)
        out.print("\nRun one: instep parity NAME. Your own: instep parity FILE.py:CALLABLE.")


def _compare(target: str, steps: int, precisions: list[str] | None):
    """Run the walk behind a progress bar; the workload is None for a user's own target."""
    from ..bridge import TorchLoop
    from ..parity import Pair, run
    from ..parity._walks import PRECISIONS
    from ..workloads import Workload

    if unknown := set(precisions or ()) - set(PRECISIONS):
        raise RequestError(
            f"no precision {min(unknown)!r}: rounding is judged in {', '.join(PRECISIONS)}."
        )
    found = resolve(target)
    workload = found if isinstance(found, Workload) else None
    pair = workload.make_pair() if workload else found
    if not isinstance(pair, Pair | TorchLoop):
        raise TargetError(
            f"{target} returned a {type(pair).__name__}; parity takes an instep.TorchLoop, or "
            f"an instep.Pair(torch=TorchLoop(...), jax=JaxLoop(...), weights=[...])."
        )
    with _progress() as bar:
        task = bar.add_task(f"{Path(target).name}", total=steps)
        report = run(pair, steps, precisions, lambda n: bar.update(task, completed=n))
    return report, workload


def _train_on(workload) -> None:
    """Train both halves to the end and print what they have learned."""
    from ..workloads._train import train

    total = workload.total_steps
    with _progress() as bar:
        task = bar.add_task(f"{workload.name}  float32", total=total)
        trained = train(workload, on_step=lambda n: bar.update(task, completed=n))
    out.print(
        f"  trained    {trained.steps} steps in float32; test accuracy: PyTorch "
        f"{trained.torch_accuracy:.1%}, JAX {trained.jax_accuracy:.1%}\n"
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )


@contextmanager
def _request_errors():
    """A wrong request is one message and exit 2; anything unforeseen also keeps its trace."""
    try:
        yield
    except RequestError as error:
        err.print(
            f"instep: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(2) from error
    except Exception as error:
        err.print_exception()
        raise typer.Exit(2) from error
