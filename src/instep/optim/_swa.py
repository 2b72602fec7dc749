"""Averages of the weights over training: SWA and EMA."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .._dtypes import wide
from .._select import Selector, selected
from .._state import PyTree
from .._trees import check_like, named_leaves
from ._scalars import lerp


AvgFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

STATISTICS = r"(^|\.)(running_mean|running_var|mean|var)$"
_COUNT = r"(^|\.)num_batches_tracked$"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AveragedModel:
    """``torch.optim.swa_utils.AveragedModel`` as data."""

    params: PyTree  # tree: the average
    buffers: PyTree  # tree: those of the last model, or their average
    n_averaged: jax.Array  # shape=(), int32: models averaged so far


def averaged_model(params: PyTree, buffers: PyTree = None) -> AveragedModel:
    """An average of no models yet, which holds copies of ``params`` and ``buffers``.

    PyTorch: ``torch.optim.swa_utils.AveragedModel(model)``.

    Args:
      params, buffers: pytrees of arrays of any dtype.
    """
    params, buffers = jax.tree.map(lambda x: jnp.array(x, copy=True), (params, buffers))
    return AveragedModel(params, buffers, jnp.zeros((), jnp.int32))


def swa_avg_fn(averaged: jax.Array, current: jax.Array, n_averaged: Any) -> jax.Array:
    """Stochastic weight averaging: the mean of all models so far, each leaf alike.

    .. math:: \\bar p \\leftarrow \\bar p + \\frac{p - \\bar p}{n + 1}

    PyTorch: the default of ``AveragedModel``, ``get_swa_multi_avg_fn()``. It interpolates as
    ``torch.lerp`` does, from the nearer end; ``get_swa_avg_fn()`` differs by rounding only.
    An integer leaf is averaged as a number and cut towards zero, as PyTorch does at every
    update; under ``jax.jit`` a fused multiply-add may fall on the other side of a cut.

    Args:
      averaged: :math:`\\bar p`, any shape and dtype.
      current: :math:`p`, of the same shape.
      n_averaged: :math:`n`, models averaged before.

    References:
      Izmailov et al., `Averaging Weights Leads to Wider Optima and Better Generalization
      <https://arxiv.org/abs/1803.05407>`_, 2018.
    """
    share = 1.0 / (jnp.asarray(n_averaged) + 1).astype(jnp.result_type(float))
    if jnp.issubdtype(averaged.dtype, jnp.floating):
        return _lerp(averaged, current, share)
    difference = (current - averaged).astype(share.dtype)
    return _cut(averaged.astype(share.dtype) + difference * share, averaged.dtype)


def ema_avg_fn(decay: float = 0.999) -> AvgFn:
    """Exponential moving average of the models.

    .. math:: \\bar p \\leftarrow d\\,\\bar p + (1 - d)\\,p

    PyTorch: ``get_ema_multi_avg_fn(decay)``, which interpolates as ``torch.lerp`` does;
    ``get_ema_avg_fn(decay)`` differs by rounding only. ``optax.ema`` averages updates, from
    zero.

    Args:
      decay: :math:`d`, from 0 to 1.

    Returns:
      ``avg_fn(averaged, current, n_averaged)``, for each leaf.

    Raises:
      ValueError: ``decay`` is out of range.

    References:
      Polyak and Juditsky, `Acceleration of Stochastic Approximation by Averaging
      <https://doi.org/10.1137/0330046>`_, 1992.
    """
    decay = float(decay)
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"Invalid decay: {decay}. It must satisfy 0 <= decay <= 1.")

    def avg_fn(averaged: jax.Array, current: jax.Array, n_averaged: Any) -> jax.Array:
        del n_averaged
        dtype = jnp.result_type(float)
        if jnp.issubdtype(averaged.dtype, jnp.floating):
            return _lerp(averaged, current, jnp.asarray(1.0 - decay, dtype))
        mixed = averaged.astype(dtype) * decay + current.astype(dtype) * (1.0 - decay)
        return _cut(mixed, averaged.dtype)

    return avg_fn


def update_parameters(
    averaged: AveragedModel,
    params: PyTree,
    buffers: PyTree = None,
    avg_fn: AvgFn = swa_avg_fn,
    use_buffers: bool = False,
) -> AveragedModel:
    """Take one more model into the average; the first is copied.

    PyTorch: ``torch.optim.swa_utils.AveragedModel.update_parameters(model)``. Pure: jit it
    with ``avg_fn`` and ``use_buffers`` bound.

    Args:
      averaged: the average so far; not modified.
      params: pytree, of the model now.
      buffers: pytree, of the model now; None keeps those of ``averaged``.
      avg_fn: ``(averaged, current, n_averaged) -> averaged`` for one leaf: ``swa_avg_fn``,
        ``ema_avg_fn(decay)`` or your own.
      use_buffers: average the buffers too, instead of keeping the last. A running variance
        is then a mean of variances; ``update_bn`` computes it for the averaged weights.

    Raises:
      ValueError: ``params`` or ``buffers`` do not match the average.
    """
    n = averaged.n_averaged

    def take(old: jax.Array, new: Any) -> jax.Array:
        new = jnp.asarray(new, old.dtype)
        return jnp.where(n == 0, new, avg_fn(old, new, n).astype(old.dtype))

    check_like("params", params, "averaged.params", averaged.params)
    new_params = jax.tree.map(take, averaged.params, params)
    new_buffers = averaged.buffers
    if buffers is not None:
        check_like("buffers", buffers, "averaged.buffers", averaged.buffers)
        keep = take if use_buffers else lambda old, new: jnp.asarray(new, old.dtype)
        new_buffers = jax.tree.map(keep, averaged.buffers, buffers)
    return AveragedModel(new_params, new_buffers, n + 1)


def update_bn(
    forward: Callable[[PyTree, Any], PyTree],
    buffers: PyTree,
    batches: Iterable[Any],
    momentum: float = 0.1,
    select: Selector = STATISTICS,
) -> PyTree:
    """Recompute the running statistics of BatchNorm as plain means over ``batches``.

    .. math:: \\text{running} = \\frac1n \\sum_{i=1}^n \\text{statistics of batch } i

    PyTorch: ``torch.optim.swa_utils.update_bn(loader, model)``. Each batch is run from
    statistics of zero, where an ordinary training forward leaves ``momentum`` times those
    of the batch; whether its variance is unbiased (PyTorch) or biased (Flax) is its own.

    Args:
      forward: ``(buffers, batch) -> buffers``, the forward pass in training with the
        averaged parameters; jit it.
      buffers: pytree, as the model keeps them; what is not selected stays as it is.
      batches: at least one.
      momentum: of the forward pass, in PyTorch's convention: the share of the new
        statistics. Flax's is 1 minus it.
      select: the leaves that are running statistics, as for ``trainable``: names that end in
        ``running_mean``, ``running_var``, ``mean`` or ``var``. Leaves called
        ``num_batches_tracked`` count the batches.

    Returns:
      Buffers like ``buffers``.

    Raises:
      ValueError: ``batches`` is empty, ``momentum`` is not in (0, 1], nothing is selected,
        or ``forward`` has another momentum or returned other buffers.
      TypeError: ``select`` gives something other than bools.

    References:
      Izmailov et al., `Averaging Weights Leads to Wider Optima and Better Generalization
      <https://arxiv.org/abs/1803.05407>`_, 2018, section 3.2.
    """
    if not 0.0 < momentum <= 1.0:
        raise ValueError(
            f"Invalid momentum: {momentum}. It is the share of the new statistics, "
            f"0 < momentum <= 1 (1 minus Flax's momentum)."
        )
    running = selected(select, buffers)
    counts = [re.search(_COUNT, name) is not None for name in named_leaves(buffers)]
    counted = jax.tree.unflatten(jax.tree.structure(buffers), counts)
    start = jax.tree.map(
        lambda x, on, count: jnp.zeros_like(x) if on or count else jnp.asarray(x),
        buffers,
        running,
        counted,
    )
    mean, n = start, 0
    for batch in batches:
        n += 1
        new = forward(start, batch)
        check_like("what forward returned", new, "buffers", buffers)
        if n == 1:
            _check_momentum(forward, start, batch, new, running, momentum)
        mean = jax.tree.map(
            lambda m, x, on, n=n: _cumulative(m, x / momentum, n) if on else m,
            mean,
            new,
            running,
        )
    if not n:
        raise ValueError(
            "batches is empty: there is nothing to compute statistics of. A generator is "
            "used up after one pass; give a list or a DataLoader."
        )
    return jax.tree.map(lambda m, count: jnp.full_like(m, n) if count else m, mean, counted)


def _check_momentum(forward, start, batch, from_zero, running, momentum: float) -> None:
    """A forward pass from ones keeps the other share of them."""
    ones = jax.tree.map(lambda x, on: jnp.ones_like(x) if on else x, start, running)
    from_one = named_leaves(forward(ones, batch))
    for name, zero in named_leaves(from_zero).items():
        if not named_leaves(running)[name]:
            continue
        share = 1.0 - float(jnp.mean(from_one[name] - zero))
        noise = float(jnp.sqrt(jnp.finfo(zero.dtype).eps) * (1.0 + jnp.max(jnp.abs(zero))))
        if not abs(share - momentum) <= noise:
            raise ValueError(
                f"the forward pass takes a share of {share:.3g} of the new statistics into "
                f"{name}, not {momentum=}. Give the momentum of the model (1 minus Flax's)."
            )


def _cumulative(mean: jax.Array, new: jax.Array, n: int) -> jax.Array:
    """PyTorch's running statistic with momentum None, whose share is 1 / n."""
    dtype = wide(mean.dtype)
    return ((1.0 - 1.0 / n) * mean.astype(dtype) + new.astype(dtype) / n).astype(mean.dtype)


def _lerp(start: jax.Array, end: jax.Array, weight: jax.Array) -> jax.Array:
    """``torch.lerp`` in at least float32."""
    dtype = wide(start.dtype)
    moved = lerp(start.astype(dtype), end.astype(dtype), weight.astype(dtype))
    return moved.astype(start.dtype)


def _cut(value: jax.Array, dtype: Any) -> jax.Array:
    """Towards zero, as PyTorch copies a float into an integer tensor."""
    return jnp.trunc(value).astype(dtype)
