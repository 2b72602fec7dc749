"""PyTorch's exported operators as pure JAX functions."""

from ..._compat import require as _require


_require("torch", "instep.lower")

from ._lowered import Lowered as Lowered, lower as lower
from ._table import register as register
