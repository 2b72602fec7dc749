"""What TARGET gives every contender: the halves, where they start, and their batches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .._errors import TargetError
from .._loop import JaxLoop
from ..workloads import Workload
from ..workloads._target import resolve
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
        if self.given.batches is None:
            raise TargetError(
                f"{self.name} returned a JaxLoop without batches; give it batches=, a list of "
                f"what its step takes."
            )
        epochs = chain.from_iterable(repeat(self.given.batches, 100 * self._count))
        found = _alike(epochs, self._count, lambda b: [np.shape(x) for x in jax.tree.leaves(b)])
        if not found:
            raise TargetError(f"{self.name} returned a JaxLoop whose batches are empty.")
        if not self.double:
            return found
        axis, examples = int(self.given.accumulate > 1), self.settings.check_examples
        return [_examples(jax.tree.map(_double, b), axis, examples) for b in found]

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
    examples = settings.check_examples if small or double else None
    given = _with_its_batches(given, settings, examples)
    problem = Problem(target, given, settings, double, flax)
    if problem.torch_loop is None or not _is_lowered_for(contender, problem):
        return problem
    return replace(problem, lowered=_lowered(problem.torch_loop))


def _is_lowered_for(contender: str, problem: Problem) -> bool:
    """``from_torch``, which is what is timed of instep, lowers by itself."""
    if not contender or entry_of(contender).framework == "torch":
        return False
    of_instep = contender == "instep-lowered" or (contender == "instep" and not problem.is_pair)
    return problem.double if of_instep else not problem.is_pair


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


def _with_its_batches(given: Any, settings: Settings, examples: int | None) -> Any:
    """``given`` with its first windows as a list: a shuffle would go on with whoever looks."""
    if isinstance(given, JaxLoop):
        return given
    from ..bridge._tensors import map_tensors, tensors_in
    from ..bridge._torch_loop import windows

    loop = getattr(given, "torch", given)
    full = (w for w in windows(loop) if len(w) == loop.accumulate)
    count = max(settings.batches, settings.check_steps)
    taken = _alike(full, count, lambda w: [x.shape for x in tensors_in(w)])
    batches = [microbatch for window in taken for microbatch in window]
    if examples is not None:
        size = tensors_in(batches[0])[0].shape[0]
        batches = [
            map_tensors(lambda x: x[:examples] if x.shape[:1] == (size,) else x, microbatch)
            for microbatch in batches
        ]
    loop = replace(loop, batches=batches)
    return replace(given, torch=loop) if hasattr(given, "torch") else loop


def _lowered(loop: TorchLoop) -> Pair:
    from ..bridge._from_torch import jax_loop_of, lowered_loss
    from ..bridge._rules import tensor
    from ..parity._pair import Pair

    loss_fn = lowered_loss(loop)
    names = [*loss_fn.lowered.params, *loss_fn.lowered.buffers]
    half = jax_loop_of(loop, loss_fn, FAR)
    return Pair(loop, half, [tensor(name) for name in names], loss_fn.leaves)


def _alike(stream: Any, count: int, shapes: Any) -> list[Any]:
    """The first ``count`` that are shaped as the very first: one compilation serves all."""
    found: list[Any] = []
    for x in islice(stream, 100 * count):
        if not found or shapes(x) == shapes(found[0]):
            found.append(x)
        if len(found) == count:
            break
    return found


def _examples(batch: Any, axis: int, count: int | None) -> Any:
    """The first ``count`` along the axis of examples, which is that of the first leaf."""
    size = np.shape(jax.tree.leaves(batch)[0])[axis]

    def taken(x: np.ndarray) -> np.ndarray:
        has_them = x.ndim > axis and x.shape[axis] == size
        return x[(slice(None),) * axis + (slice(count),)] if has_them else x

    return jax.tree.map(taken, batch)


def _seed(seed: int) -> None:
    import sys

    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _double(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x
