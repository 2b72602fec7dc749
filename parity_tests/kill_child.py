"""A training that may be killed: a small network with dropout and a schedule, saved often."""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import instep


EVERY = 3  # steps between two saves


def loss_fn(params, buffers, batch, rng):
    x, y = batch
    h = jnp.tanh(x @ params["in"])
    kept = jax.random.bernoulli(rng, 0.8, h.shape)
    out = (h * kept / 0.8) @ params["out"]
    seen = buffers["seen"] + x.shape[0]
    return instep.Loss(instep.losses.cross_entropy(out, y), buffers={"seen": seen})


def loop(steps: int) -> instep.JaxLoop:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 2, 16, 8)).astype("f")
    y = (x[..., 0] > 0).astype(int) + 2 * (x[..., 1] > 0)
    params = {
        "in": rng.normal(size=(8, 32)).astype("f") / 3,
        "out": rng.normal(size=(32, 4)).astype("f") / 6,
    }
    lr = instep.schedules.one_cycle_lr(max_lr=1e-2, total_steps=steps)
    return instep.JaxLoop(
        loss_fn,
        instep.optim.adamw(lr),
        params,
        {"seen": jnp.zeros((), jnp.int32)},
        list(zip(x, y, strict=True))[:13],  # 13 to an epoch: saves fall anywhere in it
        accumulate=2,
        clip_grad_norm=1.0,
        rng=jax.random.key(0),
    )


def main(folder: str, steps: int) -> None:
    from instep.checkpoint import Checkpointer

    with Checkpointer(folder, keep=2) as checkpointer:
        instep.train(
            loop(steps),
            steps,
            checkpointer=checkpointer,
            save_every=EVERY,
            on_save=lambda n, state: print(*checkpointer.steps(), flush=True),
        )


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("error")
    main(sys.argv[1], int(sys.argv[2]))
