"""When the user's own code raises in a walk: which half, at which step, on which line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._errors import ParityError, where


@contextmanager
def blame(half: str, n: int | None = None) -> Iterator[None]:
    """Raise a ``ParityError`` that names ``half`` and step ``n``."""
    try:
        yield
    except ParityError:
        raise
    except Exception as error:
        at = f" at step {n}" if n else ""
        raise ParityError(f"{half} raised{at}: {where(error)}{_remedy(error)}") from error


def _remedy(error: Exception) -> str:
    text = str(error)
    if isinstance(error, IndexError) and "out of bounds" in text:
        return (
            " Labels are class indices from 0 to the number of classes - 1, or "
            "ignore_index; look at the batch of this step."
        )
    if isinstance(error, TypeError) and "carry" in text and "float64" in text:
        return (
            " The walk is in float64: make what a scan starts from in the dtype of the weights "
            "(nnx.RNN: initial_carry=...)."
        )
    if isinstance(error, RuntimeError) and "Float" in text and "Double" in text:
        return (
            " The walk is in float64: loss_fn must use the model it is given, make tensors in "
            "the dtype of its inputs, and keep weights of a criterion inside the model."
        )
    return ""
