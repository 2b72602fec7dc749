"""Features that were there and did nothing: of these a walk proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from .._leaf import STAGE
from .._records import Status
from .._report import Report
from ._probe import Probe


def unexcited(probe: Probe) -> Iterator[str]:
    """A clip, a scheduler, dropout, an ignored label, padding: each must act once."""
    loop, run, steps = probe.pair.torch, probe.torch, probe.steps
    if loop.clip_grad_norm is not None and max(run.norms) <= loop.clip_grad_norm:
        yield (
            f"clip_grad_norm={loop.clip_grad_norm:g} never fired: the largest norm in {steps} "
            f"steps was {max(run.norms):.3g}. Walk once with a smaller one"
        )
    if loop.scheduler is not None and len(set(run.rates)) == 1:
        yield (
            f"{type(loop.scheduler).__name__} never changed the rate: it is {run.rates[0]:g} "
            f"through {steps} steps. Walk past its first change"
        )
    for name, module in loop.model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            if module.p == 0:
                yield f"{name or 'the model'} is dropout with p=0: nothing is known of its mask"
            elif not module.training:
                yield (
                    f"{name or 'the model'} is dropout in evaluation mode, so p={module.p:g} "
                    f"has no effect. Call model.train()"
                )
    for (option, index), (hits, looked) in run.lookups.items():
        if not hits:
            yield (
                f"{option}={index} never occurs among {looked} integers in {steps} steps. Walk "
                f"over a batch that has it"
            )


def idle_leaves(report: Report) -> Callable[[Probe], Iterator[str]]:
    """The leaves of a report that never changed, or were zero throughout; by kind."""

    def look(probe: Probe) -> Iterator[str]:
        del probe
        for kind in STAGE:
            rows = [row for row in report.rows if row.leaf.kind == kind]
            idle = [row.leaf.name for row in rows if row.status is Status.IDLE]
            if not idle:
                continue
            more = f" and {len(idle) - 1} more" if len(idle) > 1 else ""
            yield (
                f"{kind}: {idle[0]}{more} of {len(rows)} {_WHAT.get(kind, 'never changed')} in "
                f"{report.steps} steps, so nothing is claimed of it"
            )

    return look


_WHAT = {
    **dict.fromkeys(("loss", "gradient", "gradient norm", "update"), "was zero throughout"),
    "clipped gradient": "was never clipped",
}
