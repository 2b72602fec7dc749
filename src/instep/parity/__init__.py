"""Walk a PyTorch loop and a JAX loop side by side, and say whether they are in step.

What reads a report or a recording needs no torch; what runs a PyTorch loop does.
"""

import typing as _typing
from importlib import import_module as _import_module

from .._compat import require as _require


_require("rich", "instep.parity")

from .._errors import ParityError as ParityError
from ._leaf import Leaf as Leaf
from ._records import (
    Cause as Cause,
    Check as Check,
    Divergence as Divergence,
    Explanation as Explanation,
    Measurement as Measurement,
    Place as Place,
    Row as Row,
    Status as Status,
    Unexplained as Unexplained,
    Verdict as Verdict,
    Walk as Walk,
)
from ._report import Report as Report


if _typing.TYPE_CHECKING:
    from ._assert import assert_in_step as assert_in_step
    from ._compare import compare as compare
    from ._pair import Pair as Pair
    from ._record import record as record
    from ._run import run as run

# Imported when it is asked for: its module, and the package that it needs.
_LAZY = {
    "Pair": ("._pair", "torch"),
    "assert_in_step": ("._assert", "torch"),
    "compare": ("._compare", "rich"),
    "record": ("._record", "torch"),
    "run": ("._run", "torch"),
}


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'instep.parity' has no attribute {name!r}")
    module, package = _LAZY[name]
    _require(package, f"instep.parity.{name}")
    return getattr(_import_module(module, __name__), name)


def __dir__():
    return sorted(name for name in {*globals(), *_LAZY} if not name.startswith("_"))
