"""Walk a PyTorch loop and a JAX loop side by side, and say whether they are in step."""

from .._compat import require as _require


_require("torch", "instep.parity")
_require("rich", "instep.parity")

from .._errors import ParityError as ParityError
from ._judge import Measurement as Measurement, Status as Status
from ._leaf import Leaf as Leaf
from ._pair import Pair as Pair
from ._report import (
    Divergence as Divergence,
    Report as Report,
    Row as Row,
    Verdict as Verdict,
)
from ._run import run as run
