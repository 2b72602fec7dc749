"""The plants are fit to be an exam: the grounds are in step, every mistake is listed once."""

import json

import pytest

import ground_transformer
import instep
import plants_cnn
import plants_lstm
import plants_results
import plants_transformer
import plants_unknown
from plants import Plants
from plants_pairs import PAIRS


WORKLOADS = [plants_transformer.PLANTS, plants_cnn.PLANTS, plants_lstm.PLANTS]
CLEAN = {plants.workload: plants.clean for plants in WORKLOADS}
CLEAN["transformer-whole-window"] = ground_transformer.gpt_whole_window


@pytest.mark.parametrize("name", CLEAN)
def test_without_a_mistake_in_step(name):
    report = instep.parity.run(CLEAN[name](0), steps=4, precisions=[])
    assert report.in_step, report.reason


@pytest.mark.parametrize("plants", WORKLOADS, ids=lambda plants: plants.workload)
def test_every_mistake_has_a_cause_and_a_place(plants: Plants):
    assert len(plants.listed) >= 12
    assert len({plant.name for plant in plants.listed}) == len(plants.listed)
    known = _places(plants)
    for plant in plants.listed:
        assert plant.cause, plant.name
        assert plant.place is None or plant.place in known, plant


def test_what_is_unknown_has_a_stage_and_no_cause():
    assert len(plants_unknown.UNKNOWN) >= 12
    for plants in (plants_unknown.TRANSFORMER, plants_unknown.CNN, plants_unknown.LSTM):
        known = _places(plants)
        for plant in plants.listed:
            assert plant.stage and not plant.cause, plant
            assert plant.place is None or plant.place in known, plant


def test_pairs_are_of_two_causes_of_the_catalogue():
    named = {cause for plants in WORKLOADS for plant in plants.listed for cause in plant.cause}
    assert len(PAIRS) >= 10
    for pair in PAIRS:
        assert len(set(pair.causes)) == 2 and set(pair.causes) <= named, pair


def _places(plants: Plants) -> set[str]:
    model = plants.clean(0).torch.model
    leaves = (name for name, _ in model.named_parameters(remove_duplicate=False))
    return {name for name, _ in model.named_modules()} | set(leaves)


# What ``plants_results.py`` kept of its last run over all of them.

KEPT = json.loads(plants_results.RESULTS.read_text())
KNOWN = {
    f"{section} {name}": row
    for section in plants_results.KNOWN
    for name, row in KEPT[section].items()
}


@pytest.mark.parametrize("section", plants_results.SECTIONS)
def test_everything_was_walked(section):
    assert list(KEPT[section]) == plants_results.names(section)


def test_every_mistake_was_detected_and_its_cause_named_first():
    assert len(KNOWN) >= 100
    assert {row["verdict"] for row in KNOWN.values()} == {"not in step"}
    unnamed = [name for name, row in KNOWN.items() if row["rank"] is None]
    later = [name for name, row in KNOWN.items() if (row["rank"] or 1) > 1]
    assert not unnamed
    assert len(later) <= 0.05 * len(KNOWN), later
    assert max(row["rank"] for row in KNOWN.values()) <= 3


def test_both_mistakes_of_a_pair_were_named():
    assert all(row["both"] and not row["unexplained"] for row in KEPT["pairs"].values())


def test_what_is_unknown_was_detected_placed_and_given_no_cause():
    unknown = KEPT["unknown"]
    assert {row["verdict"] for row in unknown.values()} == {"not in step"}
    assert not [name for name, row in unknown.items() if row["causes"]]
    assert sum(row["placed"] for row in unknown.values()) >= 0.9 * len(unknown)


def test_no_cause_was_named_where_nothing_is_wrong():
    clean = KEPT["clean"]
    assert len(clean) == 3 * 20
    assert {row["verdict"] for row in clean.values()} == {"in step"}
    assert not [name for name, row in clean.items() if row["causes"] or row["unexplained"]]
