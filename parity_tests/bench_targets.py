"""A file with a TARGET, as a user of the benchmark has it."""

import textwrap
from pathlib import Path


JAX_ALONE = """
    import jax.numpy as jnp
    import numpy as np
    import instep

    def loss_fn(params, batch):
        return instep.losses.mse_loss(batch[0] @ params["w"], batch[1])

    x = np.random.default_rng(0).standard_normal((COUNT, 2, 8, 3)).astype("float32")

    def loop():
        batches = [(x, x[..., 0]) for x in x]
        return instep.JaxLoop(
            loss_fn, instep.optim.sgd(0.1), {"w": jnp.ones(3)}, batches=batches,
            accumulate=2, policy=POLICY,
        )
    """


def jax_alone(folder: Path, count: int = 4, policy: str | None = None) -> str:
    """A ``JaxLoop`` with ``count`` batches of two microbatches; it imports no PyTorch."""
    code = JAX_ALONE.replace("COUNT", str(count)).replace("POLICY", repr(policy))
    (folder / "mine.py").write_text(textwrap.dedent(code))
    return f"{folder}/mine.py:loop"


TORCH_ALONE = """
    import time
    import numpy as np
    import torch
    import instep

    def loop():
        model = torch.nn.MODEL
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return instep.TorchLoop(model, lambda model, x: LOSS, optimizer, BATCHES)
    """


def torch_alone(
    folder: Path, batches: str, loss: str = "model(x).mean()", model: str = "Linear(3, 4)"
) -> str:
    """A ``TorchLoop`` of this model, loss and batches, each as it is written."""
    code = TORCH_ALONE.replace("MODEL", model).replace("LOSS", loss).replace("BATCHES", batches)
    (folder / "mine.py").write_text(textwrap.dedent(code))
    return f"{folder}/mine.py:loop"
