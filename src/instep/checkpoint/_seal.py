"""The seal of a checkpoint: what is in it, and a digest of every file."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


NAME = "instep.json"
VERSION = 1


class Damaged(Exception):
    """A checkpoint is not what was written; the message says what is wrong."""


def seal(folder: Path, content: dict[str, Any]) -> None:
    """Write ``content``, and the size and digest of every file in the folders below ``folder``.

    The files beside the seal itself are orbax's own notes: it may still write them, and
    nothing here reads them.
    """
    paths = sorted(path for path in folder.glob("*/**/*") if path.is_file())
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_size_and_digest, paths))
    files = {p.relative_to(folder).as_posix(): f for p, f in zip(paths, found, strict=True)}
    body = {"version": VERSION, **content, "files": files}
    text = json.dumps({"digest": _digest_of(body), "body": body}, indent=1)
    (folder / NAME).write_text(text)


def unsealed(folder: Path) -> dict[str, Any]:
    """The content of a checkpoint whose every file is as it was written.

    Raises:
      Damaged: one is not, or the seal itself is not.
    """
    content = read(folder)
    with ThreadPoolExecutor() as pool:
        for wrong in pool.map(lambda item: _wrong(folder, *item), content["files"].items()):
            if wrong:
                raise Damaged(wrong)
    return content


def read(folder: Path) -> dict[str, Any]:
    """The content as the seal has it; the files are not looked at.

    Raises:
      Damaged: there is no seal, or it is not as it was written.
    """
    try:
        sealed = json.loads((folder / NAME).read_bytes())
        body, digest = sealed["body"], sealed["digest"]
    except NotADirectoryError:
        raise Damaged("it is a file, not a folder") from None
    except FileNotFoundError:
        what = "it has no" if any(folder.iterdir()) else "it is empty, there is no"
        raise Damaged(f"{what} {NAME}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{NAME} cannot be read: {error!r}") from None
    if digest != _digest_of(body):
        raise Damaged(f"{NAME} is not as it was written")
    return body


def _wrong(folder: Path, name: str, written: list[Any]) -> str | None:
    try:
        size, digest = _size_and_digest(folder / name)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return f"{name} is missing"
    if size != written[0]:
        return f"{name} has {size} bytes, and {written[0]} were written"
    return None if digest == written[1] else f"{name} is not as it was written"


def _size_and_digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        return file.tell(), digest.hexdigest()


def _digest_of(body: Any) -> str:
    text = json.dumps(body, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
