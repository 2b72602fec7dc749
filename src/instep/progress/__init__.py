"""A run to watch: what ``instep train`` puts around ``instep.train``."""

from ._compile import (
    Compiled as Compiled,
    CompiledStep as CompiledStep,
    OutOfMemoryError as OutOfMemoryError,
)
from ._display import Live as Live, Plain as Plain, Quiet as Quiet
from ._flops import flops as flops
from ._metrics_file import MetricsFile as MetricsFile
from ._peaks import PEAKS as PEAKS, seconds_at_peak as seconds_at_peak
from ._profile import Profile as Profile
from ._record import Record as Record
from ._step import evaluated as evaluated, seen_state as seen_state, seen_step as seen_step
from ._tensorboard import TensorBoard as TensorBoard
from ._watch import Watch as Watch
