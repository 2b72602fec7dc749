"""The rows of the optimizers."""

from __future__ import annotations

from ._problem import ABSENT, MATRICES, TABLE
from ._row import Dialect
from ._trained import iterated, trained


SGD = (
    Dialect(
        "torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)",
        "instep.optim.sgd(0.1, 0.9, weight_decay=0.01, nesterov=True)",
        "optax.chain(optax.add_decayed_weights(0.01), "
        "optax.sgd(0.1, momentum=0.9, nesterov=True))",
        "The same. `optax.sgd` has no weight decay: it is put in front, where PyTorch adds it.",
        trained(),
    ),
    Dialect(
        "torch.optim.SGD(params, lr=0.01, weight_decay=0.1, maximize=True)",
        "instep.optim.sgd(0.01, weight_decay=0.1, maximize=True)",
        "optax.chain(optax.scale(-1), optax.add_decayed_weights(0.1), optax.sgd(0.01))",
        "The same. PyTorch negates the gradient before it adds the weight decay, so that the "
        "decay still shrinks.",
        trained(),
    ),
    Dialect(
        "torch.optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.5)",
        "instep.optim.sgd(0.1, 0.9, dampening=0.5)",
        "optax.sgd(0.1, momentum=0.9)",
        "optax has no dampening.",
        trained(),
    ),
    Dialect(
        "torch.optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.5)",
        "instep.optim.sgd(0.1, 0.9, dampening=0.5)",
        "optax.chain(optax.scale(0.5), optax.trace(0.9), optax.scale(-0.1))",
        "PyTorch's first momentum buffer is the gradient itself, not dampened.",
        trained(),
    ),
)

ADAM = (
    Dialect(
        "torch.optim.Adam(params, lr=0.01, weight_decay=0.01)",
        "instep.optim.adam(0.01, weight_decay=0.01)",
        "optax.chain(optax.add_decayed_weights(0.01), optax.adam(0.01))",
        "The same. `optax.adam` has no weight decay; PyTorch's goes through the moments.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adam(params, lr=0.01, weight_decay=0.01)",
        "instep.optim.adam(0.01, weight_decay=0.01)",
        "optax.adamw(0.01, weight_decay=0.01)",
        "`optax.adamw` is AdamW: its weight decay goes past the moments.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adam(params, lr=0.1, amsgrad=True)",
        "instep.optim.adam(0.1, amsgrad=True)",
        "optax.amsgrad(0.1)",
        "PyTorch keeps the maximum of the raw second moment and corrects its bias; optax "
        "keeps the maximum of the corrected one.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adam(params, lr=0.1, amsgrad=True)",
        "instep.optim.adam(0.1, amsgrad=True)",
        "optax.amsgrad(0.1, bias_correction_nu=False)",
        "The maximum of the raw one, whose bias then is not corrected at all.",
        trained(),
    ),
    Dialect(
        "torch.optim.AdamW(params)",
        "instep.optim.adamw()",
        "optax.adamw(1e-3)",
        "The default weight decay is 1e-2 in PyTorch and 1e-4 in optax.",
        trained(),
    ),
    Dialect(
        "torch.optim.AdamW(params)",
        "instep.optim.adamw()",
        "optax.adamw(1e-3, weight_decay=1e-2)",
        "The same.",
        trained(),
    ),
    Dialect(
        "torch.optim.AdamW(params, amsgrad=True, lr=0.1)",
        "instep.optim.adamw(0.1, amsgrad=True)",
        "optax.chain(optax.scale_by_amsgrad(), optax.add_decayed_weights(1e-2), "
        "optax.scale_by_learning_rate(0.1))",
        "As for Adam: the maximum of the corrected second moment.",
        trained(),
    ),
    Dialect(
        "torch.optim.AdamW(params, lr=0.01); lr_scheduler.StepLR(opt, 10, 0.5)",
        "instep.optim.adamw(instep.schedules.step_lr(0.01, 10, 0.5))",
        "optax.adamw(lambda t: 0.01 * 0.5 ** (t // 10), weight_decay=1e-2)",
        "The same: weight decay is multiplied by the scheduled rate in both.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adamax(params, weight_decay=0.01)",
        "instep.optim.adamax(weight_decay=0.01)",
        "optax.chain(optax.add_decayed_weights(0.01), optax.adamax(2e-3))",
        "The same. `optax.adamax` has no weight decay.",
        trained(),
    ),
    Dialect(
        "torch.optim.NAdam(params)",
        "instep.optim.nadam()",
        "optax.nadam(2e-3)",
        "PyTorch's momentum grows with the step, 0.9 (1 - 0.96^(0.004 t) / 2), and its bias "
        "correction is their product; optax takes 0.9 throughout.",
        trained(),
    ),
    Dialect(
        "torch.optim.RAdam(params)",
        "instep.optim.radam()",
        "optax.radam(1e-3)",
        "PyTorch adds epsilon before the bias correction, optax after it.",
        trained(),
    ),
    Dialect(
        "torch.optim.RAdam(params, weight_decay=0.01, decoupled_weight_decay=True)",
        "instep.optim.radam(weight_decay=0.01, decoupled_weight_decay=True)",
        "optax.chain(optax.scale_by_radam(), optax.add_decayed_weights(0.01), "
        "optax.scale_by_learning_rate(1e-3))",
        "`optax.radam` has no weight decay; in this chain only epsilon is left.",
        trained(),
    ),
    Dialect(
        "torch.optim.SparseAdam(params)",
        "instep.optim.sparse_adam()",
        "optax.adam(1e-3)",
        "optax has none. PyTorch leaves the rows that no lookup touched alone, moments and "
        "all; a dense Adam goes on moving them. Epsilon stands before the bias correction.",
        trained(TABLE),
    ),
)

OTHERS = (
    Dialect(
        "torch.optim.Adagrad(params)",
        "instep.optim.adagrad()",
        "optax.adagrad(1e-2)",
        "The sum of squares starts at 0 in PyTorch and at 0.1 in optax.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adagrad(params)",
        "instep.optim.adagrad()",
        "optax.adagrad(1e-2, initial_accumulator_value=0.0, eps=1e-10)",
        "PyTorch adds epsilon to the root, optax under it.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adagrad(params, lr=0.1, lr_decay=0.1)",
        "instep.optim.adagrad(0.1, lr_decay=0.1)",
        "optax.adagrad(lambda t: 0.1 / (1 + 0.1 * t), 0.0, 1e-10)",
        "`lr_decay` is a schedule in optax; epsilon is left.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adadelta(params, weight_decay=0.01)",
        "instep.optim.adadelta(weight_decay=0.01)",
        "optax.adadelta(1.0, weight_decay=0.01)",
        "The same.",
        trained(),
    ),
    Dialect(
        "torch.optim.RMSprop(params)",
        "instep.optim.rmsprop()",
        "optax.rmsprop(1e-2)",
        "The decay is 0.99 in PyTorch and 0.9 in optax, which also has epsilon under the root.",
        trained(),
    ),
    Dialect(
        "torch.optim.RMSprop(params)",
        "instep.optim.rmsprop()",
        "optax.rmsprop(1e-2, decay=0.99)",
        "Epsilon under the root alone.",
        trained(),
    ),
    Dialect(
        "torch.optim.RMSprop(params, momentum=0.9, centered=True)",
        "instep.optim.rmsprop(momentum=0.9, centered=True)",
        "optax.rmsprop(1e-2, decay=0.99, eps_in_sqrt=False, momentum=0.9, centered=True)",
        "The same.",
        trained(),
    ),
    Dialect(
        "torch.optim.RMSprop(params, momentum=0.9); lr_scheduler.StepLR(opt, 10, 0.5)",
        "instep.optim.rmsprop(instep.schedules.step_lr(1e-2, 10, 0.5), momentum=0.9)",
        "optax.rmsprop(lambda t: 1e-2 * 0.5 ** (t // 10), decay=0.99, eps_in_sqrt=False, "
        "momentum=0.9)",
        "optax multiplies by the rate before the momentum, which so remembers old rates.",
        trained(),
    ),
    Dialect(
        "torch.optim.RMSprop(params, momentum=0.9); lr_scheduler.StepLR(opt, 10, 0.5)",
        "instep.optim.rmsprop(instep.schedules.step_lr(1e-2, 10, 0.5), momentum=0.9)",
        "optax.chain(optax.scale_by_rms(0.99, eps_in_sqrt=False), optax.trace(0.9), "
        "optax.scale_by_learning_rate(lambda t: 1e-2 * 0.5 ** (t // 10)))",
        "The same.",
        trained(),
    ),
    Dialect(
        "torch.optim.Rprop(params)",
        "instep.optim.rprop()",
        "optax.rprop(1e-2)",
        "optax returns the update of the step before, and zeroes it where the sign has "
        "changed since.",
        trained(),
    ),
    Dialect(
        "torch.optim.ASGD(params, lr=0.1, lambd=0.1)",
        "instep.optim.asgd(0.1, lambd=0.1)",
        "optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1))",
        "optax has none. PyTorch's rate decays as 1 / (1 + lambd lr t)^0.75, one step late.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adafactor(params)",
        "instep.optim.adafactor()",
        "optax.adafactor(1e-2)",
        "optax does not take the smaller of the rate and 1 / sqrt(t), factors only axes of "
        "128 or more, and adds 1e-30 to the squared gradient.",
        trained(),
    ),
    Dialect(
        "torch.optim.Adafactor(params, weight_decay=0.1)",
        "instep.optim.adafactor(weight_decay=0.1)",
        "optax.chain(optax.scale_by_factored_rms(min_dim_size_to_factor=1, epsilon=0.0), "
        "optax.clip_by_block_rms(1.0), "
        "optax.scale_by_schedule(lambda t: jnp.minimum(1e-2, (1.0 + t) ** -0.5)), "
        "optax.scale_by_param_block_rms(1e-3), optax.add_decayed_weights(0.1 * 1e-2), "
        "optax.scale(-1))",
        "The parts put together by hand. optax computes t^-0.8 in float32.",
        trained(),
    ),
    Dialect(
        "torch.optim.Muon(params)",
        "instep.optim.muon()",
        "optax.contrib.muon(1e-3)",
        "The default weight decay is 0.1 in PyTorch and 0 in optax, and the shape factor "
        "of optax is that of a kernel stored as (in, out).",
        trained(MATRICES),
    ),
    Dialect(
        "torch.optim.Muon(params)",
        "instep.optim.muon()",
        "optax.contrib.muon(1e-3, eps=1e-7, weight_decay=0.1, muon_weight_dimension_numbers="
        "optax.contrib.MuonDimensionNumbers(1, 0))",
        "optax corrects the bias of the Nesterov momentum and runs the Newton-Schulz "
        "iteration in the dtype of the parameter, PyTorch in bfloat16.",
        trained(MATRICES),
    ),
    Dialect(
        "torch.optim.LBFGS(params, lr=0.1, max_iter=5)",
        "instep.optim.lbfgs(0.1, max_iter=5)",
        "optax.lbfgs(0.1, memory_size=100, linesearch=None)",
        "One call of PyTorch's is several iterations, of optax's one. PyTorch scales the first "
        "step by min(1, 1 / n) with the 1-norm of the gradient, optax with the 2-norm.",
        iterated(calls=3, iterations=5),
    ),
    Dialect(
        "torch.optim.LBFGS(params, max_iter=4, line_search_fn='strong_wolfe')",
        "instep.optim.lbfgs(max_iter=4, line_search_fn='strong_wolfe')",
        "optax.lbfgs(memory_size=100)",
        "Another line search: cubic interpolation in PyTorch, zoom in optax.",
        iterated(calls=2, iterations=4),
    ),
    Dialect(
        "torch.optim.AdamW(params, lr=0.01)  # p.grad is None from step 25",
        "instep.optim.adamw(0.01)  # the gradient is None from step 25",
        "optax.adamw(0.01, weight_decay=1e-2)  # the gradient is 0 from step 25",
        "PyTorch passes over a parameter without a gradient: no decay, no momentum, no step. "
        "optax cannot from one step to the next; with zeros it decays and coasts on.",
        trained(ABSENT),
    ),
    Dialect(
        "torch.optim.AdamW([{'params': params[::2]}, {'params': params[1::2], "
        "'weight_decay': 0.0}], lr=0.01)",
        "instep.optim.param_groups([('w', instep.optim.adamw(0.01)), "
        "('b', instep.optim.adamw(0.01, weight_decay=0.0))])",
        "optax.adamw(0.01, weight_decay=1e-2, "
        "mask={'w1': True, 'b1': False, 'w2': True, 'b2': False})",
        "The same: a mask, or `optax.partition` where more than the decay differs.",
        trained(),
    ),
)
