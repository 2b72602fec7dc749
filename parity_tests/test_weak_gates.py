"""The gates that others stand guard with let mistakes through that ``instep.parity`` stops."""

import functools
from dataclasses import replace

import numpy as np
import pytest

import instep
import weak_gates as weak
import weak_pairs as pairs
from instep import parity
from weak_gates import GAPS


@functools.cache
def verdict(make):
    return parity.run(make(), steps=2)


def name(gap):
    return f"{gap.entry}-{gap.gate.__name__}"


@pytest.mark.parametrize("gap", GAPS, ids=name)
def test_a_mistake_that_passes_the_gate_is_not_in_step(gap):
    pair = gap.mistake()
    gap.gate(pair)
    report = verdict(gap.mistake)
    assert report.verdict is parity.Verdict.NOT_IN_STEP
    first = report.first_divergence
    assert (first.stage, first.step) == (gap.stage, gap.step), first


@pytest.mark.parametrize("gap", GAPS, ids=name)
def test_without_a_mistake_both_pass(gap):
    """So the gate is no straw man: what it asserts holds where nothing is wrong."""
    gap.gate(gap.clean())
    report = verdict(gap.clean)
    assert report.in_step, report


def negated(pair):
    right = pair.jax.apply
    return replace(pair, jax=replace(pair.jax, apply=lambda *args: -right(*args)))


# What each gate does refuse: it is weak, not blind.
REFUSED = [
    (weak.rtol_1_on_the_last_step, lambda: pairs.net(tx=instep.optim.sgd(1e3))),
    (weak.forward_in_evaluation, pairs.gelu_by_tanh),
    (weak.means_agree, pairs.gelu_by_tanh),
    (weak.backward_checked_by_the_forward_check, pairs.gelu_by_tanh),
    (weak.first_step_only, pairs.rate_half_again),
    (weak.transposed_until_it_fits, pairs.gelu_by_tanh),
    (weak.short_prompt, lambda: negated(pairs.rope())),
    (weak.reference_in_bfloat16, pairs.relu_for_gelu),
    (weak.signed_sum, lambda: pairs.box(lambda out: out - 1)),
    (weak.absolute_4e_2, pairs.relu_for_gelu),
    (weak.shapes_agree, lambda: pairs.upsampled(padding=(1, 1))),
    (weak.losses_printed, pairs.gelu_by_tanh),
    (weak.six_times_the_spread_of_reruns, lambda: pairs.net(tx=instep.optim.sgd(5.0))),
    (weak.parameters_after_adam, pairs.gelu_by_tanh),
]


@pytest.mark.parametrize("gate, mistake", REFUSED, ids=lambda x: getattr(x, "__name__", ""))
def test_the_gate_can_fail(gate, mistake):
    with pytest.raises(AssertionError):
        gate(mistake())


def test_every_entry_of_the_list_has_a_gap_and_every_gate_its_origin():
    assert {gap.entry for gap in GAPS} == set(range(1, 11))
    assert all(gap.gate.__doc__ for gap in GAPS)


def test_repeated_runs_on_a_cpu_spread_by_nothing():
    """Which makes a bound of 6 times the spread refuse the clean pair: hence the shuffling."""
    pair = pairs.net()
    once, again = (weak.reference_run(pair, pair.torch.batches) for _ in range(2))
    assert all(np.array_equal(once[leaf], again[leaf]) for leaf in once)
    (*_, last) = weak.observed(pair, 2)
    assert max(weak.distance(theirs, last.jax[leaf]) for leaf, theirs in once.items()) > 0
