"""Walk a PyTorch loop and a JAX loop side by side, and say whether they are in step."""

from .._compat import require as _require


_require("torch", "instep.parity")
_require("rich", "instep.parity")

from ._judge import Measurement as Measurement, Status as Status  # noqa: E402
from ._leaf import Leaf as Leaf  # noqa: E402
from ._pair import Pair as Pair  # noqa: E402
from ._report import (  # noqa: E402
    Divergence as Divergence,
    Report as Report,
    Row as Row,
    Verdict as Verdict,
)
from ._run import ParityError as ParityError, run as run  # noqa: E402
