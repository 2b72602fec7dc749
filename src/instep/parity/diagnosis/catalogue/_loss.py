"""Mistakes in the loss."""

from __future__ import annotations

import torch.nn.functional as F

from .._evidence import Evidence
from .._mistake import Dial, Variant, mistake
from .._rewrite import Call
from .._step import Sum
from ._sites import changed_calls, dialled_calls


CROSS_ENTROPY = ("cross_entropy",)
REDUCING = (
    "cross_entropy",
    "nll_loss",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "kl_div",
)


@mistake("instep.losses.cross_entropy(logits, labels, label_smoothing=...).")
def label_smoothing_missing(evidence: Evidence):
    """Labels are not smoothed."""
    yield from changed_calls(
        evidence,
        CROSS_ENTROPY,
        lambda call: call.but(label_smoothing=0.0),
        when=lambda call: bool(call.get("label_smoothing", 0.0)),
    )


@mistake("PyTorch gives the true class 1 - s + s / n and every other s / n.")
def label_smoothing_otherwise(evidence: Evidence):
    """Labels are smoothed by another amount, or over the other classes only."""

    def others(call: Call) -> Call:
        s, n = call.get("label_smoothing", 0.0), call.args[0].shape[1]
        return call.but(label_smoothing=s * n / (n - 1))

    smooth = lambda call: bool(call.get("label_smoothing", 0.0))  # noqa: E731
    yield from changed_calls(
        evidence, CROSS_ENTROPY, others, "over the other classes", when=smooth
    )
    for s in (0.1, 0.05, 0.2):
        yield from changed_calls(
            evidence,
            CROSS_ENTROPY,
            lambda call, s=s: call.but(label_smoothing=s),
            f"label_smoothing={s}",
            when=lambda call, s=s: bool(call.get("label_smoothing", 0.0) != s),
        )
    yield from dialled_calls(
        evidence,
        CROSS_ENTROPY,
        "label_smoothing",
        lambda call: call.get("label_smoothing", 0.0),
        lambda call, s: call.but(label_smoothing=s),
    )


@mistake("Leave out labels of ignore_index: neither in the sum nor in the count.")
def ignored_labels_counted(evidence: Evidence):
    """Labels that PyTorch ignores are counted: in the mean, or as a class."""

    def divided_by_all(call: Call) -> Call:
        def loss(input, target, weight=None, *args, **kwargs):
            kwargs = {**kwargs, "reduction": "none"}
            return F.cross_entropy(input, target, weight, *args, **kwargs).mean()

        return call.of(loss, *call.args, **call.kwargs)

    def as_class(index: int):
        def change(call: Call) -> Call:
            labels = call.args[1]
            ignored = labels == call.get("ignore_index", -100)
            named = index % call.args[0].shape[1]
            return call.but(target=labels.masked_fill(ignored, named))

        return change

    yield from changed_calls(
        evidence, CROSS_ENTROPY, divided_by_all, "in the mean", when=_has_labels
    )
    for index, said in ((0, "as class 0"), (-1, "as the last class")):
        yield from changed_calls(
            evidence, CROSS_ENTROPY, as_class(index), said, when=_has_labels
        )


def _has_labels(call: Call) -> bool:
    """Whether its targets are classes: which of them are ignored differs by microbatch."""
    return not call.args[1].is_floating_point()


@mistake("Take the mean: PyTorch's losses do by default.")
def loss_summed(evidence: Evidence):
    """A loss is a sum, where PyTorch takes the mean."""
    yield from changed_calls(
        evidence,
        REDUCING,
        lambda call: call.but(reduction="sum"),
        when=lambda call: call.get("reduction", "mean") == "mean",
    )


@mistake("Write PyTorch's factor: optax.l2_loss is half of mse_loss.")
def loss_scaled(evidence: Evidence):
    """The loss, and with it every gradient, is PyTorch's times one factor."""
    for factor in (0.5, 2.0):
        yield _scaled(factor)
    yield Dial(_scaled, 1.0)


def _scaled(factor: float) -> Variant:
    def scaled(evidence: Evidence, now: Sum) -> Sum:
        total = now.total
        if isinstance(total, dict):
            return now._replace(total={name: factor * g for name, g in total.items()})
        return now._replace(total=factor * total)

    return Variant({"report": scaled, "gradient": scaled}, value=f"{factor:.6g} times")


@mistake("cross_entropy takes logits: no softmax before it.")
def softmax_before_cross_entropy(evidence: Evidence):
    """Probabilities are given to a loss that takes logits."""
    yield from changed_calls(
        evidence, CROSS_ENTROPY, lambda call: call.but(input=F.softmax(call.args[0], 1))
    )


@mistake("Reduce as PyTorch's loss does; of kl_div only batchmean is the divergence.")
def another_reduction(evidence: Evidence):
    """A loss is reduced otherwise."""
    others = {"sum": ("mean",), "batchmean": ("mean", "sum"), "mean": ("batchmean",)}
    for own, changed in others.items():
        for reduction in changed:
            yield from changed_calls(
                evidence,
                REDUCING,
                lambda call, r=reduction: call.but(reduction=r),
                f"reduction={reduction!r}",
                when=lambda call, own=own, r=reduction: (
                    call.get("reduction", "mean") == own
                    and (r != "batchmean" or call.name == "kl_div")
                ),
            )


@mistake("Give the delta of huber_loss, or the beta of smooth_l1_loss, that PyTorch has.")
def another_delta(evidence: Evidence):
    """The loss goes over from square to straight elsewhere."""
    for name, argument in (("huber_loss", "delta"), ("smooth_l1_loss", "beta")):
        yield from dialled_calls(
            evidence,
            (name,),
            argument,
            lambda call, argument=argument: call.get(argument, 1.0),
            lambda call, value, argument=argument: call.but(**{argument: value}),
        )


@mistake("Give the class weights that PyTorch's loss has.")
def class_weights_missing(evidence: Evidence):
    """The classes are not weighted."""
    yield from changed_calls(
        evidence,
        (*CROSS_ENTROPY, "nll_loss"),
        lambda call: call.but(weight=None),
        when=lambda call: call.get("weight") is not None,
    )
