"""Training states on disk, by orbax: written in the background, proved when they are read."""

from .._errors import CheckpointError as CheckpointError
from ._checkpointer import Checkpointer as Checkpointer, CheckpointWarning as CheckpointWarning
