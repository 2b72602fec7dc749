"""torch.optim as pure functions: each an ``optax.GradientTransformation``."""

from ._adadelta import adadelta as adadelta
from ._adafactor import adafactor as adafactor
from ._adagrad import adagrad as adagrad
from ._adam import adam as adam, adamw as adamw
from ._adamax import adamax as adamax
from ._asgd import asgd as asgd
from ._hyperparams import (
    Hyperparams as Hyperparams,
    hyperparams as hyperparams,
    set_hyperparams as set_hyperparams,
)
from ._lbfgs import lbfgs as lbfgs
from ._lbfgs_memory import LBFGSState as LBFGSState
from ._muon import muon as muon
from ._nadam import nadam as nadam
from ._on_plateau import OnPlateauState as OnPlateauState, on_plateau as on_plateau
from ._param_groups import (
    ParamGroupsState as ParamGroupsState,
    add_param_group as add_param_group,
    param_groups as param_groups,
)
from ._per_parameter import OptimizerState as OptimizerState
from ._radam import radam as radam
from ._rmsprop import rmsprop as rmsprop
from ._rprop import rprop as rprop
from ._sgd import sgd as sgd
from ._sparse_adam import sparse_adam as sparse_adam
from ._swa import (
    AveragedModel as AveragedModel,
    averaged_model as averaged_model,
    ema_avg_fn as ema_avg_fn,
    swa_avg_fn as swa_avg_fn,
    update_bn as update_bn,
    update_parameters as update_parameters,
)
