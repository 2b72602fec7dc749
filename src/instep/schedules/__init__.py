"""torch.optim.lr_scheduler as pure functions of the step count."""

from ._cosine import cosine_annealing_lr as cosine_annealing_lr
