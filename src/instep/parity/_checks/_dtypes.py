"""Leaves that are kept in another dtype on the other side."""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp

from ..._trees import named_leaves
from ._probe import Probe


def dtypes(probe: Probe) -> Iterator[str]:
    """A weight or a buffer has one floating dtype, on both sides."""
    model = probe.pair.torch.model
    theirs = {
        name: str(x.dtype).removeprefix("torch.")
        for name, x in [*model.named_parameters(), *model.named_buffers()]
    }
    params, buffers = probe.held
    leaves = named_leaves(params) | named_leaves(buffers)
    ours = {name: str(jnp.result_type(leaf)) for name, leaf in leaves.items()}
    found: dict[tuple[str, str], list[str]] = {}
    for link in probe.weights.links:
        for there in link.torch:
            for here in link.jax:
                pair = theirs[there], ours[here]
                if len(set(pair)) == 2 and any("float" in dtype for dtype in pair):
                    found.setdefault(pair, []).append(f"{there} (JAX: {here})")
    for (torch, jax), names in found.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield (
            f"{names[0]}{more} is {torch} in PyTorch and {jax} in JAX: make them equal, with "
            f"model.to(torch.{jax}) or by a cast of params"
            + (", which needs jax_enable_x64" if torch == "float64" else "")
        )
