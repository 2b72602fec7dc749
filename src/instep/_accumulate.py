"""The verbs of a gradient: ``zero_grad``, ``backward``, ``mean``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._dtypes import dtype_of, wide
from ._loss_fn import LossFn, canonical
from ._on_cpu import fast_on_cpu
from ._select import Selector, selected
from ._state import Accumulator, Loss, PyTree
from ._trees import check_like, check_params


def zero_grad(
    params: PyTree, trainable: Selector | None = None, accumulate: str | None = None
) -> Accumulator:
    """An accumulator of zeros for ``params``.

    PyTorch: ``optimizer.zero_grad()``.

    Args:
      params: pytree of floating arrays.
      trainable: as for ``make_train_step``: a regular expression on names, a callable
        ``(name, leaf) -> bool`` or a mask of bools. The leaves it does not mean get None
        instead of zeros, and ``backward`` does not differentiate them: PyTorch's
        ``requires_grad_(False)``. None: all are trained.
      accumulate: the dtype of the sums, where it is wider than that of a parameter: of a
        ``Policy``. None: float32.

    Returns:
      ``Accumulator`` whose ``grads`` have the shapes of ``params`` in at least float32.

    Raises:
      ValueError: ``params`` has no leaves, or ``trainable`` does not fit.
      TypeError: a leaf is not real floating.
    """
    check_params(params)

    def zeros(p: Any) -> jax.Array:
        dtype = wide(dtype_of(p))
        if accumulate is not None:
            dtype = np.promote_types(dtype, accumulate)
        return jnp.zeros(jnp.shape(p), dtype)

    grads = jax.tree.map(zeros, params)
    zero = jnp.zeros((), jnp.result_type(*jax.tree.leaves(grads)))
    if trainable is not None:
        trained = selected(trainable, params)
        grads = jax.tree.map(lambda g, on: g if on else None, grads, trained)
    return Accumulator(grads, loss=zero, weight=zero, count=jnp.zeros((), jnp.int32))


def backward(
    loss_fn: LossFn,
    acc: Accumulator,
    params: PyTree,
    buffers: PyTree,
    batch: PyTree,
    rng: jax.Array | None = None,
    *,
    scale: Any = None,
) -> tuple[Accumulator, Loss]:
    """Run the forward pass and the loss, and add the gradient of one microbatch.

    .. math:: \\text{acc.grads} \\mathrel{+}= \\nabla_\\theta\\,\\text{loss.total}, \\qquad
              \\text{acc.weight} \\mathrel{+}= \\text{loss.weight}

    PyTorch: ``loss = loss_fn(model, batch); loss.backward()``. As there, gradients *add*;
    nothing is divided (see ``mean``) and the parameters do not change (see ``step``).

    Args:
      loss_fn: ``(params, batch)`` or ``(params, buffers, batch, rng)``, returning a
        floating scalar or a ``Loss``.
      acc: what was accumulated so far; ``zero_grad(params)`` at the start.
      params: pytree of floating arrays, differentiated where ``acc.grads`` is not None.
      buffers: pytree handed to the forward pass, not differentiated; None without any.
      batch: one microbatch, any pytree.
      rng: key for this microbatch, shape (), if the model draws.
      scale: factor of what is differentiated, ``scaler.scale``; the loss is added without it.

    Returns:
      The new accumulator, and the ``Loss`` with the buffers after this forward pass.

    Raises:
      TypeError: the signature or the return value of ``loss_fn`` is another one.
      ValueError: ``acc`` was made for other parameters, or ``loss_fn`` returned buffers of
        another structure or shape, or floating ones for integer ones.
    """
    check_like("acc.grads", acc.grads, "params", params)
    call = canonical(loss_fn)

    leaves, treedef = jax.tree.flatten(params)
    sums = treedef.flatten_up_to(acc.grads)

    def total(trained):
        given = iter(trained)
        params = treedef.unflatten(
            [p if s is None else next(given) for p, s in zip(leaves, sums, strict=True)]
        )
        # Rebuilt inside the gradient's trace: mutable containers (Flax NNX variables) may
        # be written only in the trace they were made in.
        own_buffers = jax.tree.map(lambda x: x, buffers)
        out = call(params, own_buffers, batch, rng)
        scaled = jnp.asarray(out.total)
        if scale is not None:
            scaled = scaled.astype(wide(scaled.dtype))
            scaled = scaled * jnp.asarray(scale, scaled.dtype)
        return scaled, out

    trained = [p for p, s in zip(leaves, sums, strict=True) if s is not None]
    grads, out = fast_on_cpu(jax.grad(total, has_aux=True))(trained)
    new = iter(grads)
    acc = Accumulator(
        grads=treedef.unflatten(
            [None if s is None else s + next(new).astype(s.dtype) for s in sums]
        ),
        loss=acc.loss + jnp.asarray(out.total, acc.loss.dtype),
        weight=acc.weight + jnp.asarray(out.weight, acc.weight.dtype),
        count=acc.count + 1,
    )
    return acc, replace(out, buffers=_carried(out.buffers, buffers))


def mean(acc: Accumulator) -> Accumulator:
    """Divide the accumulated gradients and loss by the accumulated weight.

    PyTorch: the ``torch.div`` of ``(loss / k).backward()``, or the division by the number of
    tokens. The weight becomes 1, so ``mean(mean(acc))`` is ``mean(acc)``. A total weight of
    zero gives NaN, as 0 / 0 does in PyTorch.

    Args:
      acc: the sums, of floating leaves; None among its ``grads`` stays None.

    Returns:
      The accumulator divided; shapes and dtypes stay.
    """
    return replace(
        acc,
        grads=jax.tree.map(lambda g: g / acc.weight.astype(g.dtype), acc.grads),
        loss=acc.loss / acc.weight,
        weight=acc.weight / acc.weight,
    )


def _carried(new: PyTree, old: PyTree) -> PyTree:
    """The buffers for the next microbatch, in the dtypes of the last ones."""
    if new is None:
        return old
    check_like("Loss.buffers", new, "buffers", old)
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise ValueError(
            f"Loss.buffers is a {jax.tree.structure(new)} where buffers is a "
            f"{jax.tree.structure(old)}. Return the same pytree."
        )
    return jax.tree.map(_in_dtype_of, new, old)


def _in_dtype_of(new, old):
    found, wanted = jnp.result_type(new), dtype_of(old)
    if jnp.issubdtype(found, jnp.floating) and not jnp.issubdtype(wanted, jnp.floating):
        raise ValueError(
            f"Loss.buffers holds {found} where buffers holds {wanted}; casting would cut the "
            f"fraction off. Make the buffer floating at the start."
        )
    return jnp.asarray(new, wanted)
