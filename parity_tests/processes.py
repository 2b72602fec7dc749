"""One of two processes: ``processes.py WHAT RANK ADDRESS FOLDER``; see test_distributed.py."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np


STEPS, K, B, PROCESSES = 20, 3, 8, 2


def part(step: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The microbatches of one process: inputs ``(k, b, 6)``, targets ``(k, b, 3)``."""
    draw = np.random.default_rng([step, rank]).standard_normal
    return draw((K, B, 6)) + rank, draw((K, B, 3))


def start() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0).standard_normal
    shapes = {"0.weight": (8, 6), "1.weight": (8,), "1.bias": (8,)}
    return {n: draw(s) for n, s in (shapes | {"3.weight": (3, 8), "3.bias": (3,)}).items()}


def torch_loop(rank: int, folder: Path) -> None:
    """DistributedDataParallel: gradients are averaged in the last backward of a window."""
    import torch
    import torch.distributed as dist
    from torch import nn

    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    dist.init_process_group(
        "gloo",
        init_method=store,
        rank=rank,
        world_size=PROCESSES,
        timeout=timedelta(seconds=60),
    )
    model = nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)
    )
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.tensor(start()[name]))
    ddp = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    seen = {}
    for step in range(STEPS):
        xs, ys = (torch.tensor(x) for x in part(step, rank))
        optimizer.zero_grad()
        total = 0.0
        for i in range(K):
            if i < K - 1:
                with ddp.no_sync():
                    loss = nn.functional.mse_loss(ddp(xs[i]), ys[i]) / K
                    loss.backward()
            else:
                loss = nn.functional.mse_loss(ddp(xs[i]), ys[i]) / K
                loss.backward()
            total += loss.item()
        seen[f"{step} loss"] = total
        for name, p in model.named_parameters():
            seen[f"{step} gradient {name}"] = p.grad.clone()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for name, p in model.named_parameters():
            seen[f"{step} parameter {name}"] = p.detach().clone()
        for name in ("running_mean", "running_var"):
            seen[f"{step} buffer {name}"] = model[1].get_buffer(name).clone()
    np.savez(folder / f"torch-{rank}.npz", **seen)
    dist.destroy_process_group()


def loss_fn(params, buffers, batch, rng):
    import jax.numpy as jnp

    import instep
    from instep import losses, ops

    x = ops.linear(batch[0], params["0.weight"])
    moving = buffers["running_mean"], buffers["running_var"]
    affine = params["1.weight"], params["1.bias"]
    x, mean, var = ops.batch_norm(x, *moving, *affine, training=True)
    out = ops.linear(jnp.tanh(x), params["3.weight"], params["3.bias"])
    moved = {"running_mean": mean, "running_var": var}
    return instep.Loss(losses.mse_loss(out, batch[1]), buffers=moved)


def jax_loop(rank: int, address: str, folder: Path) -> None:
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    import instep
    from instep import sharding
    from instep._evaluate import StepOptions
    from instep._step import make_observed_step

    jax.config.update("jax_enable_x64", True)
    with sharding.processes(address, PROCESSES, rank, initialization_timeout=60):
        mesh = jax.make_mesh((PROCESSES,), ("data",))
        tx = instep.optim.adamw(1e-2)
        buffers = {"running_mean": np.zeros(8), "running_var": np.ones(8)}

        def first(how):
            return sharding.place(instep.init_state(start(), tx, buffers), mesh, how)

        options = StepOptions(accumulate=K, clip_grad_norm=1.0, mesh=mesh)
        step_and_view = jax.jit(make_observed_step(loss_fn, tx, options))
        state, seen = first(None), {}
        for step in range(STEPS):
            batch = sharding.shard_batch(part(step, rank), mesh, accumulate=K)
            state, _, view = step_and_view(state, batch)
            seen[f"{step} loss"] = view.loss
            for what, tree in (
                ("gradient", view.grads),
                ("parameter", view.params),
                ("buffer", view.buffers),
            ):
                seen |= {f"{step} {what} {name}": x for name, x in tree.items()}
        np.savez(
            folder / f"jax-{rank}.npz", **{name: np.asarray(x) for name, x in seen.items()}
        )

        split, fused = sharding.fsdp(min_size=16), {"accumulate": K, "clip_grad_norm": 1.0}
        for name, how in (("data_parallel", None), ("fsdp", split)):
            train_step = instep.make_train_step(loss_fn, tx, **fused, mesh=mesh, sharding=how)
            state = first(how)
            for step in range(STEPS):  # NumPy: each process gives its own part
                state, metrics = train_step(state, part(step, rank))
            assert np.isfinite(float(metrics.loss))
            everywhere = jax.jit(
                lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec())
            )
            params = jax.tree.map(np.asarray, everywhere(state.params))
            np.savez(folder / f"{name}-{rank}.npz", **params)


def jax_loop_that_loses(how: str, rank: int, address: str, timeout: int) -> None:
    """Process 1 is killed or stopped, or raises, after some steps; process 0 goes on."""
    import jax
    import jax.numpy as jnp

    import instep
    from instep import sharding

    def mean_square(params, batch):
        return jnp.mean((batch @ params["w"]) ** 2)

    with sharding.processes(address, PROCESSES, rank, timeout=timeout):
        mesh = jax.make_mesh((PROCESSES,), ("data",))
        tx = instep.optim.sgd(1e-3)
        train_step = instep.make_train_step(mean_square, tx, mesh=mesh)
        state = instep.init_state({"w": jnp.ones((8, 4))}, tx)
        for step in range(10**9):
            state, metrics = train_step(state, np.ones((4, 8), np.float32))
            float(metrics.loss)
            if step == 50 and rank == 1:
                print("lost at", time.time(), flush=True)
                if how == "raise":
                    raise KeyError("an error of its own")
                os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[how])


if __name__ == "__main__":
    what, rank, address, rest = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    if what == "torch":
        torch_loop(rank, Path(rest))
    elif what == "jax":
        jax_loop(rank, address, Path(rest))
    else:
        jax_loop_that_loses(what, rank, address, int(rest))
