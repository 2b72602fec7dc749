"""The user's lines from the forward pass to the loss as a ``loss_fn`` of the core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

from ..._errors import LoweringError
from ..._state import Loss
from .._check_loop import check_loss
from .._computed import deep_copy
from .._outside import bound
from ._draws import Draws, Replay
from ._lowered import Arrays, Lowered, lower_call, unwrapped
from ._structure import leaves_like, put_together, replaced, take_apart


class LoweredLoss:
    """``loss_fn(params, buffers, leaves, rng) -> Loss`` of a PyTorch ``loss_fn(model, batch)``.

    It takes the tensors of a batch as a list, see ``leaves``. It is lowered for the shapes of
    ``example`` at once, and for others when they come, as ``jax.jit`` traces; only that needs
    PyTorch.

    Args:
      model: copied; later changes are not seen.
      loss_fn: ``(model, microbatch) -> scalar tensor``.
      example: a microbatch.
      remat: see ``lower``.

    Raises:
      LoweringError: see ``lower``.
      TypeError: ``loss_fn`` returns something other than a scalar tensor.
    """

    def __init__(
        self, model: nn.Module, loss_fn: Any, example: Any, remat: str | Sequence[str] = ()
    ):
        self._remat = remat
        self._model = deep_copy(unwrapped(model), unwrapped(model))
        self._loss_fn = bound(loss_fn, unwrapped(model))
        self._leaves, self._structure = take_apart(example, torch.is_tensor)
        self._example = example
        self._made: dict[Any, Lowered] = {}
        self.lowered = self._lower(self._model, example)
        self._made[self._key(self.lowered.params, self._leaves)] = self.lowered

    def leaves(self, batch: Any) -> list[Any]:
        """The arrays of a batch.

        Raises:
          ValueError: what is no tensor in it is not what it was in the example.
        """
        return leaves_like(self._structure, batch)

    def __call__(
        self,
        params: Arrays,
        buffers: Arrays,
        leaves: Sequence[Any],
        rng: jax.Array | Draws | None,
    ) -> Loss:
        batch = put_together(self._structure, leaves)
        loss, new_buffers = self._at(params, leaves)(params, buffers, batch, rng=rng)
        return Loss(loss.reshape(()), buffers=new_buffers)

    def replaying(
        self, params: Arrays, buffers: Arrays, batch: tuple[Sequence[Any], ...], rng: None
    ) -> Loss:
        """The same with a batch ``(leaves, drawn)``: random operators give what was drawn."""
        del rng
        leaves, drawn = batch
        return self(params, buffers, leaves, Replay(drawn))

    def _at(self, params: Arrays, leaves: Sequence[Any]) -> Lowered:
        """The program for these shapes and this precision."""
        key = self._key(params, leaves)
        if key not in self._made:
            dtype = _floating(params)
            model = self._model
            if _floating(self.lowered.params) != dtype:
                model = deep_copy(model, model).to(getattr(torch, dtype))
            tensors = [
                torch.empty(np.shape(x), dtype=_dtype_like(x, old))
                for x, old in zip(leaves, self._leaves, strict=True)
            ]
            example = replaced(self._structure, self._example, tensors)
            self._made[key] = self._lower(model, example)
        return self._made[key]

    def _lower(self, model: nn.Module, example: Any) -> Lowered:
        wrong: list[Exception] = []

        def call(model: nn.Module, batch: Any) -> torch.Tensor:
            loss = self._loss_fn(model, batch)
            try:
                check_loss(loss)
                _check_no_backward(model)
            except (TypeError, ValueError) as error:
                wrong.append(error)
                raise
            return loss

        model.zero_grad(set_to_none=True)
        try:
            return lower_call(model, call, (example,), {}, remat=self._remat)
        except LoweringError:
            if wrong:
                raise wrong[0] from None
            raise

    def _key(self, params: Arrays, leaves: Sequence[Any]) -> Any:
        shapes = tuple((tuple(np.shape(x)), _kind(x)) for x in leaves)
        return _floating(params), torch.get_default_dtype(), shapes


def _check_no_backward(model: nn.Module) -> None:
    if any(p.grad is not None for p in model.parameters()):
        raise ValueError(
            "loss_fn calls backward(); it must only return the loss, and the loop that it is "
            "part of calls loss.backward() and optimizer.step()."
        )


def _floating(params: Arrays) -> str:
    """The dtype of the parameters, those of a mixed model joined."""
    return " ".join(sorted({str(p.dtype) for p in params.values()}))


def _kind(x: Any) -> str:
    """The dtype where it is floating; integers are what PyTorch had, whatever JAX has."""
    name = str(x.dtype).removeprefix("torch.")
    return name if "float" in name else ""


def _dtype_like(x: Any, old: torch.Tensor) -> torch.dtype:
    return getattr(torch, str(x.dtype)) if old.is_floating_point() else old.dtype
