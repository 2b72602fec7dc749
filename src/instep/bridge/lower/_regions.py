"""Which part of a forward pass is computed again in the backward pass, marked in its graph.

``torch.utils.checkpoint`` leaves no trace in what ``torch.export`` makes. So while it traces,
every operator inside of a checkpoint is marked, and those of the modules named by ``remat``.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.fx.traceback import annotate, preserve_node_meta
from torch.utils.checkpoint import noop_context_fn

from ..._errors import LoweringError


KEY = "instep.regions"

Path = tuple[int, ...]  # the numbers of the regions around an operator, the outermost first


class Regions:
    """Numbers the regions of one forward pass and marks what is traced in them.

    Attributes:
      checkpoints: those of ``torch.utils.checkpoint``.
      redrawn: of these, those that draw anew the second time (``preserve_rng_state=False``).
    """

    def __init__(self):
        self.checkpoints: set[int] = set()
        self.redrawn: set[int] = set()
        self._numbers = itertools.count()
        self._open: Path = ()
        self._named: list[str] = []  # the patterns of remat= that are being computed

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Around the forward pass: what has no mark within it has lost it."""
        with preserve_node_meta(), annotate({KEY: ()}):
            yield

    @contextlib.contextmanager
    def region(self) -> Iterator[int]:
        """Around what is computed again; its number."""
        number = next(self._numbers)
        outer, self._open = self._open, (*self._open, number)
        try:
            with annotate({KEY: self._open}):
                yield number
        finally:
            self._open = outer

    @contextlib.contextmanager
    def checkpoint(self, preserve_rng_state: bool) -> Iterator[None]:
        """Around what ``torch.utils.checkpoint`` wraps."""
        with self.region() as number:
            self.checkpoints.add(number)
            if not preserve_rng_state:
                self.redrawn.add(number)
            yield

    def reentrant(self, function: Callable, preserve_rng_state: bool, *args: Any) -> Any:
        """``torch.utils.checkpoint`` with ``use_reentrant=True``.

        Raises:
          LoweringError: parameters inside have a gradient that PyTorch does not give them.
        """
        with self.checkpoint(preserve_rng_state):
            made = function(*args)
        if _has_gradient(made) and not _has_gradient(args):
            raise LoweringError(
                "torch.utils.checkpoint with use_reentrant=True has no input that requires a "
                "gradient: PyTorch then gives none to the parameters inside, and warns. Pass "
                "use_reentrant=False."
            )
        return made

    def around(
        self,
        fn: Callable,
        preserve_rng_state: bool = True,
        context_fn: Callable = noop_context_fn,
        *_: Any,
        **__: Any,
    ) -> Iterator[None]:
        """The generator that PyTorch runs the function inside of, not reentrant."""
        del fn
        forward, _again = context_fn()
        with self.checkpoint(preserve_rng_state), forward:
            yield

    @contextlib.contextmanager
    def of_modules(self, module: nn.Module, patterns: str | Sequence[str]) -> Iterator[None]:
        """Every call of the modules that ``patterns`` name is a region.

        A module inside of one that is named as well is part of its region.

        Args:
          module: a copy; the ``forward`` of its modules is wrapped.
          patterns: regular expressions, searched in the paths of modules.

        Raises:
          LoweringError: at the end, if a pattern named nothing that was called.
        """
        called: set[str] = set()
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        paths = {path: inner for path, inner in module.named_modules() if path}
        for path, inner in paths.items():
            mine = {pattern for pattern in patterns if re.search(pattern, path)}
            if mine:
                inner.forward = self._marked(inner.forward, mine, called)
        yield
        for pattern in patterns:
            if pattern not in called:
                matched = [path for path in paths if re.search(pattern, path)]
                raise LoweringError(
                    f"remat={pattern!r} "
                    + (
                        f"names {matched}, which the forward pass never calls as modules."
                        if matched
                        else "names no module."
                    )
                    + f" There are {list(paths)}."
                )

    def _marked(self, forward: Callable, patterns: set[str], called: set[str]) -> Callable:
        @functools.wraps(forward)
        def marked(*args: Any, **kwargs: Any) -> Any:
            called.update(patterns)
            if self._named:
                return forward(*args, **kwargs)
            self._named.extend(patterns)
            try:
                with self.region():
                    return forward(*args, **kwargs)
            finally:
                self._named.clear()

        return marked


def _has_gradient(made: Any) -> bool:
    """As PyTorch looks for it: a tensor, or one among several."""
    several = made if isinstance(made, tuple | list) else (made,)
    return any(torch.is_tensor(x) and x.requires_grad for x in several)


def regions_of(graph_module: fx.GraphModule) -> dict[fx.Node, Path]:
    """The regions around every node; a lost mark is what the nodes on both sides share."""
    nodes = list(graph_module.graph.nodes)
    marks = [(node.meta.get("custom") or {}).get(KEY) for node in nodes]
    before, after = _last_known(marks), _last_known(marks[::-1])[::-1]
    return {node: _shared(a, b) for node, a, b in zip(nodes, before, after, strict=True)}


def _last_known(marks: Sequence[Path | None]) -> list[Path]:
    known: list[Path] = []
    for mark in marks:
        known.append(mark if mark is not None else known[-1] if known else ())
    return known


def _shared(a: Path, b: Path) -> Path:
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    return tuple(x for x, _ in same)
