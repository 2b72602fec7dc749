"""The walks: free and re-synchronised, in float64 and below; what each of them can see."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

import instep
from instep import bridge, parity
from instep.parity._records import Status
from pairs import fast_variance, linear_pair, mean_pair


NAMES = ("float64", "float64 re-synchronised", "float32 re-synchronised")


def named(report):
    return {walk.plan.name: walk for walk in report.walks}


def statuses(walk, kind, name):
    (row,) = (r for r in walk.rows if (r.leaf.kind, r.leaf.name) == (kind, name))
    return [m.status for m in row.measurements]


def test_a_pair_in_step_is_so_in_every_walk():
    report = parity.run(linear_pair(), steps=5)
    assert report.in_step and tuple(named(report)) == NAMES
    for walk in report.walks:
        assert walk.in_step and walk.not_judged() == []
        assert all(row.judged == row.measured for row in walk.rows)
    assert report.coverage.complete
    assert [curve.dtype for curve in report.curves] == ["float64", "float32"]
    double, single = report.curves
    np.testing.assert_allclose(double.torch, double.jax, rtol=1e-12)
    np.testing.assert_allclose(double.torch, single.jax, rtol=1e-5)
    assert single.jax != double.jax and len(single.torch) == 5


def test_a_mistake_at_one_step_is_seen_at_that_step_alone_when_synced():
    """The free walk carries it on; the re-synchronised ones show when it was made."""
    pair = linear_pair()
    calls = pair.torch.batches

    def wrong_at_step_3(params, x):
        marked = jnp.any(x == calls[2].numpy()[0, 0].astype(x.dtype))
        loss = ((x @ params["kernel"] + params["bias"]) ** 2).mean()
        return loss * jnp.where(marked, 1.01, 1.0)

    pair = replace(pair, jax=replace(pair.jax, loss_fn=wrong_at_step_3))
    walks = named(parity.run(pair, steps=6))
    assert statuses(walks["float64"], "parameter", "weight")[3:] == [Status.DIVERGED] * 4
    for name in NAMES[1:]:
        loss = statuses(walks[name], "loss", "loss")
        assert [s is Status.DIVERGED for s in loss] == [False, False, True] + [False] * 3, name


def test_rounding_that_float64_cannot_see():
    """E[x^2] - E[x]^2 loses three digits: 1e-13 in float64, 1e-4 in float32."""
    right = parity.run(mean_pair(lambda x: x.var(1, keepdims=True)), steps=3)
    assert right.in_step, right
    report = parity.run(mean_pair(fast_variance), steps=3)
    walks = named(report)
    assert walks["float64"].in_step and walks["float64 re-synchronised"].in_step
    assert report.verdict is parity.Verdict.NOT_IN_STEP
    assert report.first_divergence.walk == "float32 re-synchronised"
    assert report.reason.startswith("float32 re-synchronised: the ")
    assert "this is rounding" in report.hint
    assert "float32 re-synchronised, step 1" in str(report)


def logistic_report(steps, wrong_after=np.inf):
    """p - 1.0 * dloss/dp = 4 p (1 - p): the logistic map, which doubles every error."""
    torch.manual_seed(0)
    model = nn.Module()
    model.p = nn.Parameter(torch.rand(50))
    loop = instep.TorchLoop(
        model,
        lambda model, x: (x[1] * (4.0 / 3.0 * model.p**3 - 1.5 * model.p**2)).sum(),
        torch.optim.SGD(model.parameters(), lr=1.0),
        [torch.tensor([float(n), 1.0]) for n in range(steps)],
    )

    def loss_fn(params, x):
        p = params["p"]
        return (x[1] * (4.0 / 3.0 * p**3 - 1.5 * p**2)).sum() + (x[0] > wrong_after) * p[0]

    half = instep.JaxLoop(loss_fn, optax.sgd(1.0), {"p": jnp.zeros(50)})
    return parity.run(instep.Pair(loop, half, [bridge.tensor("p")]), steps=steps)


def test_chaos_ends_the_free_walk_and_not_the_others():
    report = logistic_report(60)
    walks = named(report)
    assert report.in_step and report.reason.endswith("on rounding decides the free walk")
    assert walks["float64"].verdict is parity.Verdict.INCONCLUSIVE
    assert "on no loss could be judged" in walks["float64"].reason
    assert walks["float64 re-synchronised"].in_step
    assert walks["float32 re-synchronised"].in_step


def confident_report(scale=1.0):
    """Two classes that are told apart better at every step: p - 1 is soon below float32."""
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    x, label = 8.0 * torch.eye(2), torch.arange(2)
    loop = instep.TorchLoop(
        model,
        lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9),
        [(x, label)],
    )

    def loss_fn(params, batch):
        logits = batch[0] @ params["weight"].T + params["bias"]
        small = jnp.mean(logits) * (logits.dtype == jnp.float32) * (scale - 1.0)
        return instep.losses.cross_entropy(logits, batch[1]) + small

    params = {"weight": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    half = instep.JaxLoop(loss_fn, optax.sgd(1.0, momentum=0.9), params)
    rules = [bridge.tensor("weight"), bridge.tensor("bias")]
    return parity.run(instep.Pair(loop, half, rules), steps=16)


def test_a_loss_below_the_rounding_of_float32_is_judged_in_float64():
    report = confident_report()
    walks = named(report)
    assert report.in_step, report
    assert walks["float32 re-synchronised"].verdict is parity.Verdict.INCONCLUSIVE
    assert "; in float32 rounding decides " in report.reason


def test_a_mistake_below_the_rounding_of_float32_is_seen_there():
    report = confident_report(scale=1.001)
    assert report.verdict is parity.Verdict.NOT_IN_STEP
    assert report.first_divergence.walk == "float32 re-synchronised"


def test_a_mistake_in_chaos_is_seen():
    """At a step that the free walk does not reach."""
    report = logistic_report(60, wrong_after=50)
    walks = named(report)
    assert walks["float64"].verdict is parity.Verdict.INCONCLUSIVE
    assert report.verdict is parity.Verdict.NOT_IN_STEP
    assert report.first_divergence.walk == "float64 re-synchronised"
    assert report.first_divergence.step == 52


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, "float32"),
        (torch.float32, "float32"),
        (torch.bfloat16, "bfloat16"),
        (torch.float16, "float16"),
    ],
)
def test_rounding_is_judged_in_the_dtype_of_the_model(dtype, expected):
    pair = linear_pair()
    pair.torch.model.to(dtype)
    report = parity.run(pair, steps=3)
    assert report.in_step, report
    assert report.walks[-1].plan.dtype == expected
    assert all(p.dtype is dtype for p in pair.torch.model.parameters())


def test_precisions_can_be_chosen():
    report = parity.run(linear_pair(), steps=3, precisions=["bfloat16", "float16"])
    assert report.in_step, report
    assert [w.plan.dtype for w in report.walks] == ["float64"] * 2 + ["bfloat16", "float16"]
    assert [curve.dtype for curve in report.curves] == ["float64"]
    assert len(parity.run(linear_pair(), steps=1, precisions=[]).walks) == 2
    for wrong in ("float32", ["float8"]):
        with pytest.raises(ValueError, match=r"precisions is a list of 'float32', 'bfloat16'"):
            parity.run(linear_pair(), steps=1, precisions=wrong)


def test_a_walk_that_pytorch_cannot_make_is_said():
    def torch_loss(model, x):
        y = model(x)  # no PyTorch kernel inverts bfloat16
        return (torch.linalg.inv(y.T @ y + torch.eye(2, dtype=y.dtype)) ** 2).sum()

    def loss_fn(params, x):
        y = x @ params["kernel"] + params["bias"]
        return (jnp.linalg.inv(jnp.eye(2) + y.T @ y) ** 2).sum()

    report = parity.run(
        linear_pair(loss_fn, torch_loss), steps=2, precisions=["float32", "bfloat16"]
    )
    assert tuple(named(report)) == NAMES and all(walk.in_step for walk in report.walks)
    (sentence,) = report.coverage.not_walked
    assert report.verdict is parity.Verdict.INCONCLUSIVE
    assert report.reason == f"nothing diverged, but {sentence}"
    assert sentence.startswith("bfloat16 re-synchronised: the PyTorch half raised at step 1")
    assert not report.coverage.complete and "not walked" in str(report)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "inconclusive"), (1.5, "not in step")])
@pytest.mark.parametrize("at", [1, 3])
def test_a_half_that_raises_in_float32_is_never_green(at, factor, verdict):
    """What was measured before counts, and what could not be measured is no proof."""
    pair = linear_pair(lambda params, x: _float32_times(factor, params, x))
    windows = iter(range(100))

    def batch(x):
        if x.dtype is torch.float32 and next(windows) == 2 * at - 2:
            raise KeyError("only in float32")
        return x

    report = parity.run(replace(pair, batch=batch), steps=4)
    found = "inconclusive" if at == 1 else verdict
    assert report.verdict == found, report
    assert "KeyError: 'only in float32'" in report.coverage.not_walked[0]
    assert report.walks[0].in_step and report.walks[1].in_step


def _float32_times(factor, params, x):
    loss = ((x @ params["kernel"] + params["bias"]) ** 2).mean()
    return loss * (factor if x.dtype == jnp.float32 else 1.0)


def test_what_is_set_is_restored_even_if_a_walk_raises():
    flags = [
        (torch.backends.cuda.matmul, "allow_tf32"),
        (torch.backends.cudnn, "allow_tf32"),
        (torch.backends.cudnn, "deterministic"),
        (torch.backends.cudnn, "benchmark"),
    ]

    def settings():
        set_now = [getattr(module, name) for module, name in flags]
        return [
            *set_now,
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            jax.config.jax_enable_x64,
            jax.config.jax_default_matmul_precision,
        ]

    seen = []

    def watching(model, x):
        seen.append(settings())
        return (model(x) ** 2).mean()

    def broken(model, x):
        if model.weight.dtype is torch.float32:
            raise KeyError("only in float32")
        return (model(x) ** 2).mean()

    before = settings()
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:  # the opposite of what a walk sets
        with torch.backends.cudnn.flags(True, benchmark=True, deterministic=False):
            mine = settings()
            parity.run(linear_pair(torch_loss=watching), steps=2, checks=False)
            assert settings() == mine and mine not in seen
            report = parity.run(linear_pair(torch_loss=broken), steps=2)
            assert settings() == mine
        assert "KeyError: 'only in float32'" in report.coverage.not_walked[0]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
    assert settings() == before
