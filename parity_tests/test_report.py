"""The report as JSON and as an assertion."""

import json
from pathlib import Path

import jsonschema
import optax
import pytest

from instep import parity
from pairs import fast_variance, linear_pair, mean_pair


SCHEMA = Path(parity.__file__).parent / "report.schema.json"


@pytest.mark.parametrize(
    "pair", [linear_pair, lambda: linear_pair(tx=optax.sgd(0.2)), lambda: linear_pair(lr=0.0)]
)
def test_json_is_valid_by_its_schema(pair):
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    data = json.loads(json.dumps(parity.run(pair(), steps=3).to_dict(), allow_nan=False))
    validator.validate(data)
    data["walks"][0]["leaves"][0]["status"] = "fine"
    assert not validator.is_valid(data)
    del data["verdict"]
    assert not validator.is_valid(data)


def test_every_leaf_has_its_series():
    report = parity.run(linear_pair(), steps=4)
    for walk, data in zip(report.walks, report.to_dict()["walks"], strict=True):
        for row, leaf in zip(walk.rows, data["leaves"], strict=True):
            series = leaf["series"]
            first = 0 if row.leaf.kind in ("parameter", "lr") else 1
            assert series["step"] == list(range(first, 5))
            assert {len(column) for column in series.values()} == {row.measured}
            at = series["step"].index(row.worst.step)
            assert series["ratio"][at] == pytest.approx(row.worst.ratio, rel=1e-4)


def test_assert_in_step_passes_and_gives_the_report():
    assert parity.assert_in_step(linear_pair(), steps=3).in_step


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: linear_pair(tx=optax.sgd(0.11)),
            ["NOT IN STEP: the optimizer stage", "where      step 1, stage optimizer: update",
             "times the bound", "walk       float32 re-synchronised: not in step"],
        ),
        (lambda: linear_pair(lr=0.0), ["INCONCLUSIVE: nothing diverged, but no update"]),
        (
            lambda: mean_pair(fast_variance),
            ["NOT IN STEP: float32", "hint       in float64 both agree"],
        ),
    ],
)  # fmt: skip
def test_assert_in_step_tells_what_to_do_in_25_lines(make, told):
    with pytest.raises(AssertionError) as raised:
        parity.assert_in_step(make(), steps=3)
    text = str(raised.value)
    assert len(text.splitlines()) <= 25
    assert all(part in text for part in told), text
    assert 'report.to_html("report.html")' in text
