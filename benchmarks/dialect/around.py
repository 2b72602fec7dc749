"""The rows of what stands around an optimizer."""

from __future__ import annotations

import math

from ._loops import EQUAL, RAGGED, accumulated, averaged, clipped, scales, skipped
from ._row import Dialect


CLIP = (
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 1.0)",
        "instep.clip_grad_norm(grads, 1.0)[0]",
        "optax.clip_by_global_norm(1.0)",
        "PyTorch divides by the norm plus 1e-6.",
        clipped(norm=5.0),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 1.0)  # norm 1 - 1e-9",
        "instep.clip_grad_norm(grads, 1.0)[0]",
        "optax.clip_by_global_norm(1.0)",
        "Within 1e-6 below the limit PyTorch scales, optax does not.",
        clipped(norm=1.0 - 1e-9),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 1e-7)  # norm 1e-9",
        "instep.clip_grad_norm(grads, 1e-7)[0]",
        "optax.clip_by_global_norm(1e-7)",
        "So tiny norms are scaled by a tenth in PyTorch and not at all in optax.",
        clipped(norm=1e-9),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 0.0)  # norm 0",
        "instep.clip_grad_norm(grads, 0.0)[0]",
        "optax.clip_by_global_norm(0.0)",
        "PyTorch gives zeros, optax 0 / 0.",
        clipped(norm=0.0),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 1.0, norm_type=1.0)",
        "instep.clip_grad_norm(grads, 1.0, norm_type=1.0)[0]",
        "optax.clip_by_global_norm(1.0)",
        "PyTorch has any order of norm, optax the second alone.",
        clipped(norm=5.0),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 1.0)  # one gradient is infinite",
        "instep.clip_grad_norm(grads, 1.0)[0]",
        "optax.clip_by_global_norm(1.0)",
        "The same: NaN there, 0 elsewhere.",
        clipped(entry=math.inf),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_norm_(params, 1.0)  # float16, norm 9000",
        "instep.clip_grad_norm(grads, 1.0)[0]",
        "optax.clip_by_global_norm(1.0)",
        "optax squares in float16: the norm is infinite and every gradient becomes 0. PyTorch "
        "rounds the norm to float16 and instep does not, which is half a unit of float16.",
        clipped(norm=9000.0, dtype="float16"),
        rounding=2.0**-10,
    ),
    Dialect(
        "torch.nn.utils.clip_grad_value_(params, 0.5)",
        "instep.clip_grad_value(grads, 0.5)",
        "optax.clip(0.5)",
        "The same.",
        clipped(norm=5.0),
    ),
    Dialect(
        "torch.nn.utils.clip_grad_value_(params, 0.5)  # one gradient is NaN",
        "instep.clip_grad_value(grads, 0.5)",
        "optax.clip(0.5)",
        "The same: NaN stays, and no other gradient is touched.",
        clipped(norm=5.0, entry=math.nan),
    ),
)

SCALER = (
    Dialect(
        "torch.amp.GradScaler('cpu', init_scale=4.0, growth_interval=3)",
        "instep.GradScaler(4.0, growth_interval=3)",
        "DynamicScale(scale=4.0, growth_interval=3)",
        "PyTorch grows at the third finite step in a row, flax at the fourth.",
        scales("00001000000"),
    ),
    Dialect(
        "torch.amp.GradScaler('cpu', init_scale=4.0, growth_interval=3)",
        "instep.GradScaler(4.0, growth_interval=3)",
        "DynamicScale(scale=4.0, growth_interval=2)",
        "An interval less by 1 gives the same.",
        scales("00001000000"),
    ),
    Dialect(
        "torch.amp.GradScaler('cpu', init_scale=4.0)  # 160 overflows",
        "instep.GradScaler(4.0)",
        "DynamicScale(scale=4.0)",
        "PyTorch's scale has no floor: below 1.2e-38, where flax's stays, it goes on through "
        "subnormal numbers to 0. XLA takes those for 0, and so instep is there sooner.",
        scales("1" * 160),
        rounding=1.0,
    ),
    Dialect(
        "torch.optim.AdamW(params, lr=0.01)  # scaler.step(opt), 1 overflow",
        "instep.optim.adamw(0.01)  # step(..., found_inf=found_inf)",
        "optax.apply_if_finite(optax.adamw(0.01, weight_decay=1e-2), 3)",
        "The same: parameters, moments and step hold. It has no scale.",
        skipped("0010000000"),
    ),
    Dialect(
        "torch.optim.AdamW(params, lr=0.01)  # scaler.step(opt), 5 overflows in a row",
        "instep.optim.adamw(0.01)  # step(..., found_inf=found_inf)",
        "optax.apply_if_finite(optax.adamw(0.01, weight_decay=1e-2), 3)",
        "After `max_consecutive_errors` optax applies the update all the same: NaN.",
        skipped("0011111000"),
    ),
    Dialect(
        "torch.optim.SGD(params, lr=0.1); lr_scheduler.StepLR(opt, 2, 0.5)",
        "instep.optim.sgd(instep.schedules.step_lr(0.1, 2, 0.5))",
        "optax.apply_if_finite(optax.sgd(lambda t: 0.1 * 0.5 ** (t // 2)), 3)",
        "PyTorch's scheduler steps when the optimizer is skipped; optax's count waits with "
        "the rest of the state.",
        skipped("0010000000"),
    ),
)

ACCUMULATION = (
    Dialect(
        "(loss / 4).backward()  # 4 equal microbatches",
        "acc = instep.mean(acc)",
        "optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 4)",
        "The same: the mean of means, which optax takes in float32 unless `accumulator_dtype` "
        "says otherwise.",
        accumulated(EQUAL, "microbatches"),
    ),
    Dialect(
        "loss.backward()  # 4 microbatches, not divided",
        "without `mean`",
        "optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 4)",
        "PyTorch adds gradients; optax takes their mean.",
        accumulated(EQUAL, "nothing"),
    ),
    Dialect(
        "loss.backward()  # 4 microbatches, not divided",
        "without `mean`",
        "optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 4, use_grad_mean=False, "
        "accumulator_dtype=jnp.float64)",
        "The same.",
        accumulated(EQUAL, "nothing"),
    ),
    Dialect(
        "(loss_sum / 32).backward()  # microbatches of 12, 10, 7 and 3",
        "instep.Loss(loss_sum, weight=n); acc = instep.mean(acc)",
        "optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 4)",
        "The mean of means weighs an example of a small microbatch more. "
        "`use_grad_mean=False` and losses divided by 32 are PyTorch's again.",
        accumulated(RAGGED, "examples"),
    ),
)

AVERAGES = (
    Dialect(
        "swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))",
        "instep.optim.update_parameters(averaged, params, avg_fn=instep.optim.ema_avg_fn(0.9))",
        "optax.ema(0.9)",
        "PyTorch starts from a copy of the first model; `optax.ema` from zero, and corrects "
        "the bias.",
        averaged,
    ),
    Dialect(
        "swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))",
        "instep.optim.update_parameters(averaged, params, avg_fn=instep.optim.ema_avg_fn(0.9))",
        "optax.ema(0.9, debias=False)",
        "Without the correction.",
        averaged,
    ),
    Dialect(
        "swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))",
        "instep.optim.update_parameters(averaged, params, avg_fn=instep.optim.ema_avg_fn(0.9))",
        "lambda new, old, n: optax.incremental_update(new, old, 0.1)",
        "The same, when the first model is copied by hand.",
        averaged,
    ),
    Dialect(
        "swa_utils.AveragedModel(model)",
        "instep.optim.update_parameters(averaged, params)",
        "lambda new, old, n: optax.incremental_update(new, old, 1 / (n + 1))",
        "The same, when you count the models. optax has no running mean.",
        averaged,
    ),
)
