"""torch.optim.lr_scheduler as pure functions of the step count."""

from ._chained import chained_scheduler as chained_scheduler
from ._cosine import cosine_annealing_lr as cosine_annealing_lr
from ._cyclic import cyclic_lr as cyclic_lr
from ._exponential import exponential_lr as exponential_lr
from ._lambda import lambda_lr as lambda_lr, multiplicative_lr as multiplicative_lr
from ._linear import constant_lr as constant_lr, linear_lr as linear_lr
from ._one_cycle import one_cycle_lr as one_cycle_lr
from ._plateau import (
    Plateau as Plateau,
    PlateauState as PlateauState,
    reduce_lr_on_plateau as reduce_lr_on_plateau,
)
from ._polynomial import polynomial_lr as polynomial_lr
from ._schedule import (
    Schedule as Schedule,
    from_table as from_table,
    per_epoch as per_epoch,
)
from ._sequential import sequential_lr as sequential_lr
from ._step import multi_step_lr as multi_step_lr, step_lr as step_lr
from ._swa import swa_lr as swa_lr
from ._warm_restarts import cosine_annealing_warm_restarts as cosine_annealing_warm_restarts
