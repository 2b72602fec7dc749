"""torch.optim as pure functions: each an ``optax.GradientTransformation``."""

from ._adam import adam as adam, adamw as adamw
from ._hyperparams import (
    Hyperparams as Hyperparams,
    hyperparams as hyperparams,
    set_hyperparams as set_hyperparams,
)
from ._lbfgs import LBFGSState as LBFGSState, lbfgs as lbfgs
from ._per_parameter import OptimizerState as OptimizerState
from ._sgd import sgd as sgd
