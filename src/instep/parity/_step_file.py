"""One recorded step of PyTorch, as a safetensors file.

Every array is kept once, whatever the number of walks that share it, and a float64 array that
float32 holds exactly is kept in float32. The metadata of the file say which array is what::

    {"walks": {"float64": {"right": [["loss", "loss", "0", "float64", 0.0, "float64"], ...],
                           "standing": [...], "batches": [...]},
               "float16 re-synchronised": {"raised": "the PyTorch half raised ..."}, ...}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._errors import ParityError
from ._judge import Floor
from ._leaf import Leaf, Observation
from ._spill import LARGE, spilled


DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "BOOL": "bool"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "C64": "complex64"},
}

Reference = tuple[str, str]  # an array in the file, and the dtype that it had
Keep = Callable[[np.ndarray], Reference]
Get = Callable[[Reference], np.ndarray]


@dataclass(frozen=True)
class Recorded:
    """One step of one walk on PyTorch's side.

    Args:
      right: what JAX is judged by; of step 0: what stands before the first step.
      floors: how far rounding alone takes each leaf of it.
      standing: the loss, and what the JAX side is set to before its next step.
      batches: the JAX microbatches of the step.
      raised: why PyTorch has not taken the step; nothing else is there then.
    """

    right: Observation = field(default_factory=dict)
    floors: Mapping[Leaf, Floor] = field(default_factory=dict)
    standing: Observation = field(default_factory=dict)
    batches: list[Any] = field(default_factory=list)
    raised: str | None = None


Walks = dict[str, Recorded]  # by the name of the plan


def write_step(path: Path, walks: Walks) -> str:
    """Write the file of one step, one array after the other; its SHA-256.

    Raises:
      ParityError: a microbatch holds what cannot be kept.
    """
    arrays: dict[str, np.ndarray] = {}
    known: dict[bytes, str] = {}

    def keep(array: np.ndarray) -> Reference:
        kept = _narrow(np.asarray(array, order="C"))
        digest = hashlib.blake2b(f"{kept.dtype}{kept.shape}".encode())
        digest.update(_bytes_of(kept))
        name = known.setdefault(digest.digest(), str(len(known)))
        arrays[name] = kept
        return name, array.dtype.name

    index = {name: _walk_to_json(walk, keep) for name, walk in walks.items()}
    header = _header(arrays, {"index": json.dumps({"walks": index})})
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (header, *map(_bytes_of, arrays.values())):
            file.write(part)
            digest.update(part)
    return digest.hexdigest()


def read_step_file(path: Path) -> Walks:
    """What ``write_step`` was given; large arrays are mapped from the file."""
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    index = json.loads(header.pop("__metadata__")["index"])["walks"]

    def get(reference: Reference) -> np.ndarray:
        name, dtype = reference
        first, last = (start + offset for offset in header[name]["data_offsets"])
        array = data[first:last].view(jnp.dtype(DTYPES[header[name]["dtype"]]))
        array = array.reshape(header[name]["shape"])
        if array.nbytes >= LARGE and array.dtype == jnp.dtype(dtype):
            return array
        return spilled(np.array(array, jnp.dtype(dtype)))  # owns its memory

    return {name: _walk_from_json(kept, get) for name, kept in index.items()}


def _header(arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """Of a safetensors file: its length in 8 bytes, then JSON, padded to whole words."""
    names = {name: short for short, name in DTYPES.items()}
    table: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in arrays.items():
        place = [end, end := end + array.nbytes]
        shape = list(array.shape)
        table[name] = {
            "dtype": names[array.dtype.name],
            "shape": shape,
            "data_offsets": place,
        }
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _walk_to_json(walk: Recorded, keep: Keep) -> dict[str, Any]:
    if walk.raised is not None:
        return {"raised": walk.raised}

    def rows(seen: Observation, floors: Mapping[Leaf, Floor]) -> list[list[Any]]:
        return [
            [*leaf, *keep(x), *_floor_to_json(floors.get(leaf))] for leaf, x in seen.items()
        ]

    return {
        "right": rows(walk.right, walk.floors),
        "standing": rows(walk.standing, {}),
        "batches": [_batch_to_json(batch, keep) for batch in walk.batches],
    }


def _walk_from_json(kept: dict[str, Any], get: Get) -> Recorded:
    if "raised" in kept:
        return Recorded(raised=kept["raised"])
    right, standing = (
        {Leaf(kind, name): get((array, dtype)) for kind, name, array, dtype, *_ in kept[part]}
        for part in ("right", "standing")
    )
    floors = {
        Leaf(kind, name): _floor_from_json(*floor)
        for kind, name, _, _, *floor in kept["right"]
        if floor
    }
    batches = [_batch_from_json(batch, get) for batch in kept["batches"]]
    return Recorded(right, floors, standing, batches)


def _floor_to_json(floor: Floor | None) -> list[Any]:
    if floor is None:
        return []
    error = None if floor.error == np.inf else floor.error
    return [error, None if floor.dtype is None else floor.dtype.name]


def _floor_from_json(error: float | None, dtype: str | None) -> Floor:
    return Floor(
        np.inf if error is None else error, None if dtype is None else jnp.dtype(dtype)
    )


def _batch_to_json(tree: Any, keep: Keep) -> dict[str, Any]:
    """Containers and plain values; arrays are kept apart."""
    if tree is None or isinstance(tree, bool | int | float | str):
        return {"value": tree}
    if hasattr(tree, "__array__"):
        return {"array": keep(np.asarray(tree))}
    if type(tree) in (tuple, list):
        return {type(tree).__name__: [_batch_to_json(x, keep) for x in tree]}
    if isinstance(tree, Mapping) and all(isinstance(key, str | int) for key in tree):
        return {"dict": [[key, _batch_to_json(x, keep)] for key, x in tree.items()]}
    raise ParityError(
        f"a microbatch holds a {type(tree).__name__}, which a recording cannot keep. Give "
        f"record(..., batch=fn): fn makes of a microbatch of the PyTorch loop what the JAX "
        f"half takes, tensors in tuples, lists and dicts."
    )


def _batch_from_json(kept: dict[str, Any], get: Get) -> Any:
    ((kind, value),) = kept.items()
    if kind == "array":
        return get(value)
    if kind == "dict":
        return {key: _batch_from_json(x, get) for key, x in value}
    if kind == "value":
        return value
    parts = [_batch_from_json(x, get) for x in value]
    return tuple(parts) if kind == "tuple" else parts


def _narrow(array: np.ndarray) -> np.ndarray:
    """A float64 array in float32, if every bit survives."""
    if array.dtype != np.float64:
        return array
    with np.errstate(all="ignore"):
        narrow = array.astype(np.float32)
    same = np.array_equal(array.view(np.int64), narrow.astype(np.float64).view(np.int64))
    return spilled(narrow) if same else array
