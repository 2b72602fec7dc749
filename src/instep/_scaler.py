"""Gradient scaling for float16: torch.amp.GradScaler as data."""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._dtypes import wide
from ._state import PyTree
from ._trees import named_leaves


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradScaler:
    """``torch.amp.GradScaler``, a pytree whose methods return what PyTorch changes in place.

    .. math::
        s &\\leftarrow \\begin{cases}
            s \\cdot \\text{backoff\\_factor} & \\text{a gradient was not finite} \\\\
            s \\cdot \\text{growth\\_factor} & \\text{at every growth\\_interval-th finite
                                               step in a row, if still finite} \\\\
            s & \\text{else} \\end{cases}

    The loop of PyTorch, and the verbs that it becomes::

        scaler.scale(loss).backward()   backward(..., scale=scaler.scale)
        scaler.unscale_(optimizer)      grads, found_inf = scaler.unscale(acc.grads)
        scaler.step(optimizer)          step(..., found_inf=found_inf)
        scaler.update()                 scaler = scaler.update(found_inf)

    With several optimizers a step is skipped by its own ``found_inf``, and ``update`` is
    called once, with the logical or of all of them. As in PyTorch the scale has no floor:
    repeated overflow takes it to 0 (a little sooner, where XLA flushes subnormal numbers).
    Flax's ``DynamicScale`` grows one step later, and
    ``jmp.DynamicLossScale`` stops at 1.

    Args:
      init_scale: the scale at the start.
      growth_factor: above 1.
      backoff_factor: below 1.
      growth_interval: finite steps in a row before the scale grows.
      scale, growth_tracker: where a scaler stands: float32 and int32, both of shape (). Not
        given, they start at ``init_scale`` and 0.

    Raises:
      TypeError: ``init_scale`` is a string: PyTorch's first argument, the device.
      ValueError: ``growth_factor`` or ``backoff_factor`` is out of range.

    References:
      Micikevicius et al., `Mixed Precision Training <https://arxiv.org/abs/1710.03740>`_,
      2017.
    """

    init_scale: InitVar[Any] = 2.0**16
    growth_factor: Any = 2.0
    backoff_factor: Any = 0.5
    growth_interval: Any = 2000
    scale: Any = None  # shape=(), float32
    growth_tracker: Any = None  # shape=(), int32: finite steps since the scale changed

    def __post_init__(self, init_scale):
        scale = init_scale if self.scale is None else self.scale
        if isinstance(scale, str):
            raise TypeError(
                f"init_scale must be a number; got {scale!r}. PyTorch's first argument, the "
                f"device, has no meaning here."
            )
        tracker = 0 if self.growth_tracker is None else self.growth_tracker
        # Factors in double precision, as PyTorch has them; it multiplies before it rounds.
        for name, value, dtype in (
            ("scale", scale, np.float32),
            ("growth_factor", self.growth_factor, np.float64),
            ("backoff_factor", self.backoff_factor, np.float64),
            ("growth_interval", self.growth_interval, np.int32),
            ("growth_tracker", tracker, np.int32),
        ):
            number = isinstance(value, int | float | np.number)
            object.__setattr__(self, name, dtype(value) if number else value)
        _check("growth_factor", self.growth_factor, low=1.0)
        _check("backoff_factor", self.backoff_factor, high=1.0)

    def scaled(self, loss: jax.Array) -> jax.Array:
        """``scaler.scale(loss)``: the loss to differentiate, in at least float32."""
        loss = jnp.asarray(loss)
        dtype = wide(loss.dtype)
        return loss.astype(dtype) * jnp.asarray(self.scale, dtype)

    def unscale(self, grads: PyTree) -> tuple[PyTree, jax.Array]:
        """``scaler.unscale_(optimizer)``: before clipping, once for each optimizer.

        Args:
          grads: gradients of the scaled loss; None leaves are passed over.

        Returns:
          ``(grads, found_inf)``: the gradients over the scale, in their dtypes, and whether
          any of those that came in was not finite, shape (), bool.

        Raises:
          ValueError: a gradient is float16, which PyTorch refuses too.
        """
        half = [name for name, g in named_leaves(grads).items() if g.dtype == jnp.float16]
        if half:
            raise ValueError(
                f"the gradients of {half} are float16: what overflowed or vanished in them "
                f"is lost before it is unscaled. instep.backward accumulates in float32; "
                f"keep the parameters in float32 and cast inside loss_fn, or pass acc.grads."
            )
        shift, inverse = _instep_scaler_inverse(self.scale)

        def times_inverse(g):
            dtype = wide(g.dtype)
            shifted = g.astype(dtype) * shift.astype(dtype)
            return (shifted * inverse.astype(dtype)).astype(g.dtype)

        finite = [jnp.isfinite(g).all() for g in jax.tree.leaves(grads)]
        found_inf = ~jnp.stack(finite).all() if finite else jnp.zeros((), bool)
        return jax.tree.map(times_inverse, grads), found_inf

    def update(self, found_inf: Any) -> GradScaler:
        """``scaler.update()``: the scaler for the next step, whether or not this one counts."""
        scale, tracker = _instep_scaler_update(
            found_inf,
            self.scale,
            self.growth_factor,
            self.backoff_factor,
            self.growth_interval,
            self.growth_tracker,
        )
        return replace(self, scale=scale, growth_tracker=tracker)

    def get_scale(self) -> Any:
        """The scale, shape ()."""
        return self.scale


# Jitted under names of their own, by which a float64 walk of parity knows what stays in
# float32: PyTorch keeps its scale so whatever the gradients are.


@jax.jit
def _instep_scaler_inverse(scale):
    """Two factors of 1 / scale, because that of 2**127 alone is flushed to zero by XLA."""
    scale = jnp.asarray(scale, jnp.float32)
    shift = jnp.where(scale > 2.0**126, jnp.float32(0.25), jnp.float32(1.0))
    return shift, 1.0 / (scale * shift)


@jax.jit
def _instep_scaler_update(found_inf, scale, growth_factor, backoff_factor, interval, tracker):
    def times(factor):
        factor = jnp.asarray(factor)
        return (scale.astype(factor.dtype) * factor).astype(jnp.float32)

    found_inf = jnp.asarray(found_inf).astype(bool)
    scale = jnp.asarray(scale, jnp.float32)
    grown = times(growth_factor)
    due = tracker + 1 == interval
    kept = jnp.where(due & jnp.isfinite(grown), grown, scale)
    counted = jnp.where(due, 0, tracker + 1)
    return (
        jnp.where(found_inf, times(backoff_factor), kept),
        jnp.where(found_inf, 0, counted).astype(jnp.int32),
    )


def _check(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise unless ``low < value < high``; what is not a number yet passes."""
    if isinstance(value, np.number) and not low < value < high:
        allowed = f"{name} > {low}" if high == math.inf else f"{name} < {high}"
        raise ValueError(f"Invalid {name}: {value}. It must satisfy {allowed}.")
