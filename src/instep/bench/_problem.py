"""What TARGET gives every contender: the halves, where they start, and their batches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .._errors import TargetError
from .._loop import JaxLoop
from ..workloads import Workload
from ..workloads._target import resolve
from ._batches import first_examples, first_jax_batches, first_torch_batches
from ._contender import entry_of
from ._settings import Settings


if TYPE_CHECKING:
    from ..bridge._torch_loop import TorchLoop
    from ..parity._pair import Pair

FAR = 100_000  # optimizer steps that a tabulated schedule must reach


@dataclass(frozen=True)
class Problem:
    """A fresh TARGET. Two of them are equal if it seeds what it draws, which is checked."""

    name: str
    given: Any  # a Pair, a TorchLoop or a JaxLoop
    settings: Settings
    double: bool = False  # the first steps in float64, for the check
    left_out: int = 0  # batches of other shapes than most have
    flax: Any = None  # the ``FlaxHalf`` of a workload
    lowered: Pair | None = None  # the PyTorch half beside what is made of it

    @property
    def torch_loop(self) -> TorchLoop | None:
        return (
            None
            if isinstance(self.given, JaxLoop)
            else getattr(self.given, "torch", self.given)
        )

    @property
    def is_pair(self) -> bool:
        """Whether both halves were written by hand."""
        return not isinstance(self.given, JaxLoop) and self.torch_loop is not self.given

    def torch_bytes(self) -> int:
        """What the parameters, buffers and batches of the PyTorch half take."""
        from ..bridge._tensors import tensors_in

        assert self.torch_loop is not None
        model = self.torch_loop.model
        own = [*model.parameters(), *model.buffers(), *tensors_in(self.windows())]
        return sum(x.nbytes for x in own)

    def reference(self) -> TorchLoop:
        """The PyTorch loop that a contender may train; in float64 for the check."""
        import torch

        from ..bridge._copy import copy_loop

        assert self.torch_loop is not None
        return copy_loop(self.torch_loop, torch.float64) if self.double else self.torch_loop

    def pair(self, lowered: bool = False) -> Pair:
        """Both halves, by hand or (``lowered``, and where there is no other) lowered."""
        if self.is_pair and not lowered:
            return self.given
        assert self.lowered is not None, "made by load, where nothing is set to float64 yet"
        return self.lowered

    def windows(self) -> list[list[Any]]:
        """As many windows of microbatches of the PyTorch loop as are asked for."""
        import torch

        from ..bridge._tensors import to_dtype
        from ..bridge._torch_loop import windows

        assert self.torch_loop is not None
        taken = list(islice(windows(self.torch_loop), self._count))
        return [to_dtype(w, torch.float64) for w in taken] if self.double else taken

    def jax_batches(self) -> list[Any]:
        """The batches of a ``JaxLoop`` alone, as its step takes them."""
        assert isinstance(self.given, JaxLoop)
        assert isinstance(self.given.batches, list), "made by load"
        taken = self.given.batches[: self._count]
        if not self.double:
            return taken
        axis, examples = int(self.given.accumulate > 1), self.settings.check_examples
        return [first_examples(jax.tree.map(_double, b), axis, examples) for b in taken]

    @property
    def _count(self) -> int:
        return self.settings.check_steps if self.double else self.settings.batches


def load(
    target: str,
    settings: Settings,
    double: bool = False,
    small: bool = False,
    contender: str = "",
) -> Problem:
    """Call TARGET, with the random states of Python, NumPy and PyTorch as at every call.

    Args:
      target, settings: as for ``run``.
      double: its reference, windows and batches are float64, for the check.
      small: of each microbatch ``settings.check_examples``, as for every check.
      contender: for which the PyTorch half is lowered, if it needs that.

    Raises:
      TargetError: it returns something else than a ``Pair``, ``TorchLoop`` or ``JaxLoop``.
    """
    if ":" in target and settings.precision != "float32":
        raise TargetError(
            f"precision={settings.precision!r} is for a built-in workload; what {target} "
            f"computes in is its own to choose. Leave it out."
        )
    _seed(settings.seed)
    found = resolve(target, settings.precision)
    flax = found.flax() if isinstance(found, Workload) and found.flax is not None else None
    _seed(settings.seed)
    given = found.make_pair() if isinstance(found, Workload) else found
    jax_half = given if isinstance(given, JaxLoop) else getattr(given, "jax", None)
    takes = isinstance(jax_half, JaxLoop) or type(given).__name__ == "TorchLoop"
    if not takes:
        raise TargetError(
            f"{target} returned a {type(given).__name__}; bench takes an instep.TorchLoop, an "
            f"instep.Pair whose JAX half is a JaxLoop, or a JaxLoop with batches."
        )
    if isinstance(given, JaxLoop):
        given, left_out = first_jax_batches(target, given, settings)
    else:
        examples = settings.check_examples if small or double else None
        given, left_out = first_torch_batches(target, given, settings, examples)
    problem = Problem(target, given, settings, double, left_out, flax)
    if problem.torch_loop is None or not _is_lowered_for(contender, problem):
        return problem
    lowered = _lowered(problem.torch_loop)
    if contender.startswith("instep") and not double:
        return problem  # from_torch is timed; what torch.export leaves in memory is there now
    return replace(problem, lowered=lowered)


def _is_lowered_for(contender: str, problem: Problem) -> bool:
    if not contender or entry_of(contender).framework == "torch":
        return False
    return contender == "instep-lowered" or not problem.is_pair


@contextmanager
def surroundings(problem: Problem) -> Iterator[None]:
    """What both frameworks are set to, for the check or for the times."""
    if not problem.double:
        with jax.default_matmul_precision(problem.settings.matmul_precision):
            yield
        return
    if problem.torch_loop is None:
        from ..parity._jax_side import jax_precision as precision
    else:
        from ..parity._settings import precision
    with precision("float64"):
        yield


def _lowered(loop: TorchLoop) -> Pair:
    from ..bridge._from_torch import jax_loop_of, lowered_loss
    from ..bridge._rules import tensor
    from ..parity._pair import Pair

    loss_fn = lowered_loss(loop)
    names = [*loss_fn.lowered.params, *loss_fn.lowered.buffers]
    half = jax_loop_of(loop, loss_fn, FAR)
    return Pair(loop, half, [tensor(name) for name in names], loss_fn.leaves)


def _seed(seed: int) -> None:
    import sys

    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _double(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x
