"""Causes are found by replay; what no mistake explains is said to be unexplained."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
import torch

import instep
import plants_cnn
import plants_lstm
import plants_transformer
from instep import parity
from instep.parity.diagnosis import _ways
from pairs import linear_pair
from plants_pairs import PAIRS


WORKLOADS = (plants_cnn.PLANTS, plants_lstm.PLANTS, plants_transformer.PLANTS)

# A few of every part in `make test`, all of them in `make test-all`.
OFTEN = {
    "zero_grad_forgotten",
    "variance_of_flax",
    "evaluation_mode",
    "schedule_stepped_with_every_microbatch",
    "microbatches_weighed_by_their_tokens",
    "gates_i_f_o_g",
    "padding_is_a_token",
    "head_is_a_constant_copy",
    "clipped_by_optax",
    "decay_after_the_learning_rate",
}
# 6.6e-11 in the transformer, which the diagnosis accepts by the bound of the leaf itself.
ILL_CONDITIONED = {"amsgrad_left_out"}
PLANTS = [
    pytest.param(
        plant,
        id=f"{plants.workload}-{plant.name}",
        marks=() if plant.name in OFTEN else pytest.mark.exhaustive,
    )
    for plants in WORKLOADS
    for plant in plants.listed
]


@pytest.mark.parametrize("plant", PLANTS)
def test_a_plant_is_found_and_named(plant):
    report = parity.run(plant.make(), 3, precisions=[])
    assert report.verdict is parity.Verdict.NOT_IN_STEP
    assert report.causes and not report.unexplained, report
    for cause in report.causes:
        named = {one.mistake for one in cause.explanations}
        assert named & set(plant.cause), report
        assert cause.after < (1e-10 if plant.name in ILL_CONDITIONED else 1e-11) < cause.before
    places = " ".join(f"{cause.explanations[0].where} {cause.place}" for cause in report.causes)
    assert not plant.place or plant.place.split(".")[0] in places, report


@pytest.mark.exhaustive
@pytest.mark.parametrize("two", PAIRS, ids=lambda two: two.name)
def test_two_plants_are_both_found(two):
    report = parity.run(two.make(), 3, precisions=[])
    named = {one.mistake for cause in report.causes for one in cause.explanations}
    assert set(two.causes) <= named and not report.unexplained, report


@pytest.mark.parametrize("plants", WORKLOADS, ids=lambda plants: plants.workload)
def test_the_right_port_has_no_cause(plants):
    report = parity.run(plants.clean(0), 3, precisions=[])
    assert report.in_step and not report.causes and not report.unexplained, report


def squared(params, x):
    return ((x @ params["kernel"] + params["bias"]) ** 2).mean()


def test_what_nothing_explains_is_unexplained_with_its_place():
    """The logits of the JAX half go through a function that no catalogue has."""

    def odd(params, x):
        return ((x @ params["kernel"] + params["bias"] + 0.1 * jnp.sin(x[:, :1])) ** 2).mean()

    report = parity.run(linear_pair(odd), 2)
    (one,) = report.unexplained
    assert not report.causes
    assert (one.part, one.step) == ("backward", 1)
    assert "test_diagnosis.py" in one.place.line and "odd" in one.place.line
    assert "unexplained" in str(report)


def backwards_by(change):
    """Least squares whose gradients come back changed."""

    @jax.custom_vjp
    def odd(x):
        return x

    odd.defvjp(lambda x: (x, None), lambda _, g: (change(g),))
    return linear_pair(lambda params, x: squared(jax.tree.map(odd, params), x))


def test_an_odd_gradient_is_unexplained():
    report = parity.run(backwards_by(jnp.sin), 2)
    assert [one.part for one in report.unexplained] == ["backward"]
    assert not report.causes


# Values that no list has: they are told by JAX's numbers.


def told(report) -> list[tuple[str, str]]:
    (cause,) = report.causes
    assert not report.unexplained, report
    return [(one.mistake, one.value) for one in cause.explanations]


def test_a_factor_of_all_gradients_is_told():
    report = parity.run(backwards_by(lambda g: 0.87 * g), 2)
    assert told(report) == [("gradients_scaled", "0.87 times")]


ADAMW = {"betas": (0.9, 0.95), "eps": 1e-6, "weight_decay": 0.1}
SETTINGS = {
    "eps": ({"eps": 3.7e-6}, "another_epsilon", "eps=3.7e-06"),
    "beta1": ({"betas": (0.83, 0.95)}, "another_beta", "beta1=0.83"),
    "beta2": ({"betas": (0.9, 0.9543)}, "another_beta", "beta2=0.9543"),
    "decay": ({"weight_decay": 0.037}, "another_decay", "weight_decay=0.037"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_adamw_is_told(name):
    setting, mistake, value = SETTINGS[name]
    pair = linear_pair(tx=instep.optim.adamw(0.05, **(ADAMW | setting)))
    optimizer = torch.optim.AdamW(pair.torch.model.parameters(), 0.05, **ADAMW)
    report = parity.run(replace(pair, torch=replace(pair.torch, optimizer=optimizer)), 3)
    assert (mistake, value) in told(report)


def test_both_betas_are_told_by_their_own_moments():
    pair = linear_pair(tx=instep.optim.adamw(0.05, **(ADAMW | {"betas": (0.83, 0.9543)})))
    optimizer = torch.optim.AdamW(pair.torch.model.parameters(), 0.05, **ADAMW)
    report = parity.run(replace(pair, torch=replace(pair.torch, optimizer=optimizer)), 3)
    said = {one.value for cause in report.causes for one in cause.explanations}
    assert not report.unexplained and {"beta1=0.83", "beta2=0.9543"} <= said, report


def test_two_mistakes_are_both_named():
    """The clip lacks PyTorch's 1e-6, and the optimizer its momentum."""
    pair = linear_pair()
    optimizer = torch.optim.SGD(pair.torch.model.parameters(), 0.1, momentum=0.9)
    loop = replace(pair.torch, optimizer=optimizer)
    half = replace(pair.jax, tx=instep.optim.sgd(0.05, momentum=0.9, nesterov=True))
    report = parity.run(replace(pair, torch=loop, jax=half), 3)
    assert {cause.name for cause in report.causes} == {"another_base_rate", "nesterov_added"}


def with_a_broken_row(monkeypatch, error):
    def broken(evidence):
        raise error
        yield

    name, row = next(iter(_ways.CATALOGUE.items()))
    monkeypatch.setitem(_ways.CATALOGUE, name, replace(row, variants=broken))
    return parity.run(linear_pair(tx=instep.optim.sgd(0.05)), 2)


def test_a_search_that_raises_leaves_the_verdict(monkeypatch):
    report = with_a_broken_row(monkeypatch, OSError("no such call"))
    assert report.verdict is parity.Verdict.NOT_IN_STEP and not report.causes
    assert (
        "the search for the cause ended early" in report.hint and "no such call" in report.hint
    )


def test_a_row_that_does_not_know_a_call_is_passed_over(monkeypatch):
    report = with_a_broken_row(monkeypatch, IndexError("no such argument"))
    assert [cause.name for cause in report.causes] == ["another_base_rate"]
