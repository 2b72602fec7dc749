"""A PyTorch loop under ``torch.autocast``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from .._policy import Policy, check_param, check_scaled, policy_of
from ._torch_loop import LossFn, Microbatch, TorchLoop


@dataclass(frozen=True)
class Autocast:
    """``loss_fn`` under ``torch.autocast``, on the device of the model."""

    loss_fn: LossFn
    dtype: torch.dtype

    def __call__(self, model: nn.Module, microbatch: Microbatch) -> torch.Tensor:
        device = next(model.parameters()).device.type
        with torch.autocast(device, self.dtype):
            return self.loss_fn(model, microbatch)


def autocast(loop: TorchLoop, policy: Policy | str | None) -> TorchLoop:
    """``loop`` with the lines of its ``loss_fn`` under ``torch.autocast``. ::

        with torch.autocast(device, torch.bfloat16):
            loss = loss_fn(model, microbatch)

    It is the PyTorch loop that ``from_torch(loop, policy=policy)`` is in step with:
    ``parity.run(bridge.autocast(loop, "bf16"))``.

    Args:
      loop: left as it is; model, optimizer, scheduler and scaler are shared.
      policy: its ``compute`` is autocast's dtype. One that computes in its ``param`` leaves
        ``loss_fn`` as it is.

    Raises:
      TypeError: parameters are not in the dtype of the policy.
      ValueError: no policy has that name; it computes in float16 and the loop has no scaler; or
        autocast has no such dtype.
    """
    policy = policy_of(policy)
    if policy is None:
        return loop
    _check(loop, policy)
    if policy.compute in (None, policy.param):
        return loop
    return replace(loop, loss_fn=Autocast(loop.loss_fn, getattr(torch, policy.compute)))


def _check(loop: TorchLoop, policy: Policy) -> None:
    named = loop.model.named_parameters()
    check_param(policy, {n: str(p.dtype).removeprefix("torch.") for n, p in named})
    check_scaled(policy, loop.scaler if loop.scaler and loop.scaler.is_enabled() else None)
    if policy.batch is not None:
        raise ValueError(
            f"Policy(batch={policy.batch!r}) has no meaning under torch.autocast, which casts "
            f"what each operator takes. Leave it None."
        )
    if policy.compute not in (None, policy.param, "bfloat16", "float16"):
        raise ValueError(
            f"torch.autocast computes in bfloat16 or float16, not in {policy.compute}. Use one "
            f"of these, or compute=None and casts inside of loss_fn."
        )
