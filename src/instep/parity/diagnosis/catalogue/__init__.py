"""The mistakes that people make, a row each, by the part of the step in which they are made."""

from . import (
    _accumulate as _accumulate,
    _arithmetic as _arithmetic,
    _attention as _attention,
    _clip as _clip,
    _decay as _decay,
    _embedding as _embedding,
    _images as _images,
    _layers as _layers,
    _lbfgs as _lbfgs,
    _loss as _loss,
    _moments as _moments,
    _recurrent as _recurrent,
    _scaler as _scaler,
    _schedule as _schedule,
    _statistics as _statistics,
    _update as _update,
)
