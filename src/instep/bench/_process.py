"""The parent's end of a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from .._errors import RequestError
from ._contender import BenchError, entry_of
from ._equal import UnequalWorkError
from ._settings import Job


REFUSALS = {x.__name__: x for x in (BenchError, UnequalWorkError)}
TAIL = 15  # lines of what a worker wrote before it stopped


class Worker:
    """A process that serves one job. Close it, or use it in ``with``."""

    def __init__(self, job: Job):
        self.job = job
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}._worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=environment(job),
        )
        self._tell(job.to_dict())

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, on_stage: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
        """Wait for the next one; ``on_stage`` hears what the worker is at until then.

        Raises:
          RequestError: the worker refused, raised or ended; the message is its own.
        """
        assert self._process.stdout is not None
        line, who = self._process.stdout.readline(), self.job.name
        if not line:
            self._process.wait()
            raise BenchError(
                f"{who} ended with exit code {self._process.returncode}:\n{self._tail()}"
            )
        found = json.loads(line)
        if "stage" in found:
            on_stage(found["stage"])
            return self.answer(on_stage)
        if "refused" in found:
            raise REFUSALS.get(found["kind"], RequestError)(found["refused"])
        if "raised" in found:
            raise BenchError(f"{who} raised: {found['raised']}\n{self._tail()}")
        return found

    def ask(self, **request: Any) -> dict[str, Any]:
        """Tell it something and wait for the answer."""
        self._tell(request)
        return self.answer()

    def close(self) -> None:
        """End it, whatever it is doing."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._said.close()

    def _tell(self, record: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(record) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # why it ended is what the next answer tells

    def _tail(self) -> str:
        self._said.seek(0)
        return "\n".join(self._said.read().splitlines()[-TAIL:])


def environment(job: Job, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a worker.

    Nothing that was compiled before is found again. A GPU is shared by those that wait. Threads
    of OpenMP wait as the caller says, or as they do by default: for some milliseconds they
    spin, which PyTorch is 2.7 times faster with; only where both frameworks compute in one
    process do they sleep. JAX stays on the host where it is not timed.
    """
    made = dict(os.environ if given is None else given)
    if job.kind != "time":
        made.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    made |= {
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    timed = entry_of(job.name).framework if job.kind == "time" else None
    if timed != "jax" or job.settings.device == "cpu":
        made["JAX_PLATFORMS"] = "cpu"
    elif job.settings.device == "gpu":
        made["JAX_PLATFORMS"] = "cuda"
    return made
