"""The judge on made-up walks: each thing it must not overlook, by itself."""

import json

import numpy as np
import pytest

from instep.parity import Leaf, Status, Verdict
from instep.parity._judge import Ledger
from instep.parity._leaf import REQUIRED
from instep.parity._records import Matched, Plan
from instep.parity._summary import make_report


LOSS, NORM, RATE = Leaf("loss", "loss"), Leaf("gradient norm", "total"), Leaf("lr", "group 0")


LOSS, NORM, RATE = Leaf("loss", "loss"), Leaf("gradient norm", "total"), Leaf("lr", "group 0")


LOSS, NORM, RATE = Leaf("loss", "loss"), Leaf("gradient norm", "total"), Leaf("lr", "group 0")


OF_W = {
    kind: Leaf(kind, "w") for kind in ("gradient", "clipped gradient", "update", "parameter")
}


STATE, COUNT = Leaf("state", "w.exp_avg"), Leaf("state", "w.step")


STATE, COUNT = Leaf("state", "w.exp_avg"), Leaf("state", "w.step")


BUFFER, CONSTANT = Leaf("buffer", "mean"), Leaf("buffer", "mask")


BUFFER, CONSTANT = Leaf("buffer", "mean"), Leaf("buffer", "mask")


STANDING = (OF_W["parameter"], BUFFER, CONSTANT, RATE)


def observed(step):
    """What a healthy loop shows at ``step``: everything moves but the mask."""
    x = np.linspace(1.0, 2.0, 1000) / (1 + step)
    made = {
        LOSS: np.array(1.0 / (1 + step)),
        NORM: np.array(3.0 + step),
        OF_W["gradient"]: x,
        OF_W["clipped gradient"]: x / 2,
        OF_W["update"]: -0.1 * x,
        STATE: 0.9 * x,
        COUNT: np.array(float(step)),
    }
    standing = {OF_W["parameter"]: x + 1, BUFFER: x[:3], CONSTANT: np.ones(3), RATE: 0.1 * x[0]}
    standing[RATE] = np.array(standing[RATE])
    return standing if step == 0 else made | standing


def walk(change=lambda step, seen: seen, steps=4, moved=(), scheduled=True, of_torch=None):
    """A report on JAX's ``change(step, what PyTorch shows)``."""
    ledger = Ledger(scheduled=scheduled)
    of_torch = of_torch or (lambda step, seen: seen)
    for step in range(steps + 1):
        there = of_torch(step, observed(step))
        draws = [draw(there) for draw in moved] if step else []
        ledger.judge(step, there, draws, change(step, dict(there)))
    weights = [
        Matched("", (torch,), (jax,), "same")
        for torch, jax in (("w", "kernel"), ("mean", "stats.mean"))
    ]
    return make_report([ledger], steps, weights)


def scaled(leaf, factor, at=None):
    return lambda step, seen: (
        seen | {leaf: seen[leaf] * factor} if leaf in seen and at in (None, step) else seen
    )


def row_of(report, leaf):
    return next(row for row in report.rows if row.leaf == leaf)


def test_healthy():
    report = walk()
    assert report.in_step and report.coverage.unseen == () and report.first_divergence is None
    assert {r.leaf: r.status for r in report.not_judged()} == {CONSTANT: Status.IDLE}
    assert {row.leaf for row in report.rows} == set(observed(1))
    for row in report.rows:
        assert row.judged == row.measured == (5 if row.leaf in STANDING else 4)
        assert row.last_judged == 4
    assert "10 of 11 leaves judged in step" in " ".join(str(report).split())


EVERY = [LOSS, NORM, *OF_W.values(), STATE, COUNT, BUFFER, CONSTANT, RATE]


STAGES = [
    "loss",
    "clip",
    "gradient",
    "clip",
    *["optimizer"] * 4,
    "buffers",
    "buffers",
    "schedule",
]


@pytest.mark.parametrize(("leaf", "stage"), list(zip(EVERY, STAGES, strict=True)))
def test_every_kind_is_compared_at_every_step(leaf, stage):
    """One step of four is off in one leaf: not in step, at that step and stage."""
    report = walk(scaled(leaf, 1 + 1e-10, at=2))
    first = report.first_divergence
    assert report.verdict is Verdict.NOT_IN_STEP and not report.in_step
    assert (first.step, first.stage, first.leaf, first.others) == (2, stage, leaf, 0)
    assert row_of(report, leaf).status is Status.DIVERGED
    assert "NOT IN STEP" in str(report)


def test_the_earliest_stage_of_the_earliest_step_and_in_it_the_worst_leaf():
    def change(step, seen):
        if step >= 2:
            for leaf, error in ((BUFFER, 1e-2), (OF_W["update"], 1e-10), (STATE, 1e-6)):
                seen = scaled(leaf, 1 + error)(step, seen)
        return scaled(LOSS, 2.0, at=3)(step, seen)

    report = walk(change)
    first = report.first_divergence
    assert (first.step, first.stage, first.leaf, first.others) == (2, "optimizer", STATE, 2)
    assert first.jax == "kernel" and first.measurement.step == 2


def test_one_wrong_element_of_a_thousand():
    def change(step, seen):
        if step == 1:
            wrong = seen[OF_W["gradient"]].copy()
            wrong[0] += 2e-12 * wrong.max()
            seen[OF_W["gradient"]] = wrong
        return seen

    assert walk(change).first_divergence.leaf == OF_W["gradient"]


@pytest.mark.parametrize(("error", "status"), [(2.3e-11, "in step"), (2.5e-11, "diverged")])
def test_the_bound_is_eight_times_the_largest_draw(error, status):
    def draw(by):
        return lambda seen: {leaf: value + by for leaf, value in seen.items()}

    def change(step, seen):
        return seen | {NORM: seen[NORM] + error} if step else seen

    # |norm| is at most 7, so that 1e-12 of it is below every one of these.
    report = walk(change, moved=[draw(1e-12), draw(-3e-12), draw(2e-12)])
    row = row_of(report, NORM)
    assert row.status == status
    assert row.worst.floor == pytest.approx(3e-12, rel=1e-3)
    assert row.worst.ratio == pytest.approx(error / 2.4e-11, rel=1e-3)


def test_only_the_loss_and_the_rate_are_judged_against_their_largest():
    """At step 4 everything is a fifth; 1e-12 of the first value is five times too much."""
    for leaf in EVERY:
        scale = np.max(np.abs(observed(1)[leaf]))

        def change(step, seen, leaf=leaf, scale=scale):
            return seen | {leaf: seen[leaf] + 0.9e-12 * scale} if step == 4 else seen

        shrinks = np.max(np.abs(observed(4)[leaf])) < 0.9 * scale
        assert walk(change).in_step == (leaf in (LOSS, RATE) or not shrinks), leaf


@pytest.mark.parametrize(("ulps", "in_step"), [(1, True), (8, True), (10, False)])
def test_an_update_is_no_finer_than_its_parameter(ulps, in_step):
    """A scalar of 2.66 that moves by 3e-4, where no copy falls on the other side."""
    ledger = Ledger()
    right = {Leaf("parameter", "w"): np.array(2.66), Leaf("update", "w"): np.array(3e-4)}
    found = right | {Leaf("update", "w"): 3e-4 + ulps * np.spacing(2.66)}
    ledger.judge(1, right, [right] * 3, found)
    assert ledger.diverged != in_step


@pytest.mark.parametrize("kind", REQUIRED)
def test_a_verdict_needs_each_of_these_kinds(kind):
    def without(step, seen):
        return {leaf: value for leaf, value in seen.items() if leaf.kind != kind}

    report = walk(without, of_torch=without)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert f"no {kind} could be judged" in report.reason


@pytest.mark.parametrize("leaf", EVERY)
@pytest.mark.parametrize("side", ["jax", "torch"])
def test_what_one_side_hides_is_said(leaf, side):
    def without(step, seen):
        return {k: v for k, v in seen.items() if k != leaf}

    report = (
        walk(without) if side == "jax" else walk(lambda s, _: observed(s), of_torch=without)
    )
    (sentence,) = report.coverage.unseen
    there, here = ("JAX", "PyTorch") if side == "jax" else ("PyTorch", "JAX")
    assert sentence.startswith(f"{leaf.kind}: the {there} side does not show {leaf.name}")
    assert f"which the {here} side has" in sentence
    through_update = leaf.kind in ("gradient norm", "clipped gradient", "state", "lr")
    assert report.in_step == through_update, report.reason
    assert report.to_dict()["coverage"]["unseen"] == [sentence]


def test_noise_at_some_steps_is_partly_judged_and_at_all_steps_is_noise():
    def draw(steps):
        def moved(seen):
            noisy = float(seen[COUNT]) in steps
            return seen | {STATE: seen[STATE] * 2} if noisy else seen

        return moved

    report = walk(scaled(STATE, 1.5, at=2), moved=[draw({2, 3})])
    row = row_of(report, STATE)
    assert (row.status, row.judged, row.last_judged) == (Status.PARTLY, 2, 4)
    assert row.worst.judged and row in report.not_judged() and report.in_step
    report = walk(scaled(STATE, 1.5), moved=[draw({1, 2, 3, 4})])
    assert row_of(report, STATE).status is Status.NOISE


@pytest.mark.parametrize("kind", REQUIRED)
def test_noise_of_a_required_kind_at_the_start_is_inconclusive(kind):
    """But for updates: a warm-up begins with a rate of zero."""
    leaf = OF_W.get(kind, LOSS)

    def moved(seen):
        return seen | {leaf: seen[leaf] * 2} if float(seen[COUNT]) <= 2 else seen

    report = walk(moved=[moved])
    assert report.in_step == (kind == "update"), report.reason
    if kind != "update":
        assert report.reason == f"no {kind} could be judged at step 1"


def test_noise_of_a_required_kind_at_the_end_is_inconclusive():
    def moved(seen):
        return seen | {LOSS: seen[LOSS] * 2} if seen[COUNT] >= 3 else seen

    report = walk(moved=[moved])
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.reason == "in step to step 2; from step 3 on no loss could be judged"


def test_a_parameter_that_only_agreed_before_the_first_step_is_not_green():
    def moved(seen):
        return seen | {OF_W["parameter"]: seen[OF_W["parameter"]] * 2}

    report = walk(scaled(OF_W["parameter"], 1.1, at=3), moved=[moved])
    row = row_of(report, OF_W["parameter"])
    assert (row.status, row.judged, row.measured) == (Status.NOISE, 1, 5)
    assert report.verdict is Verdict.INCONCLUSIVE


def test_what_is_idle_in_pytorch_and_moves_in_jax_diverges():
    def change(step, seen):
        return seen | {CONSTANT: seen[CONSTANT] * (1 + step)}

    assert row_of(walk(change), CONSTANT).status is Status.DIVERGED


@pytest.mark.parametrize("scheduled", [True, False])
def test_a_constant_rate_is_idle_only_under_a_scheduler(scheduled):
    def constant(step, seen):
        return seen | {RATE: np.array(0.1)}

    report = walk(scheduled=scheduled, of_torch=constant)
    assert row_of(report, RATE).status is (Status.IDLE if scheduled else Status.IN_STEP)


def test_a_clip_that_never_fires_is_idle():
    def unclipped(step, seen):
        return seen | {OF_W["clipped gradient"]: seen[OF_W["gradient"]]} if step else seen

    assert row_of(walk(of_torch=unclipped), OF_W["clipped gradient"]).status is Status.IDLE


def test_json_says_what_the_rows_say(tmp_path):
    def change(step, seen):
        seen = seen | {STATE: np.full(7, np.nan)} if step else seen
        return scaled(BUFFER, 1.5, at=3)(step, seen)

    report = walk(change)
    report.to_json(tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text())
    assert (data["verdict"], data["in_step"], data["steps"]) == ("not in step", False, 4)
    assert data["first_divergence"]["name"] == STATE.name
    assert data["first_divergence"]["error"] is None  # infinite: JSON has no number for it
    by_leaf = {Leaf(x["kind"], x["name"]): x for x in data["walks"][0]["leaves"]}
    assert by_leaf.keys() == {row.leaf for row in report.rows}
    for row in report.rows:
        entry = by_leaf[row.leaf]
        assert (entry["status"], entry["stage"], entry["jax"]) == (
            row.status,
            row.stage,
            row.jax,
        )
        assert (entry["judged"], entry["measured"]) == (row.judged, row.measured)
        assert entry["worst"]["step"] == row.worst.step
        diverged = row.first_diverged and row.first_diverged.step
        assert entry["first_diverged"] == diverged
    assert by_leaf[STATE]["jax"] == "kernel" and by_leaf[BUFFER]["first_diverged"] == 3
    assert walk().to_dict()["in_step"] is True
    inconclusive = walk(lambda s, seen: {k: v for k, v in seen.items() if k != LOSS})
    assert inconclusive.to_dict()["in_step"] is False
    assert data["tolerance"] == {
        "relative": 1e-12, "floor_factor": 8.0, "noise": 1e-6, "draws": 3,
        "rounding_factor": 4.0, "rounding_ulps": 2.0, "looks": 32, "jump": 16.0,
    }  # fmt: skip


def test_what_the_optimizer_makes_of_a_noisy_gradient_is_noise_below_float64():
    ledger = Ledger()
    there = observed(1)
    noisy = there | {OF_W["gradient"]: 2 * there[OF_W["gradient"]]}
    ledger.judge(1, there, [noisy], there)
    of_w = {leaf for leaf in ledger.measurements if leaf.name.startswith("w")}
    assert ledger.noise(1) == of_w and ledger.noise(2) == set()
    low = Ledger(Plan("float32", synced=True))
    wrong = {leaf: value * 1.1 for leaf, value in there.items()}
    low.judge(1, there, [there], wrong, noise=ledger.noise(1))
    found = {leaf: m[-1].status for leaf, m in low.measurements.items()}
    assert {leaf for leaf, status in found.items() if status is Status.NOISE} == of_w
    assert set(found.values()) == {Status.NOISE, Status.DIVERGED}
    low = Ledger(Plan("float32", synced=True))
    beyond = {leaf: value * 2 for leaf, value in there.items()}
    low.judge(1, there, [there], beyond, noise=ledger.noise(1))
    assert {m[-1].status for m in low.measurements.values()} == {Status.DIVERGED}


def test_below_float64_a_loss_stands_for_itself_and_a_rate_for_the_largest():
    low = Ledger(Plan("bfloat16", synced=True))
    for step, scale in ((1, 1.0), (2, 1e-3)):
        right = {LOSS: np.array(2.3 * scale), RATE: np.array(0.1 * scale)}
        low.judge(step, right, [right], {leaf: 0 * x for leaf, x in right.items()})
    assert [m.status for m in low.measurements[LOSS]] == [Status.DIVERGED] * 2
    rates = low.measurements[RATE]
    assert rates[1].scale == 0.1 and rates[0].scale == 0.1


def test_state_made_by_the_first_step_was_exercised_by_it():
    assert row_of(walk(steps=1), STATE).status is Status.IN_STEP


def test_the_worst_verdict_counts():
    def ledger(plan, change):
        made = Ledger(plan)
        for step in range(3):
            there = observed(step)
            made.judge(step, there, [there], change(step, dict(there)))
        return made

    plans = [Plan(), Plan(synced=True), Plan("float32", synced=True)]
    for i, plan in enumerate(plans):
        ledgers = [
            ledger(p, scaled(LOSS, 1.5, at=2) if p is plan else lambda step, seen: seen)
            for p in plans
        ]
        report = make_report(ledgers, 2, [])
        assert report.verdict is Verdict.NOT_IN_STEP
        assert report.first_divergence.walk == plan.name
        assert [walk.in_step for walk in report.walks] == [j != i for j in range(3)]
        assert report.reason.startswith("the loss stage" if i == 0 else f"{plan.name}: the")
        hidden = [
            ledger(p, _without_loss if p is plan else lambda step, seen: seen) for p in plans
        ]
        assert make_report(hidden, 2, []).verdict is Verdict.INCONCLUSIVE


def _without_loss(step, seen):
    return {leaf: value for leaf, value in seen.items() if leaf != LOSS}


def test_a_second_look_excuses_a_jump_and_nothing_less():
    """PyTorch's own step, moved a little, lands on the other side of a ReLU's kink."""
    there, leaf, update = observed(1), OF_W["gradient"], OF_W["update"]
    kink = 1e-3 * (np.arange(1000) == 7)
    kinked = there | {leaf: there[leaf] + kink, update: there[update] - 0.1 * kink}

    def look_again(jax, *looks):
        ledger = Ledger(Plan("float32", synced=True))
        ledger.judge(1, there, [there], jax)
        for look in looks:
            ledger.look_again(1, there, look)
        return {x for x in (leaf, update) if x in ledger.beyond(1)}

    assert look_again(kinked) == {leaf, update}
    assert look_again(kinked, there, kinked) == set()
    assert look_again(there | {update: kinked[update]}, kinked) == {update}  # no gradient
    half = there | {leaf: there[leaf] + kink / 2, update: kinked[update]}
    assert look_again(kinked, half) == {leaf, update}
    small = there | {leaf: there[leaf] * (1 + 20 * 2.0**-23)}  # 10 bounds: no jump
    assert look_again(small, small) == {leaf}


def test_further_draws_tell_how_a_scalar_rounds_and_excuse_nothing_more():
    """The few draws of a loss may all be exact; those of a leaf of 1000 elements are not."""
    there, loss, leaf = observed(1), Leaf("loss", "loss"), OF_W["gradient"]
    ulp = 2.0**-23 * float(there[loss])

    def diverged(off, *draws):
        ledger = Ledger(Plan("float32", synced=True))
        ledger.judge(1, there, [there], there | {loss: there[loss] + off * ulp})
        for draw in draws:
            ledger.draw_again(1, there, there | {loss: there[loss] + draw * ulp})
        return ledger.beyond(1)

    assert diverged(5) == [loss]  # beyond 2 ulp
    assert diverged(5, 0.1, 0.5) == [loss]
    assert diverged(5, 0.5, 1) == []  # 4 times 1, and 2
    assert diverged(100, *[1] * 40) == [loss]  # the largest, not their sum
    ledger = Ledger(Plan("float32", synced=True))
    ledger.judge(1, there, [there], there | {leaf: there[leaf] * (1 + 1e-5)})
    ledger.draw_again(1, there, there | {leaf: there[leaf] * (1 + 1e-4)})
    assert ledger.beyond(1) == [leaf]


@pytest.mark.parametrize(("dtype", "size"), [("float64", 1e-9), ("float32", 1e-3)])
def test_looks_at_a_step_that_repeats_itself_excuse_what_it_made_alone(dtype, size):
    """Inside a step of LBFGS rounding grows; gradients come before, and are not excused."""
    there, leaf, update = observed(1), OF_W["gradient"], OF_W["update"]
    off = size * (np.arange(1000) == 7)

    def widen(jax, look):
        ledger = Ledger(Plan(dtype, synced=True))
        ledger.judge(1, there, [there], jax)
        ledger.widen(1, there, look)
        return set(ledger.beyond(1))

    moved = there | {update: there[update] + off, leaf: there[leaf] + off}
    assert widen(there | {update: moved[update]}, moved) == set()
    assert widen(there | {update: there[update] + 100 * off}, moved) == {update}
    assert widen(there | {leaf: moved[leaf]}, moved) == {leaf}
    assert widen(there | {update: moved[update]}, there) == {update}
