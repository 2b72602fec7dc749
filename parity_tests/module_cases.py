"""The modules of PyTorch's own database, and both sides of one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.testing._internal.common_modules import module_db
from torch.utils import _pytree as pytree

from instep.bridge import tensor_to_array
from instep.bridge.lower import lower
from instep.bridge.lower._draws import Draws


class Case(NamedTuple):
    """One module, in train or eval mode, and what it is called with."""

    name: str
    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def to(self, dtype: torch.dtype) -> Case:
        """A copy with the same numbers, floating tensors in ``dtype``."""

        def cast(x):
            if not torch.is_tensor(x):
                return x
            if not x.is_floating_point():
                return x.clone()
            return x.detach().to(dtype, copy=True).requires_grad_(x.requires_grad)

        args, kwargs = pytree.tree_map(cast, (self.args, self.kwargs))
        return Case(self.name, copy.deepcopy(self.module).to(dtype), args, kwargs)


def names() -> list[str]:
    return [info.name for info in module_db]


def cases(
    name: str, training: bool, at_most: int | None = None, dtype: torch.dtype = torch.float64
) -> Iterator[Case]:
    """With the same numbers every time; of many, ``at_most``, evenly spaced."""
    info = next(info for info in module_db if info.name == name)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        samples = info.module_inputs_func(info, "cpu", dtype, True, training)
        step = max(1, -(-len(samples) // (at_most or len(samples))))
        for sample in samples[::step]:
            made, given = sample.constructor_input, sample.forward_input
            if given is None:
                continue
            module = info.module_cls(*made.args, **made.kwargs).to(dtype).train(training)
            if hasattr(module, "initialize_parameters"):  # a lazy one knows its shapes now
                module(*given.args, **given.kwargs)
            yield Case(name, module, given.args, dict(given.kwargs)).to(dtype)


def of_torch(case: Case) -> dict[str, np.ndarray]:
    """Outputs, gradients of parameters and inputs, and buffers after the forward pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = case.module(*case.args, **case.kwargs)
    outputs = [x for x in pytree.tree_leaves(made) if torch.is_tensor(x)]
    inputs = _inputs(case)
    differentiated = [x for x in outputs if x.requires_grad]
    cotangents = [
        torch.tensor(c, dtype=x.dtype)
        for c, x in zip(_cotangents(differentiated), differentiated, strict=True)
    ]
    if differentiated:
        torch.autograd.backward(differentiated, cotangents)
    seen = {f"output {i}": tensor_to_array(x) for i, x in enumerate(outputs)}
    for name, x in (*case.module.named_parameters(), *inputs.items()):
        if x.requires_grad:
            grad = torch.zeros_like(x) if x.grad is None else x.grad
            seen[f"gradient of {name}"] = tensor_to_array(grad)
    return seen | {name: tensor_to_array(b) for name, b in case.module.named_buffers()}


def of_ours(case: Case) -> dict[str, np.ndarray]:
    """The same of the lowered module."""
    lowered = lower(case.module, case.args, case.kwargs)
    inputs = _inputs(case)
    leaves, spec = pytree.tree_flatten((case.args, case.kwargs))
    arrays = [tensor_to_array(x) if torch.is_tensor(x) else x for x in leaves]
    places = {f"input {i}": i for i, x in enumerate(leaves) if torch.is_tensor(x)}
    moving = {name: arrays[places[name]] for name, x in inputs.items() if x.requires_grad}

    def forward(params, moving):
        given = list(arrays)
        for name, x in moving.items():
            given[places[name]] = x
        args, kwargs = pytree.tree_unflatten(given, spec)
        made, buffers = lowered(
            params, lowered.buffers, *args, rng=Draws(jax.random.key(0)), **kwargs
        )
        return jax.tree.leaves(made), buffers

    params = {k: jnp.asarray(v) for k, v in lowered.params.items()}
    moving = {k: jnp.asarray(v) for k, v in moving.items()}
    outputs, pull, buffers = jax.vjp(forward, params, moving, has_aux=True)
    floating = [x for x in outputs if jnp.issubdtype(x.dtype, jnp.inexact)]
    drawn = iter(_cotangents(floating))
    cotangents = [
        jnp.asarray(next(drawn), x.dtype)
        if jnp.issubdtype(x.dtype, jnp.inexact)
        else np.zeros(x.shape, jax.dtypes.float0)
        for x in outputs
    ]
    grads, input_grads = pull(cotangents)
    seen = {f"output {i}": np.asarray(x) for i, x in enumerate(outputs)}
    for name, grad in (*grads.items(), *input_grads.items()):
        seen[f"gradient of {name}"] = np.asarray(grad)
    return seen | {name: np.asarray(b) for name, b in buffers.items()}


def _inputs(case: Case) -> dict[str, torch.Tensor]:
    leaves = pytree.tree_leaves((case.args, case.kwargs))
    return {f"input {i}": x for i, x in enumerate(leaves) if torch.is_tensor(x)}


def _cotangents(outputs) -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    return [noise.normal(size=tuple(x.shape)) for x in outputs]
