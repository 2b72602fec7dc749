"""The state before the first step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from ._dtypes import dtype_of
from ._scaler import GradScaler
from ._state import PyTree, TrainState
from ._trees import check_like, check_params


def init_state(
    params: PyTree,
    tx: optax.GradientTransformation,
    buffers: PyTree = None,
    rng: jax.Array | None = None,
    scaler: GradScaler | None = None,
    opt_state: PyTree = None,
) -> TrainState:
    """The state before the first step.

    Every leaf is copied and no two leaves share memory, so the state may be donated while
    the caller keeps ``params`` and ``buffers``. PyTorch: what ``model.state_dict()`` and
    ``optimizer.state_dict()`` hold when training starts.

    Args:
      params: pytree of floating arrays.
      tx: an ``optax.GradientTransformation``.
      buffers: pytree of arrays that the forward pass rewrites.
      rng: root key, ``jax.random.key(seed)``, shape (), if the model draws.
      scaler: with one the train step scales the loss and skips steps that overflow.
      opt_state: pytree, where ``tx`` stands already, for example from
        ``bridge.optimizer_from_torch``; None: ``tx.init(params)``. It is cast to the dtypes
        that ``tx.init`` makes.

    Raises:
      ValueError: ``params`` has no leaves, or ``opt_state`` is not a state of ``tx``.
      TypeError: a leaf of ``params`` is not real floating.
    """
    check_params(params)
    params, buffers = _copy(params), _copy(buffers)
    fresh = tx.init(params)
    if opt_state is not None:
        check_like("opt_state", opt_state, "tx.init(params)", fresh)
        fresh = jax.tree.map(lambda new, old: jnp.asarray(old, new.dtype), fresh, opt_state)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        buffers=buffers,
        opt_state=_copy(fresh),
        rng=_copy(rng),
        scaler=_copy(scaler),
    )


def _copy(tree: PyTree) -> PyTree:
    """Fresh, strongly typed device arrays: a weakly typed leaf would be traced twice."""

    def copy(x):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jnp.array(x, copy=True)
        return jnp.array(x, dtype=dtype_of(x), copy=True)

    return jax.tree.map(copy, tree)
