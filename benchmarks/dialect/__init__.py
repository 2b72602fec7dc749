"""The rows of docs/dialects.md, and the loops that measure them."""

import os


os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before PyTorch is imported

from ._loops import RATES as RATES
from ._row import ROUNDING as ROUNDING, Dialect as Dialect, Difference as Difference
from ._trained import STEPS as STEPS
