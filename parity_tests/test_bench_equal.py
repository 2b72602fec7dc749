"""What is timed does equal work, and what does other work is refused by name."""

import textwrap
from dataclasses import replace

import numpy as np
import optax
import pytest

from bench_targets import jax_alone
from instep import bench, workloads
from instep.bench._equal import Steps, UnequalWorkError, check_halves, check_steps
from instep.bench._problem import Problem
from instep.bench._settings import Job, Settings
from instep.bench._survey import _parity, survey
from instep.bench._torch import train_step
from instep.parity._leaf import LOSS, Leaf


SECOND = Leaf("parameter", "fc1.weight")


def steps_of(*losses, floors=()):
    seen = [{SECOND: np.array([1.0, 2.0])}]
    seen += [{LOSS: np.float64(x), SECOND: np.array([1.0 - x, 2.0])} for x in losses]
    return Steps(seen, list(floors) or [{} for _ in seen])


def test_equal_steps_are_counted():
    assert check_steps("jax-plain", steps_of(0.5, 0.4), steps_of(0.5, 0.4).seen) == 5


def test_the_first_divergence_is_named():
    with pytest.raises(UnequalWorkError, match="at step 2 the loss is off by 5.0e-03 of its"):
        check_steps("jax-plain", steps_of(0.5, 0.4), steps_of(0.5, 0.4025).seen)


def test_other_weights_are_told_from_other_steps():
    found = steps_of(0.5).seen
    found[0][SECOND] = np.array([1.0, 2.5])
    with pytest.raises(UnequalWorkError, match="before the first step .* seed what it draws"):
        check_steps("jax-plain", steps_of(0.5), found)


def test_what_is_not_shown_or_not_finite_is_refused():
    found = steps_of(0.5).seen
    del found[1][SECOND]
    with pytest.raises(UnequalWorkError, match="does not show the parameter fc1.weight at"):
        check_steps("flax", steps_of(0.5), found)
    with pytest.raises(UnequalWorkError, match="loss is not finite at step 1"):
        check_steps("flax", steps_of(np.nan), steps_of(np.nan).seen)


def test_a_buffer_that_is_trained_must_be_shown():
    mean, count = Leaf("buffer", "bn.mean"), Leaf("buffer", "bn.num_batches_tracked")
    right = steps_of(0.5, 0.4)
    for n, seen in enumerate(right.seen):
        seen |= {mean: np.full(2, 3.0 * n), count: np.int64(n)}
    without = [{leaf: x for leaf, x in seen.items() if leaf != count} for seen in right.seen]
    assert check_steps("flax", right, without) == 8
    without = [{leaf: x for leaf, x in seen.items() if leaf != mean} for seen in right.seen]
    with pytest.raises(UnequalWorkError, match="does not show the buffer bn.mean at step 1"):
        check_steps("flax", right, without)


def test_rounding_is_allowed_what_it_explains():
    """8 times the floor, and nothing where the floor is as large as the loss."""
    floors = [{}, {LOSS: 1e-7, SECOND: 1e-7}]
    assert check_steps("x", steps_of(0.5, floors=floors), steps_of(0.5 + 7e-7).seen) == 3
    with pytest.raises(UnequalWorkError, match="the loss is off"):
        check_steps("x", steps_of(0.5, floors=floors), steps_of(0.5 + 9e-7).seen)
    with pytest.raises(UnequalWorkError, match="rounding alone decides the loss at step 1"):
        check_steps("x", steps_of(0.5, floors=[{}, {LOSS: 1e-3}]), steps_of(0.5 + 5e-3).seen)


def test_halves_that_are_not_in_step_are_refused_with_the_cause():
    parity = {
        "in_step": False,
        "reason": "The update of fc1.weight diverges.",
        "told": [["where", "step 1, stage optimizer"], ["why", "the learning rate"]],
        "steps": 3,
    }
    with pytest.raises(UnequalWorkError) as refused:
        check_halves("mine.py:pair", parity)
    for part in ("mine.py:pair is not timed", "where", "why", "instep parity mine.py:pair"):
        assert part in str(refused.value)


ALL = tuple(bench.CONTENDERS)
TORCH_ALONE = """
    import torch
    import instep

    def loop():
        nn = torch.nn
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(DRAWN), nn.ReLU())
        groups = [{"params": [p], "weight_decay": 0.1 * p.ndim} for p in model.parameters()]
        optimizer = torch.optim.Adam(groups, lr=0.1)
        return instep.TorchLoop(
            model,
            lambda model, x: model(x).square().mean(),
            optimizer,
            torch.utils.data.DataLoader(torch.randn(64, 3), batch_size=8, shuffle=True),
            scheduler=torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
            accumulate=2,
        )
    """


@pytest.fixture
def no_parity(monkeypatch):
    """The halves are in step, as other tests show: what is looked at here is the contenders."""
    monkeypatch.setattr("instep.bench._survey._parity", lambda problem: {"in_step": True})


def judged(target, contenders=ALL, **settings):
    settings = Settings(check_steps=2, **settings)
    return survey(Job("survey", str(target), contenders, settings), lambda text: None)["judged"]


def test_every_contender_does_the_work_of_a_workload(no_parity):
    """With convolutions, buffers, a schedule, clipping and accumulation."""
    found = judged("digits-cnn", check_examples=4)
    assert found.keys() == set(ALL) and min(found.values()) >= 2 * (1 + 8)


def test_every_contender_does_the_work_of_a_lowered_loop(no_parity, tmp_path):
    """Two groups, a shuffled loader, and a dropout that drops nothing."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(TORCH_ALONE.replace("DRAWN", "0.0")))
    contenders = tuple(name for name in ALL if name != "flax")
    assert min(judged(f"{tmp_path}/mine.py:loop", contenders).values()) == 3 * 2 + 2
    with pytest.raises(bench.BenchError, match="flax cannot run this TARGET: it has no Flax"):
        judged(f"{tmp_path}/mine.py:loop", ("instep", "flax"))


def test_a_model_that_draws_is_refused(no_parity, tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(TORCH_ALONE.replace("DRAWN", "0.5")))
    with pytest.raises(UnequalWorkError, match="as with dropout, cannot be compared"):
        judged(f"{tmp_path}/mine.py:loop", ("instep",))


def test_a_policy_is_not_compared_with_a_step_that_casts_nothing(tmp_path):
    target = jax_alone(tmp_path, policy="bf16")
    for name in ("jax-plain", "multisteps"):
        with pytest.raises(bench.BenchError, match=f"{name} cannot run .*: it has a policy"):
            judged(target, ("instep", name))


def test_what_had_no_effect_is_not_shown():
    """A clip that one half alone has, and that never fires."""
    pair = workloads.get("digits-mlp").make_pair()
    clipped = replace(pair, torch=replace(pair.torch, clip_grad_norm=1e6))
    for given, said in ((pair, []), (clipped, ["clipped gradient"])):
        found = _parity(Problem("mine", given, Settings(check_steps=1)))
        assert found["in_step"]
        assert [kind for kind in said if any(kind in x for x in found["not_shown"])] == said
        assert bool(found["not_shown"]) == bool(said)


def no_decay(group):
    return optax.identity()


def forgets_one(loop, model, graphed=False):
    """The step of a loop that leaves the last microbatch out."""
    right = train_step(loop, model)
    return lambda n, window: right(n, window[:-1] if len(window) > 1 else window)


@pytest.mark.parametrize(
    ("target", "contender", "place", "mistake", "where"),
    [
        ("digits-mlp", "jax-plain", "_optax._decayed", no_decay, "parameter fc1.bias"),
        ("digits-cnn", "jax-plain", "_by_hand.CLIP_EPS", 0.0, "parameter bn1.bias"),
        ("digits-cnn", "torch-eager", "_torch.train_step", forgets_one, "the loss is off"),
    ],
)
def test_a_contender_that_does_other_work_is_refused(
    target, contender, place, mistake, where, no_parity, monkeypatch
):
    monkeypatch.setattr(f"instep.bench.{place}", mistake)
    with pytest.raises(UnequalWorkError, match=f"^{contender} is not timed") as refused:
        judged(target, ("instep", contender), check_examples=4)
    assert "at step 1" in str(refused.value) and where in str(refused.value)
