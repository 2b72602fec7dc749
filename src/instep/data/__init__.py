"""Batches whose position is known, so that a training that stops goes on where it was."""

from ._grain import from_grain as from_grain
from ._loader import from_loader as from_loader
from ._pad import pad as pad
from ._prefetch import prefetch as prefetch
from ._stream import (
    BatchIterator as BatchIterator,
    BatchStream as BatchStream,
    Epochs as Epochs,
    mapped as mapped,
    stream as stream,
    windows as windows,
)
