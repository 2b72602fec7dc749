"""What a loss_fn and a batch of a loop may be, and may not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import instep
from conftest import assert_in_step
from instep import bridge
from loops import make_loop, sgd


def of_loss(loss):
    return lambda: instep.from_torch(replace(make_loop(sgd), loss_fn=loss))


def squares(model, batch):
    return (model(batch[0]) ** 2).mean()


def backward_inside(model, batch):
    loss = squares(model, batch)
    loss.backward()
    return loss


REQUESTS = {
    "a tuple": (
        of_loss(lambda m, b: (squares(m, b), 0)),
        TypeError,
        "it returned a tuple of 2. Return the loss alone",
    ),
    "no scalar": (
        of_loss(lambda m, b: m(b[0])[0]),
        TypeError,
        r"a tensor of shape \(3,\). Reduce it",
    ),
    "a number": (
        of_loss(lambda m, b: squares(m, b).item()),
        TypeError,
        r"a number, which has no gradient. Leave out the .item\(\)",
    ),
    "nothing": (of_loss(lambda m, b: None), TypeError, "it returned a NoneType"),
    "detached": (
        of_loss(lambda m, b: squares(m, b).detach()),
        ValueError,
        "a gradient for no parameter of the model: it is detached",
    ),
    "backward inside": (of_loss(backward_inside), ValueError, r"loss_fn calls backward\(\)"),
    "two optimizers": (
        lambda: make_loop(lambda p: [torch.optim.SGD(list(p), lr=0.1)]),
        TypeError,
        "optimizer is a list; give one torch.optim.Optimizer.*docs/gan.md",
    ),
    "the meta device": (
        lambda: replace(
            make_loop(sgd),
            model=(meta := nn.Linear(3, 3, device="meta")),
            optimizer=sgd(meta.parameters()),
        ),
        ValueError,
        "weight, bias of the model are on the meta device",
    ),
    "a generator": (
        lambda: replace(make_loop(sgd), batches=(x for x in [1])),
        TypeError,
        "batches is a generator, which is used up after one pass",
    ),
    "no batches": (
        lambda: replace(make_loop(sgd), batches=3),
        TypeError,
        "batches is a int; give an iterable of microbatches",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests(name):
    call, error, message = REQUESTS[name]
    with pytest.raises(error, match=message):
        call()


def nested(n: int, scale: int = 3):
    inputs, labels = torch.randn(n, 3), torch.randint(0, 3, (n,))
    return {"x": inputs, "more": {"y": labels, "list": [scale, None]}, "name": "train"}


def of_nested(model, batch):
    scale, _ = batch["more"]["list"]
    return scale * F.cross_entropy(model(batch["x"]), batch["more"]["y"])


def test_constants_in_a_batch_are_part_of_the_step(x64):
    loop = replace(make_loop(sgd, accumulate=2), loss_fn=of_nested)
    loop = replace(loop, batches=[nested(4), nested(4)])
    train_step, state = instep.from_torch(loop)
    stacked = instep.stack([nested_arrays(x) for x in loop.batches])
    assert stacked["name"].shape == stacked["more"]["list"][0].shape == (2,)
    loss = bridge._torch_loop.run_step(loop, loop.batches, 1)
    state, metrics = train_step(state, stacked)
    assert_in_step(loss, metrics.loss)
    for wrong in (nested(4, scale=4), nested(4) | {"name": "test"}):
        with pytest.raises(ValueError, match="which is part of it.*or leave it out"):
            train_step(state, instep.stack([nested_arrays(wrong)] * 2))


def nested_arrays(batch):
    return bridge._tensors.to_numpy(batch)


def test_torch_tensors_of_any_kind_are_taken(x64):
    """bfloat16, which NumPy lacks, and one that requires a gradient."""
    loop = make_loop(sgd)
    inputs, labels = loop.batches[0]
    for wanted in (inputs.bfloat16(), inputs.clone().requires_grad_()):
        batch = wanted, labels
        given = replace(loop, batches=[batch], loss_fn=in_float64)
        train_step, state = instep.from_torch(given)
        _, metrics = train_step(state, batch)
        assert_in_step(in_float64(loop.model, batch), metrics.loss)


def in_float64(model, batch):
    return F.cross_entropy(model(batch[0].double()), batch[1])
