"""A lowered PyTorch loop, laid over a mesh, is its step on one device."""

from __future__ import annotations

import jax
import torch
from torch import nn

import instep
from instep import sharding
from sharded_walk import assert_same, case, mesh_of, on_host


def torch_loop() -> instep.TorchLoop:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 36, 10),
    ).double()  # fmt: skip
    return instep.TorchLoop(
        model,
        lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        torch.optim.AdamW(model.parameters(), lr=1e-3),
        [(torch.randn(16, 1, 8, 8).double(), torch.randint(10, (16,))) for _ in range(6)],
        accumulate=2,
        clip_grad_norm=1.0,
    )


def walked(loop: instep.TorchLoop, **options) -> list:
    step, state = instep.from_torch(loop, **options)
    seen = []
    for i in range(0, 6, 2):
        state, metrics = step(state, instep.stack(loop.batches[i : i + 2]))
        seen.append({"loss": on_host(metrics.loss), "state": on_host(state)})
    return seen


@case("data_parallel")
def a_lowered_loop_equals_one_device():
    """In eval mode, where BatchNorm looks at no batch; and of the whole batch."""
    for training in (False, True):
        loop = torch_loop()
        loop.model.train(training)
        one = walked(loop)
        for how in (
            sharding.data_parallel(whole_batch=training),
            sharding.fsdp(min_size=64, whole_batch=training),
        ):
            assert_same(one, walked(loop, mesh=mesh_of(8), sharding=how))


@case("data_parallel")
def a_lowered_state_goes_back():
    loop = torch_loop()
    step, state = instep.from_torch(loop, mesh=mesh_of(8), sharding=sharding.fsdp(min_size=64))
    split = [x for x in jax.tree.leaves(state.params) if not x.sharding.is_fully_replicated]
    assert len(split) == 2  # the kernel and the matrix
    state, _ = step(state, instep.stack(loop.batches[:2]))
    instep.to_torch(state, loop)
    for name, p in loop.model.named_parameters():
        assert torch.equal(p, torch.tensor(on_host(state.params[name]))), name
