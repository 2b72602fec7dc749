"""Mistakes in the running statistics of BatchNorm."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .._evidence import Evidence
from .._mistake import Variant, mistake
from .._passes import passes
from .._rewrite import Call
from .._step import Step, Sum
from ._sites import changed_calls, dialled_calls


def _trains(call: Call) -> bool:
    return bool(call.get("training", False)) and call.get("running_var") is not None


@mistake("Use instep.ops.batch_norm: PyTorch remembers the unbiased variance, Flax the biased.")
def biased_variance(evidence: Evidence):
    """The running variance is that of the numbers, divided by n; PyTorch divides by n - 1."""

    def biased(call: Call) -> Call:
        x, var = call.get("input"), call.get("running_var")
        momentum, n = call.get("momentum", 0.1), x.numel() // x.shape[1]
        unbiased = call.but(running_var=var.clone())

        def norm():
            made, new = unbiased(), unbiased.get("running_var")
            with torch.no_grad():
                kept = var * (1 - momentum)
                var.copy_(kept + (new - kept) * (n - 1) / n)
            return made

        return call.of(norm)

    yield from changed_calls(evidence, ("batch_norm",), biased, when=_trains)


@mistake("Flax's momentum is 1 - PyTorch's: PyTorch's default 0.1 is Flax's 0.9, not its 0.99.")
def another_statistics_momentum(evidence: Evidence):
    """Running statistics have another momentum."""
    for momentum in (0.01, 0.9, 0.1, 0.99, 0.05, 0.001):
        yield from changed_calls(
            evidence,
            ("batch_norm",),
            lambda call, m=momentum: call.but(momentum=m),
            f"momentum={momentum} (Flax: {1 - momentum:g})",
            when=lambda call, m=momentum: _trains(call) and call.get("momentum", 0.1) != m,
        )
    yield from dialled_calls(
        evidence,
        ("batch_norm",),
        "momentum",
        lambda call: call.get("momentum", 0.1),
        lambda call, m: call.but(momentum=m),
        _trains,
    )


@mistake(
    "Hand the new statistics on: instep.Loss(loss, buffers=nnx.state(model, nnx.BatchStat))."
)
def statistics_never_updated(evidence: Evidence):
    """Running statistics stay as they were."""

    def frozen(call: Call) -> Call:
        mean, var = call.get("running_mean").clone(), call.get("running_var").clone()
        return call.but(running_mean=mean, running_var=var)

    yield from changed_calls(evidence, ("batch_norm",), frozen, when=_trains)
    names = [name for name, _ in evidence.loop.model.named_buffers()]

    def stay(chosen: tuple[str, ...]) -> dict[str, Callable]:
        def change(evidence: Evidence, now: Sum) -> Sum:
            old = dict(evidence.loop.model.named_buffers())
            return now._replace(
                total={k: old[k] if k in chosen else v for k, v in now.total.items()}
            )

        return {"buffer": change}

    yield Variant(stay(tuple(names)))
    for name in names:
        yield Variant(stay((name,)), name)


@mistake("Train: use_running_average=False, model.train().")
def statistics_in_evaluation(evidence: Evidence):
    """BatchNorm uses its running statistics, as in evaluation."""
    yield from changed_calls(
        evidence, ("batch_norm",), lambda call: call.but(training=False), when=_trains
    )


@mistake("Carry the buffers from one microbatch to the next, as instep.backward's out.buffers.")
def statistics_not_carried(evidence: Evidence):
    """Running statistics are those of one microbatch: the others began where it did."""
    k = len(evidence.window)
    for i in reversed(range(k)) if k > 1 else ():
        alone = Step((Variant({"window": lambda evidence, window, i=i: [window[i]]}),))

        def change(evidence: Evidence, now: Sum, alone=alone) -> Sum:
            return now._replace(total=passes(evidence, alone)[-1].buffers)

        yield Variant({"buffer": change}, value=f"number {i} of {k}")
    if k > 1:
        each = [
            Step((Variant({"window": lambda evidence, window, i=i: [window[i]]}),))
            for i in range(k)
        ]

        def mean(evidence: Evidence, now: Sum) -> Sum:
            parts = [passes(evidence, step)[-1].buffers for step in each]
            total = {
                name: torch.stack([p[name].double() for p in parts]).mean(0)
                for name in parts[0]
            }
            return now._replace(total=total)

        yield Variant({"buffer": mean}, value="the mean over the microbatches")
