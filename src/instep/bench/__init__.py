"""Time a training step beside others that do the same work: ``bench.run("digits-mlp")``."""

from .._compat import require as _require


_require("rich", "instep.bench")

from ._contender import CONTENDERS as CONTENDERS, BenchError as BenchError
from ._equal import UnequalWorkError as UnequalWorkError
from ._report import BenchReport as BenchReport, Measured as Measured, Memory as Memory
from ._run import run as run
from ._settings import Settings as Settings
from ._statistics import (
    Band as Band,
    Ratio as Ratio,
    band as band,
    paired_ratio as paired_ratio,
)
