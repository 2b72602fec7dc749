"""Connectionist temporal classification."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._dtypes import promoted
from ._checks import check_values, nan_unless
from ._ctc_paths import negative_log_likelihood
from ._labels import widened
from ._reduce import check_reduction, is_mean, reduce


def ctc_loss(
    log_probs: jax.Array,
    targets: jax.Array,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> jax.Array:
    """``torch.nn.functional.ctc_loss``.

    .. math:: \\ell_i = -\\log \\sum_{\\pi \\to y_i} \\prod_t p_{t, \\pi_t}

    over the paths :math:`\\pi` that are :math:`y_i` once repetitions and then blanks are
    dropped. PyTorch's gradient takes ``log_probs`` for the output of a log-softmax: it is
    :math:`p_{tc}` minus the share of the paths that are at :math:`c` at time :math:`t`, whose
    first term a normalised input cancels; ours has it too. It is NaN where a log probability
    is minus infinity, and everywhere in an example without a path.

    Args:
      log_probs: :math:`\\log p`, shape ``(T, N, C)`` or ``(T, C)``, floating.
      targets: labels :math:`y`, integers, shape ``(N, S)``, or one after the other,
        ``(sum(target_lengths),)``.
      input_lengths: steps of each example, at most T: integers, shape ``(N,)``, or ``()``
        without N.
      target_lengths: labels of each example, likewise.
      blank: class of the blank.
      reduction: ``"mean"`` divides each loss by the number of its labels, or 1, and their sum
        by :math:`N`; ``"sum"`` is not divided at all; ``"none"`` has shape ``(N,)`` or
        ``()``.
      zero_infinity: an example without any path, which has too many labels for its steps,
        has a loss and a gradient of 0, instead of infinity and NaN.

    Returns:
      Shape (), or ``(N,)`` for ``"none"``; the dtype of ``log_probs``. A second gradient is
      NaN; PyTorch raises.

    Raises:
      TypeError: ``log_probs`` is not floating.
      ValueError: shapes do not fit, another ``reduction``, or ``blank``, a label or a length
        out of range, which PyTorch does not look for in labels. Where JAX traces them
        (``jit``, ``vmap``) the loss and its gradient are NaN instead; see ``checked``.

    References:
      Graves et al., `Connectionist Temporal Classification: Labelling Unsegmented Sequence
      Data with Recurrent Neural Networks <https://doi.org/10.1145/1143844.1143891>`_, 2006.
    """
    check_reduction(reduction)
    dtype, [logp] = promoted(log_probs=log_probs)
    if logp.ndim not in (2, 3):
        raise ValueError(f"log_probs have shape (T, N, C) or (T, C); got {logp.shape}.")
    if not (batched := logp.ndim == 3):
        logp = jnp.expand_dims(logp, 1)
    steps, batch, classes = logp.shape
    if not 0 <= blank < classes:
        raise ValueError(f"blank must be in [0, {classes}); got {blank}.")
    n_steps = _lengths("input_lengths", input_lengths, batch)
    n_labels = _lengths("target_lengths", target_lengths, batch)
    labels, most = _rows(targets, n_labels, batch)

    checks = (
        ("input_lengths", n_steps, lambda n: (n >= 0) & (n <= steps), f"are not 0 to {steps}"),
        ("target_lengths", n_labels, lambda n: n >= 0, "are negative"),
        ("target_lengths", n_labels, lambda n: n <= most, "are more than the targets have"),
        ("targets", labels, lambda y: (y >= 0) & (y < classes), f"are not 0 to {classes - 1}"),
    )
    valid = jnp.ones(batch, bool)
    for name, values, is_valid, fault in checks:
        check_values(name, values, is_valid, f"{fault}.")
        ok = jnp.asarray(is_valid(values))
        valid &= jnp.all(ok, range(1, ok.ndim))

    blanks = jnp.full_like(labels, blank)
    path = jnp.stack([blanks, jnp.clip(labels, 0, classes - 1)], -1)
    path = path.reshape(batch, 2 * labels.shape[1])
    path = jnp.concatenate([path, jnp.full_like(path, blank, shape=(batch, 1))], -1)
    lengths = jnp.asarray(n_steps), jnp.asarray(n_labels)
    losses: jax.Array = negative_log_likelihood(zero_infinity, logp, path, *lengths)
    losses = losses * nan_unless(valid)
    if is_mean(reduction):
        losses = losses / jnp.maximum(n_labels, 1).astype(losses.dtype)
    return reduce(losses if batched else losses[0], reduction, dtype)


def _lengths(name, lengths, batch):
    """Shape ``(N,)``; a NumPy array, unless it is traced."""
    lengths = lengths if isinstance(lengths, Tracer) else np.asarray(lengths)
    if lengths.ndim == 0 and batch == 1:
        lengths = lengths.reshape(1)
    if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"{name} are {batch} integers, one for each example; got {lengths.dtype} of shape "
            f"{lengths.shape}."
        )
    return widened(lengths)


def _rows(targets, n_labels, batch):
    """The labels, a row for each example and 0 behind its last, and how many it may have."""
    traced = any(isinstance(a, Tracer) for a in (targets, n_labels))
    np_ = jnp if traced else np
    targets = widened(np_.asarray(targets))
    if targets.ndim == 2 and len(targets) == batch:
        rows, most = targets, targets.shape[1]
    elif targets.ndim == 1:  # one after the other
        size = targets.size
        start = n_labels.cumsum() - n_labels
        most = size - start
        longest = size if isinstance(n_labels, Tracer) else max([0, *n_labels])
        index = start[:, None] + np_.arange(longest)[None]
        rows = np_.take(targets, np_.clip(index, 0, size - 1)) if size else 0 * index
    else:
        raise ValueError(
            f"targets have shape (N, S) or (sum(target_lengths),), with N={batch}; got "
            f"{targets.shape}."
        )
    used = np_.arange(rows.shape[1])[None] < n_labels[:, None]
    return np_.where(used, rows, 0), most
