"""The leaves of a state as orbax takes them, and what it takes to make them anew."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import CheckpointError
from .._put import put
from .._state import PyTree
from .._trees import named_leaves


Spec = str  # of one leaf: "float32[3, 4]", and " weak" after it
WEAK = " weak"


def arrays_of(state: PyTree) -> dict[str, Any]:
    """The leaves that orbax can write, by name: keys as their data; none without elements.

    Raises:
      TypeError: a leaf is no array.
    """
    leaves = named_leaves(state)
    other = [n for n, x in leaves.items() if not isinstance(x, jax.Array | np.ndarray)]
    if other:
        raise TypeError(
            f"leaves {other} of the state are no arrays; instep.init_state makes them arrays."
        )
    arrays = {n: jax.random.key_data(x) if _is_key(x) else x for n, x in leaves.items()}
    return {name: x for name, x in arrays.items() if x.size}


def specs_of(state: PyTree) -> dict[str, Spec]:
    """What the leaves are, by name; JSON."""
    return {
        name: f"{x.dtype}{list(np.shape(x))}" + WEAK * bool(getattr(x, "weak_type", False))
        for name, x in named_leaves(state).items()
    }


def check_specs(path: Any, saved: dict[str, Spec], like: PyTree) -> None:
    """Raise CheckpointError unless a checkpoint has the leaves of ``like``."""
    here = {n: spec.removesuffix(WEAK) for n, spec in specs_of(like).items()}
    there = {n: spec.removesuffix(WEAK) for n, spec in saved.items()}
    lines = [
        f"{n}: {there.get(n, 'nothing')} there, {here.get(n, 'nothing')} here"
        for n in {**there, **here}
        if there.get(n) != here.get(n)
    ]
    if lines:
        more = f"\n  and {len(lines) - 12} more" if len(lines) > 12 else ""
        raise CheckpointError(
            f"{path} is a checkpoint of another training: its leaves are not those of the "
            f"state it should become. Describe the loop as it was saved, or give another "
            f"folder.\n  " + "\n  ".join(lines[:12]) + more
        )


def targets_of(like: PyTree) -> dict[str, Any]:
    """What orbax shall read, by name: shapes, dtypes and shardings."""
    return {name: _target(x) for name, x in named_leaves(like).items() if np.prod(x.shape)}


def state_of(arrays: dict[str, Any], saved: dict[str, Spec], like: PyTree) -> PyTree:
    """A tree like ``like`` that holds ``arrays``, which were read for ``targets_of(like)``."""
    leaves = [
        _restored(arrays.get(name), saved[name], x) for name, x in named_leaves(like).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _target(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x
    if _is_key(x):  # an array of keys has another shape than its data, and so another sharding
        data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(x.shape, x.dtype))
        return np.broadcast_to(np.zeros((), data.dtype), data.shape)
    sharding = x.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _restored(array: Any, spec: Spec, like: Any) -> Any:
    if isinstance(like, np.ndarray):
        return np.empty(like.shape, like.dtype) if array is None else array
    if _is_key(like):
        data = jnp.zeros(_target(like).shape, jnp.uint32) if array is None else array
        keys = jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(like))
        return put([keys], [like.sharding])[0]
    if array is None:
        array = jax.device_put(np.zeros(like.shape, like.dtype), like.sharding)
    return _weak(array) if spec.endswith(WEAK) else array


def _weak(array: jax.Array) -> jax.Array:
    """``array``, weakly typed as a Python number is; as it was when it was saved."""
    number = {"b": False, "i": 0, "f": 0.0, "c": 0j}.get(array.dtype.kind, 0)
    weak = jnp.full(array.shape, number)
    if weak.dtype != array.dtype:
        return array
    return jax.device_put(weak.at[...].set(array), array.sharding)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
