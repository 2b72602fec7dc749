"""Walk a PyTorch loop and a JAX loop side by side, and say whether they are in step."""

from .._compat import require as _require


_require("torch", "instep.parity")
_require("rich", "instep.parity")

from .._errors import ParityError as ParityError
from ._assert import assert_in_step as assert_in_step
from ._leaf import Leaf as Leaf
from ._pair import Pair as Pair
from ._records import (
    Divergence as Divergence,
    Measurement as Measurement,
    Row as Row,
    Status as Status,
    Verdict as Verdict,
    Walk as Walk,
)
from ._report import Report as Report
from ._run import run as run
