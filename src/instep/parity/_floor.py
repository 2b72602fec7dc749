"""One unit in the last place: how PyTorch's own step answers to rounding."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from ..bridge._tensors import map_tensors
from ..bridge._torch_loop import TorchLoop
from ._judge import distance
from ._leaf import Leaf, Observation
from ._tolerance import NOISE


aten = torch.ops.aten
DOUBLE = (torch.float64,)
LOWER = (torch.float32, torch.bfloat16, torch.float16)

# Kernels that subtract nearly equal numbers inside. Both log p and p - 1 of a confident cross
# entropy are as inexact as 1 is, which moving them by one ulp of their own would not show.
CANCELLING = {
    kernel: decomposition_table[kernel]
    for kernel in (
        aten._log_softmax.default,
        aten._log_softmax_backward_data.default,
        aten._softmax_backward_data.default,
    )
}


class OneUlp(TorchDispatchMode):
    """Move every number that an operator makes up or down, by about one ulp of its dtype.

    Forward, backward, clipping and the optimizer run under it: this is arithmetic with
    random rounding, and the spread of its results is what rounding alone explains. Views and
    zeros are left alone, whole numbers made of whole numbers, which nothing rounds (the window
    numbers that Swin compares), and every other dtype: PyTorch counts steps in float32. Of a
    kernel in CANCELLING, what is computed inside is moved.

    Args:
      seed: of the directions.
      dtypes: that are moved.
      ulps: how far.
      size: of the table of directions, which is read from a random place on.
    """

    def __init__(
        self,
        seed: int,
        dtypes: tuple[torch.dtype, ...] = DOUBLE,
        ulps: float = 1.0,
        size: int = 1 << 20,
    ):
        super().__init__()
        self._dtypes = dtypes
        self._generator = torch.Generator().manual_seed(seed)
        self._up = torch.rand(size, generator=self._generator) < 0.5
        self._ulps = ulps
        self._tables: dict[torch.dtype, torch.Tensor] = {}

    def _factors(self, dtype: torch.dtype) -> torch.Tensor:
        if dtype not in self._tables:
            ulp = self._ulps * torch.finfo(dtype).eps
            factors = torch.tensor([1.0 - ulp / 2, 1.0 + ulp], dtype=dtype)
            self._tables[dtype] = factors[self._up.long()]
        return self._tables[dtype]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in CANCELLING:
            with self:
                return CANCELLING[func](*args, **kwargs)
        if func is aten.binary_cross_entropy.default:
            # A moved probability or target may leave [0, 1], which this kernel refuses.
            args = (args[0].clamp(0, 1), args[1].clamp(0, 1), *args[2:])
        made = func(*args, **kwargs)
        if func is aten.multilabel_margin_loss_forward.default:
            self.move(made[0])  # the other result holds flags, as floats
            return made
        schema = func._schema
        if schema.returns:
            alone = len(schema.returns) == 1
            results = zip((made,) if alone else made, schema.returns, strict=True)
        else:  # a list of tensors changed in place
            given = {x.name: value for x, value in zip(schema.arguments, args, strict=False)}
            given |= kwargs
            results = ((given.get(x.name), x) for x in schema.arguments if x.is_write)
        with no_dispatch():  # no other mode needs to see this
            exact = _is_whole(made) and _is_whole([args, *kwargs.values()])
            for result, declared in results:
                alias = declared.alias_info
                if alias is None or alias.is_write:
                    map_tensors(partial(self.move, exact=exact), result)
        return made

    def move(self, x: Any, exact: bool = False) -> Any:
        """Move ``x`` in place, if it is a tensor of such a dtype and of its own memory.

        What is ``exact`` stays, and the directions of all others are the same as without it.
        """
        if not torch.is_tensor(x) or x.dtype not in self._dtypes or x.numel() == 0:
            return x
        if x._is_zerotensor():  # without memory
            return x
        table = self._factors(x.dtype)
        n = min(x.numel(), len(table))
        start = int(torch.randint(len(table) - n + 1, (), generator=self._generator))
        if exact:
            return x
        factors = table[start : start + n].to(x.device)
        if n < x.numel():
            factors = factors.repeat(-(-x.numel() // n))[: x.numel()]
        return x.mul_(factors.view(x.shape))

    def moved_window(self, window: list[Any]) -> list[Any]:
        """A copy of the microbatches of a step, with moved inputs."""
        return map_tensors(lambda x: self.move(x.clone()), window)

    def redraw_noise(self, loop: TorchLoop, seen: Observation, reference: Observation) -> None:
        """Give random signs to every ``.grad`` that one ulp has shown to be noise.

        The gradient of a bias before BatchNorm is zero. What stands there is the rounding of
        one order of summation inside one operator, and hardly answers to one ulp, although
        another order gives another number. Its sign carries nothing, so it is drawn anew, and
        what that does to clipping, optimizer state, updates and parameters is their floor.

        Args:
          loop: a moved copy, after its backward pass.
          seen: its gradients.
          reference: what the loop that is not moved showed at this step.
        """
        for name, p in loop.model.named_parameters():
            if p.grad is None:
                continue
            there = reference[Leaf("gradient", name)]
            change = distance(seen[Leaf("gradient", name)], there)
            if not change <= NOISE * abs(there).max(initial=0.0):
                up = torch.rand(p.shape, generator=self._generator).to(p.device) < 0.5
                p.grad.copy_(torch.where(up, p.grad, -p.grad))


def _is_whole(tree: Any) -> bool:
    """Whether every floating number in these tensors is a whole one."""
    if isinstance(tree, list | tuple):
        return all(map(_is_whole, tree))
    if not torch.is_tensor(tree) or not tree.is_floating_point() or tree._is_zerotensor():
        return True
    some = tree.flatten()[:8]  # most often these tell
    return bool((some == some.round()).all()) and bool((tree == tree.round()).all())
