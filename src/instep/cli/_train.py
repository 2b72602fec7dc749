"""``instep train``: its options, and how it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..sharding import ProcessLostError
from ..workloads import names
from ._console import failed, request_errors
from ._training import Options, trained


def train(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help=f"A workload ({', '.join(names())}), path/to/file.py:callable or "
            "package.module:callable; the callable returns a JaxLoop, a Pair or a TorchLoop "
            "of instep.",
        ),
    ],
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Optimizer steps, those before a restart included."),
    ] = None,
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Save here, and go on from what is there.")
    ] = None,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between two saves.")] = 1000,
    keep: Annotated[int, typer.Option(min=1, help="Newest checkpoints to keep.")] = 3,
    resume: Annotated[
        bool, typer.Option(help="Go on from the newest checkpoint, or refuse if there is one.")
    ] = True,
    validate_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between two looks at held-out data.")
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Decay of an average of the weights; it is validated."),
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option(help="JSON lines of every step. Default: metrics.jsonl beside the "
                     "checkpoints, or NAME.jsonl here."),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write the same for TensorBoard to this folder.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Write a jax.profiler trace of a few steps here.")
    ] = None,
    log_every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between two lines where there is no terminal. Default: "
                     "a twentieth of them."),
    ] = None,
    stop_on_nan: Annotated[
        bool, typer.Option("--stop-on-nan", help="Stop at a number that is not finite.")
    ] = False,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="Train on the devices of all processes.")
    ] = False,
) -> None:  # fmt: skip
    """Train the JAX loop of a target, with its progress, metrics and checkpoints.

    Started again with the same options after it was killed, it goes on from its last
    checkpoint. At SIGTERM it finishes the step, saves and exits.

    With --distributed the same command is started once for every process, and the first one
    prints and writes. A JaxLoop with mesh= gets from each process its own part of a batch; of
    anything else every process makes the whole batch, and trains on its rows.

    Exit 0: done, or saved at SIGTERM. Exit 1: stopped without, at a number that is not finite,
    or because another process is gone. Exit 2: the request was wrong.
    """
    options = Options(
        checkpoint_dir, save_every, keep, resume, validate_every, ema, metrics, tensorboard,
        profile, log_every, stop_on_nan, distributed,
    )  # fmt: skip
    with request_errors():
        try:
            code = trained(target, steps, options)
        except FloatingPointError as error:
            failed(error)
            code = 1
        except ProcessLostError as error:
            failed(error)
            sys.stderr.flush()
            os._exit(1)  # an orderly exit waits for the lost process, and is aborted by JAX
    raise typer.Exit(code)
