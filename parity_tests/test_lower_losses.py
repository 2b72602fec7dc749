"""The lowering has no losses of its own: PyTorch's are ``instep.losses``."""

import jax
import jax.numpy as jnp
import pytest
import torch

import instep
from conftest import assert_in_step
from instep.bridge import tensor_to_array
from instep.bridge.lower._table import _losses
from losses import NAMES, calls, of_torch


# Exported as the operators they are made of.
COMPOSED = (
    "multi_margin_loss",
    "multilabel_soft_margin_loss",
    "triplet_margin_with_distance_loss",
)
# torch.export cannot trace them: they are called whole.
CALLED = ("ctc_loss", "gaussian_nll_loss")
AT_MOST = 1  # call of each


def some_calls():
    count = dict.fromkeys(NAMES, 0)
    for call in calls():
        count[call.name] += 1
        if count[call.name] <= AT_MOST:
            yield pytest.param(call, id=f"{call.name}-{count[call.name]}")


@pytest.mark.parametrize("call", list(some_calls()))
def test_an_exported_loss_is_ours(call, x64):
    class Loss(torch.nn.Module):
        def forward(self, *args):
            return call.torch(*args, **call.kwargs)

    lowered = instep.lower(Loss(), call.args)
    arrays = [tensor_to_array(x) if torch.is_tensor(x) else x for x in call.args]
    assert_in_step(of_torch(call, 0)[0], lowered({}, {}, *arrays)[0])
    ops = [made.op for made in lowered.program.calls]
    ours = [op for op in ops if op.removeprefix("aten.").partition(".")[0] in _losses.ATEN]
    if call.name in CALLED:
        assert "instep.call.default" in ops and not ours
    elif call.name not in COMPOSED:
        assert len(ours) == 1


def test_ctc_by_its_operator(x64):
    call = next(c for c in calls() if c.name == "ctc_loss" and isinstance(c.args[2], list))
    log_probs, targets = (jnp.asarray(tensor_to_array(x)) for x in call.args[:2])
    for number, reduction in enumerate(_losses.REDUCTION):
        ours = _losses.ATEN["ctc_loss"](log_probs, targets, *call.args[2:], 0, number, False)
        expected = torch.nn.functional.ctc_loss(*call.args, reduction=reduction)
        assert_in_step(expected, ours)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_linear_cross_entropy_with_options(reduction, bias, x64):
    """PyTorch cuts the examples into chunks, and makes the gradients in forward."""
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=2, allow_retain_graph=True)
    weight = torch.tensor([0.5, 1.0, 2.0, 1.5, 0.3])
    loss = torch.nn.LinearCrossEntropyLoss(
        4, 5, bias=bias, weight=weight, reduction=reduction, ignore_index=1, options=options
    )
    x, labels = torch.randn(7, 4), torch.tensor([0, 1, 2, 3, 4, 1, 0])
    lowered = instep.lower(loss, (x, labels))

    def total(params, x):
        return (lowered(params, lowered.buffers, x, labels.numpy())[0] ** 2).sum()

    x.requires_grad_()
    (loss(x, labels) ** 2).sum().backward()
    in_params, in_x = jax.grad(total, (0, 1))(lowered.params, x.detach().numpy())
    assert_in_step(x.grad, in_x)
    assert_in_step(loss.linear.weight.grad, in_params["linear.weight"])
    if bias:
        assert_in_step(loss.linear.bias.grad, in_params["linear.bias"])
