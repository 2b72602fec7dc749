"""The rows of the schedules."""

from __future__ import annotations

from ._loops import RATES, on_plateau, rates
from ._row import Dialect


FOREVER = 2 * RATES

SCHEDULES = (
    Dialect(
        "lr_scheduler.LambdaLR(opt, lambda t: 1 / (1 + t))",
        "instep.schedules.lambda_lr(0.1, lambda t: 1 / (1 + t), total_steps=100)",
        "lambda t: 0.1 / (1 + t)",
        "The same: a schedule of optax is a function of the count.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.LambdaLR(opt, lambda t: 1 / (1 + t))",
        "instep.schedules.lambda_lr(0.1, lambda t: 1 / (1 + t), total_steps=100)",
        "lambda t: 0.1 * (1 / (1 + t))",
        "The same, but a quotient of int32 is float32, also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.MultiplicativeLR(opt, lambda t: 0.95)",
        "instep.schedules.multiplicative_lr(0.1, lambda t: 0.95, total_steps=100)",
        "optax.exponential_decay(0.1, 1, 0.95)",
        "The same for a constant. optax divides the int32 count in float32, also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.MultiplicativeLR(opt, lambda t: 1 / (1 + 0.001 * t))",
        "instep.schedules.multiplicative_lr(0.1, lambda t: 1 / (1 + 0.001 * t), "
        "total_steps=100)",
        "lambda t: 0.1 / (1 + 0.001 * t)",
        "optax has none: PyTorch's rate is the product of all factors so far.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.StepLR(opt, 30, 0.5)",
        "instep.schedules.step_lr(0.1, 30, 0.5)",
        "optax.exponential_decay(0.1, 30, 0.5)",
        "Without `staircase=True` optax decays at every step.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.StepLR(opt, 30, 0.1)",
        "instep.schedules.step_lr(0.1, 30, 0.1)",
        "optax.exponential_decay(0.1, 30, 0.1, staircase=True)",
        "The same, in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.MultiStepLR(opt, [30, 60, 60], 0.1)",
        "instep.schedules.multi_step_lr(0.1, [30, 60, 60], 0.1)",
        "optax.piecewise_constant_schedule(0.1, {m: 0.1 for m in [30, 60, 60]})",
        "A milestone given twice counts twice in PyTorch; a dict holds it once.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.MultiStepLR(opt, [30, 60], 0.1)",
        "instep.schedules.multi_step_lr(0.1, [30, 60], 0.1)",
        "optax.piecewise_constant_schedule(0.1, {30: 0.1, 60: 0.1})",
        "The same.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.ConstantLR(opt)",
        "instep.schedules.constant_lr(0.1)",
        "optax.piecewise_constant_schedule(0.1 / 3, {5: 3.0})",
        "The same. PyTorch's defaults are a third of the rate for 5 steps.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.LinearLR(opt, total_iters=20)",
        "instep.schedules.linear_lr(0.1, total_iters=20)",
        "optax.linear_schedule(0.1 / 3, 0.1, 20)",
        "The same, in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.ExponentialLR(opt, 0.95)",
        "instep.schedules.exponential_lr(0.1, 0.95)",
        "optax.exponential_decay(0.1, 1, 0.95)",
        "The same, in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.PolynomialLR(opt, 120, 2.0)",
        "instep.schedules.polynomial_lr(0.1, 120, 2.0)",
        "optax.polynomial_schedule(0.1, 0.0, 2.0, 120)",
        "The same, in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.CosineAnnealingLR(opt, 99, 0.001)",
        "instep.schedules.cosine_annealing_lr(0.1, 99, 0.001)",
        "optax.cosine_decay_schedule(0.1, 99, alpha=0.01)",
        "The same up to `T_max`. `alpha` is a fraction, `eta_min` a rate.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.CosineAnnealingLR(opt, 100, 0.001)  # 200 steps",
        "instep.schedules.cosine_annealing_lr(0.1, 100, 0.001)",
        "optax.cosine_decay_schedule(0.1, 100, alpha=0.01)",
        "Past `T_max` PyTorch's rate rises again; optax's stays at the end.",
        rates(FOREVER),
    ),
    Dialect(
        "lr_scheduler.CosineAnnealingWarmRestarts(opt, 20, 2, 0.001)",
        "instep.schedules.cosine_annealing_warm_restarts(0.1, 20, 2, 0.001)",
        "optax.sgdr_schedule([dict(init_value=0.1, peak_value=0.1, warmup_steps=0, "
        "decay_steps=20 * 2**k, end_value=0.001) for k in range(3)])",
        "The same while the list of cycles lasts.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.CosineAnnealingWarmRestarts(opt, 20, 2, 0.001)  # 200 steps",
        "instep.schedules.cosine_annealing_warm_restarts(0.1, 20, 2, 0.001)",
        "optax.sgdr_schedule([dict(init_value=0.1, peak_value=0.1, warmup_steps=0, "
        "decay_steps=20 * 2**k, end_value=0.001) for k in range(3)])",
        "After the last cycle optax stays at the end; PyTorch restarts without end.",
        rates(FOREVER),
    ),
    Dialect(
        "lr_scheduler.OneCycleLR(opt, 0.1, total_steps=100)",
        "instep.schedules.one_cycle_lr(0.1, 100)",
        "optax.cosine_onecycle_schedule(100, 0.1)",
        "PyTorch's phases end at steps 29 and 99, optax's at 30 and 100: the last step is "
        "the one that is far off.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.OneCycleLR(opt, 0.1, total_steps=100)",
        "instep.schedules.one_cycle_lr(0.1, 100)",
        "optax.piecewise_interpolate_schedule('cosine', 0.1 / 25, {29: 25.0, 99: 4e-6})",
        "With PyTorch's ends, in float32 also under x64. Ends between two steps, as "
        "PyTorch's are for most lengths, cannot be said.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.OneCycleLR(opt, 0.1, total_steps=100, anneal_strategy='linear', "
        "three_phase=True)",
        "instep.schedules.one_cycle_lr(0.1, 100, anneal_strategy='linear', three_phase=True)",
        "optax.linear_onecycle_schedule(100, 0.1)",
        "Ends one step late, as above, and a last phase from 0.85 of the run; PyTorch's "
        "begins where the second has lasted as long as the first.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.OneCycleLR(opt, 0.1, total_steps=100)  # the momentum",
        "instep.schedules.one_cycle_lr(0.1, 100)  # .momentum",
        "lambda t: 0.95 + 0.0 * t",
        "PyTorch cycles the momentum (or beta1) against the rate, 0.95 to 0.85 and back. "
        "Nothing of optax does; `optax.inject_hyperparams` takes a schedule that you write.",
        rates(of="momentum"),
    ),
    Dialect(
        "lr_scheduler.CyclicLR(opt, 0.01, 0.1, step_size_up=10)",
        "instep.schedules.cyclic_lr(0.01, 0.1, step_size_up=10)",
        "optax.piecewise_interpolate_schedule('linear', 0.01, "
        "{10 * k: 10.0 if k % 2 else 0.1 for k in range(1, 11)})",
        "The same for as many cycles as are written down, in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.CyclicLR(opt, 0.01, 0.1, step_size_up=10, mode='exp_range', gamma=0.99)",
        "instep.schedules.cyclic_lr(0.01, 0.1, step_size_up=10, mode='exp_range', gamma=0.99)",
        "optax.piecewise_interpolate_schedule('linear', 0.01, "
        "{10 * k: 10.0 if k % 2 else 0.1 for k in range(1, 11)})",
        "optax has no cycles whose height decays.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.CyclicLR(opt, 0.01, 0.1, step_size_up=10)  # the momentum",
        "instep.schedules.cyclic_lr(0.01, 0.1, step_size_up=10)  # .momentum",
        "lambda t: 0.9 + 0.0 * t",
        "As for OneCycleLR: 0.9 to 0.8 and back, on by default.",
        rates(of="momentum"),
    ),
    Dialect(
        "lr_scheduler.SequentialLR(opt, [lr_scheduler.LinearLR(opt, 0.1, total_iters=10), "
        "lr_scheduler.CosineAnnealingLR(opt, 90, 0.001)], [10])",
        "instep.schedules.sequential_lr([instep.schedules.linear_lr(0.1, 0.1, total_iters=10), "
        "instep.schedules.cosine_annealing_lr(0.1, 90, 0.001)], [10])",
        "optax.warmup_cosine_decay_schedule(0.01, 0.1, 10, 90, 0.001)",
        "`decay_steps` of optax counts the warm-up, `T_max` of PyTorch does not.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.SequentialLR(opt, [lr_scheduler.LinearLR(opt, 0.1, total_iters=10), "
        "lr_scheduler.CosineAnnealingLR(opt, 90, 0.001)], [10])",
        "instep.schedules.sequential_lr([instep.schedules.linear_lr(0.1, 0.1, total_iters=10), "
        "instep.schedules.cosine_annealing_lr(0.1, 90, 0.001)], [10])",
        "optax.warmup_cosine_decay_schedule(0.01, 0.1, 10, 100, 0.001)",
        "The same, the warm-up in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.SequentialLR(opt, [lr_scheduler.ConstantLR(opt, 0.5, 10), "
        "lr_scheduler.MultiplicativeLR(opt, lambda t: 0.9)], [10])",
        "instep.schedules.sequential_lr([instep.schedules.constant_lr(0.1, 0.5, 10), "
        "instep.schedules.multiplicative_lr(0.1, lambda t: 0.9)], [10], total_steps=100)",
        "optax.join_schedules([optax.constant_schedule(0.05), "
        "optax.exponential_decay(0.1, 1, 0.9)], [10])",
        "MultiplicativeLR goes on from the rate that it finds, and applies its lambda(0) "
        "there; a schedule of optax starts anew.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.ChainedScheduler([lr_scheduler.LinearLR(opt, 0.1, total_iters=10), "
        "lr_scheduler.CosineAnnealingLR(opt, 100, 0.01)])",
        "instep.schedules.chained_scheduler([instep.schedules.linear_lr(0.1, 0.1, "
        "total_iters=10), instep.schedules.cosine_annealing_lr(0.1, 100, 0.01)], 100)",
        "lambda t: optax.linear_schedule(0.1, 1.0, 10)(t) * "
        "optax.cosine_decay_schedule(0.1, 100, 0.1)(t)",
        "Each member changes the rate that the one before it has written: with `eta_min` that "
        "is not a product.",
        rates(),
    ),
    Dialect(
        "swa_utils.SWALR(opt, swa_lr=0.02, anneal_epochs=20)",
        "instep.schedules.swa_lr(0.1, 0.02, anneal_epochs=20)",
        "optax.piecewise_interpolate_schedule('cosine', 0.1, {20: 0.2})",
        "The same, in float32 also under x64.",
        rates(),
    ),
    Dialect(
        "lr_scheduler.StepLR(opt, 3, 0.5)  # scheduler.step() once per epoch of 10",
        "instep.schedules.per_epoch(instep.schedules.step_lr(0.1, 3, 0.5), 10)",
        "optax.exponential_decay(0.1, 3, 0.5, staircase=True)",
        "A schedule of optax counts updates, a scheduler its own steps: use "
        "`lambda t: schedule(t // 10)`.",
        rates(every=10),
    ),
    Dialect(
        "lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=3, cooldown=2)",
        "instep.schedules.reduce_lr_on_plateau(0.1, factor=0.5, patience=3, cooldown=2)",
        "optax.contrib.reduce_on_plateau(factor=0.5, patience=3, cooldown=2)",
        "PyTorch reduces after more than `patience` bad metrics, optax after `patience`.",
        on_plateau(),
    ),
    Dialect(
        "lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=3, cooldown=2)",
        "instep.schedules.reduce_lr_on_plateau(0.1, factor=0.5, patience=3, cooldown=2)",
        "optax.contrib.reduce_on_plateau(factor=0.5, patience=4, cooldown=2)",
        "The same.",
        on_plateau(),
    ),
    Dialect(
        "lr_scheduler.ReduceLROnPlateau(opt, 'max', factor=0.5, patience=3)",
        "instep.schedules.reduce_lr_on_plateau(0.1, 'max', factor=0.5, patience=3)",
        "optax.contrib.reduce_on_plateau(factor=0.5, patience=4)  # value=-metric",
        "optax has no mode: given minus the metric, its relative threshold asks for less "
        "than the best, and a plateau counts as better.",
        on_plateau(rising=True),
    ),
    Dialect(
        "lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=3, min_lr=0.01)",
        "instep.schedules.reduce_lr_on_plateau(0.1, factor=0.5, patience=3, min_lr=0.01)",
        "optax.contrib.reduce_on_plateau(factor=0.5, patience=4, min_scale=0.01)",
        "`min_lr` is a rate, `min_scale` a fraction.",
        on_plateau(),
    ),
)
