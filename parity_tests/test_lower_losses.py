"""The lowering has no losses of its own: aten's are ``instep.losses``."""

import jax.numpy as jnp
import pytest
import torch

from conftest import assert_in_step
from instep.bridge import tensor_to_array
from instep.bridge.lower import LOSSES
from losses import NAMES, calls, of_torch


# Written in Python: exported as the operators they are made of, or refused by export.
COMPOSED = (
    "gaussian_nll_loss",
    "multilabel_soft_margin_loss",
    "triplet_margin_with_distance_loss",
)
AT_MOST = 2  # calls of each


class OurLosses(torch.fx.Interpreter):
    """Runs a graph with PyTorch's operators, and ours for its losses."""

    def __init__(self, module):
        super().__init__(module)
        self.used = []

    def call_function(self, target, args, kwargs):
        if target not in LOSSES:
            return super().call_function(target, args, kwargs)
        self.used.append(target)
        return LOSSES[target](
            *map(as_array, args), **{k: as_array(v) for k, v in kwargs.items()}
        )


def as_array(x):
    return jnp.asarray(tensor_to_array(x.detach())) if torch.is_tensor(x) else x


def some_calls():
    count = dict.fromkeys(NAMES, 0)
    for call in calls():
        count[call.name] += 1
        exported = call.name not in (*COMPOSED, "ctc_loss")
        if exported and count[call.name] <= AT_MOST:
            yield pytest.param(call, id=f"{call.name}-{count[call.name]}")


@pytest.mark.parametrize("call", list(some_calls()))
def test_an_exported_loss_is_ours(call, x64):
    class Loss(torch.nn.Module):
        def forward(self, *args):
            return call.torch(*args, **call.kwargs)

    graph = OurLosses(torch.export.export(Loss(), call.args).module())
    ours = graph.run(*call.args)
    assert len(graph.used) == 1
    assert_in_step(of_torch(call, 0)[0], ours)


def test_ctc_which_export_refuses_is_ours_by_its_operator(x64):
    lengths = {"IntList": list, "Tensor": torch.as_tensor}
    call = next(c for c in calls() if c.name == "ctc_loss" and isinstance(c.args[2], list))
    for overload, of in lengths.items():
        op = getattr(torch.ops.aten.ctc_loss, overload)
        args = (*call.args[:2], *map(of, call.args[2:]))
        for reduction in (0, 1, 2):
            ours = LOSSES[op](*map(as_array, args), 0, reduction)
            assert_in_step(op(*args, 0, reduction), ours, f"{op} {reduction}")
