"""The dtype of a leaf, of a sum, and of several arrays together."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def dtype_of(leaf: Any) -> np.dtype:
    """The dtype of ``leaf`` as a JAX array: NumPy float64 is float32 while x64 is off."""
    return jax.dtypes.canonicalize_dtype(jnp.result_type(leaf))


def wide(dtype: Any) -> np.dtype:
    """``dtype`` if it has 32 bits or more, else float32; for sums and logarithms."""
    return jnp.dtype(dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32)


def promoted(**arrays: Any) -> tuple[np.dtype, list[jax.Array]]:
    """``promoted_dtype(**arrays)``, and the arrays in its ``wide`` dtype."""
    dtype = promoted_dtype(**arrays)
    return dtype, [jnp.asarray(a, wide(dtype)) for a in arrays.values()]


def promoted_dtype(**arrays: Any) -> np.dtype:
    """The floating dtype that ``arrays`` promote to, strict promotion or not.

    Raises:
      TypeError: none of them is floating.
    """
    with jax.numpy_dtype_promotion("standard"):
        dtype = functools.reduce(jnp.promote_types, map(dtype_of, arrays.values()))
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{' and '.join(arrays)} are {dtype}; cast one of them to a float.")
    return dtype
