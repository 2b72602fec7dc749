"""Where random operators draw from: a key, or what PyTorch drew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class Draws:
    """A source of randomness for one run of a program.

    Args:
      key: of ``jax.random``; None if the program draws nothing.
    """

    def __init__(self, key: jax.Array | None = None):
        self._key = key

    def of_call(self, number: int, op: str) -> Draw:
        """What the random operator of this number draws from."""
        return Draw(None if self._key is None else jax.random.fold_in(self._key, number), op)


class Draw:
    """The draws of one call of an operator; each has a key of its own.

    Without a key there is nothing to draw, as in dropout that is not training.
    """

    def __init__(self, key: jax.Array | None, op: str = ""):
        self._key, self._op, self._taken = key, op, 0

    def _next(self) -> jax.Array:
        if self._key is None:
            raise ValueError(
                f"the model draws random numbers ({self._op}), and there is no key. Give rng: "
                f"init_state(..., rng=jax.random.key(0)), or lowered(..., rng=key)."
            )
        self._taken += 1
        return jax.random.fold_in(self._key, self._taken - 1)

    def bernoulli(self, p: Any, shape: Sequence[int]) -> jax.Array:
        """Booleans of this shape, true with probability ``p``, a number or an array."""
        return jax.random.bernoulli(self._next(), p, tuple(shape))

    def uniform(self, shape: Sequence[int], dtype: Any) -> jax.Array:
        """In [0, 1)."""
        return jax.random.uniform(self._next(), tuple(shape), dtype)

    def normal(self, shape: Sequence[int], dtype: Any) -> jax.Array:
        """Of mean 0 and deviation 1."""
        return jax.random.normal(self._next(), tuple(shape), dtype)

    def integers(self, low: int, high: int, shape: Sequence[int], dtype: Any) -> jax.Array:
        """In [low, high)."""
        return jax.random.randint(self._next(), tuple(shape), low, high).astype(dtype)

    def permutation(self, n: int, dtype: Any) -> jax.Array:
        """Of 0 to n - 1."""
        return jax.random.permutation(self._next(), n).astype(dtype)


class Replay(Draws):
    """What PyTorch drew, in order.

    Args:
      recorded: the result of every random operator that PyTorch ran.
    """

    def __init__(self, recorded: Sequence[Any]):
        self._recorded = iter(recorded)

    def of_call(self, number: int, op: str) -> Draw:
        del number
        return _Replayed(self._recorded, op)


class _Replayed(Draw):
    def __init__(self, recorded: Iterator[Any], op: str):
        self._recorded, self._op = recorded, op

    def _replay(self, shape: Sequence[int], dtype: Any) -> jax.Array:
        drawn = next(self._recorded, None)
        if drawn is None or np.shape(drawn) != tuple(shape):
            was = "nothing more" if drawn is None else f"shape {np.shape(drawn)}"
            raise ValueError(
                f"{self._op} draws shape {tuple(shape)} here; PyTorch drew {was} there."
            )
        return jnp.asarray(drawn).astype(dtype)

    def bernoulli(self, p, shape):
        return self._replay(shape, bool)

    def uniform(self, shape, dtype):
        return self._replay(shape, dtype)

    def normal(self, shape, dtype):
        return self._replay(shape, dtype)

    def integers(self, low, high, shape, dtype):
        return self._replay(shape, dtype)

    def permutation(self, n, dtype):
        return self._replay((n,), dtype)
