"""A recorded PyTorch half: a folder with one file a step, and one that says what they are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .._errors import ParityError
from ..bridge._linen import Layer
from ..bridge._sides import Side, tied
from ._step_file import Walks, read_step_file, write_step


SCHEMA = 1  # of the manifest and of the files
MANIFEST = "manifest.json"
AGAIN = "Record it again: instep.parity.record(loop, folder), or instep record."


@dataclass(frozen=True)
class Manifest:
    """What a comparison asks of a PyTorch loop, beside its steps."""

    steps: int
    precisions: list[str]  # in which rounding is judged
    accumulate: int
    drop_last: bool
    scheduled: bool  # there is a scheduler
    cycles_momentum: bool  # which sets the momentum too
    history_size: int | None  # of an LBFGS
    dropouts: list[str]  # the layers that draw
    parameters: list[str]
    model: Side  # tensors by name, and layers by kind
    environment: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)  # of step 0, 1, ...: SHA-256


@contextmanager
def writing(
    folder: str | Path,
) -> Iterator[tuple[Callable[[Walks], None], Callable[[Manifest], None]]]:
    """``(add, finish)``: add writes the next step, from 0 on; finish writes the manifest.

    All goes into a folder beside ``folder``, which gets its name at the end.

    Raises:
      ParityError: ``folder`` is there already, or cannot be made.
    """
    folder = Path(folder).resolve()
    if folder.exists():
        raise ParityError(f"{folder} is there already. Delete it, or name another folder.")
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
    try:
        unfinished.mkdir()
    except OSError as error:
        raise ParityError(f"cannot make a folder beside {folder}: {error}.") from error
    files: dict[str, str] = {}

    def add(walks: Walks) -> None:
        name = file_of(len(files))
        files[name] = write_step(unfinished / name, walks)

    def finish(manifest: Manifest) -> None:
        made = asdict(replace(manifest, files=files))
        del made["model"]["tied"]  # follows from the names
        text = json.dumps({"schema": SCHEMA, **made}, indent=1)
        (unfinished / MANIFEST).write_text(text + "\n", encoding="utf-8")

    try:
        yield add, finish
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_manifest(folder: str | Path) -> Manifest:
    """What a recording says of itself.

    Raises:
      ParityError: it is none, not complete, or of another version.
    """
    path = Path(folder) / MANIFEST
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        schema = made.pop("schema")
    except OSError:
        raise ParityError(
            f"{folder} holds no {MANIFEST}, so it is no finished recording. {AGAIN}"
        ) from None
    except (ValueError, KeyError, AttributeError) as error:
        raise ParityError(f"{path} cannot be read: {error!r}. {AGAIN}") from None
    if schema != SCHEMA:
        raise ParityError(
            f"{folder} is a recording of schema {schema}; this instep reads schema {SCHEMA}. "
            f"Record and compare with the same version of instep."
        )
    if made.keys() != {x.name for x in fields(Manifest)}:
        raise ParityError(f"{path} has other fields than it should. {AGAIN}")
    wanted = [file_of(n) for n in range(made["steps"] + 1)]
    missing = [name for name in wanted if not (path.parent / name).is_file()]
    if missing or list(made["files"]) != wanted:
        lacks = ", ".join(missing[:3]) or "steps"
        raise ParityError(f"{folder} is not complete: it lacks {lacks}. {AGAIN}")
    return Manifest(**{**made, "model": _side(made["model"])})


def read_step(folder: str | Path, manifest: Manifest, step: int) -> Walks:
    """One step; 0: what stands before the first.

    Raises:
      ParityError: its file is not the one that was written.
    """
    path = Path(folder) / file_of(step)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != manifest.files[path.name]:
        raise ParityError(
            f"{path} is damaged: it is not the file that was recorded. Copy the folder again, "
            f"or record it again."
        )
    return read_step_file(path)


def file_of(step: int) -> str:
    return f"step-{step:06d}.safetensors"


def _side(made: dict[str, Any]) -> Side:
    shapes = {name: tuple(shape) for name, shape in made["shapes"].items()}
    layers = [Layer(**{**x, "inside": tuple(x["inside"])}) for x in made["layers"]]
    return Side(shapes, made["lookup"], tied(made["lookup"]), tuple(layers))
