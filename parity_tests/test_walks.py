"""The walks: free and re-synchronised, in float64 and below; what each of them can see."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from torch import nn

import instep
from instep import bridge, parity
from instep.parity._records import Status
from pairs import linear_pair


NAMES = ("float64", "float64 re-synchronised", "float32 re-synchronised")
SCHEMA = Path(parity.__file__).parent / "report.schema.json"


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


def mean_pair(var):
    """Normalised inputs whose mean is 30 times their deviation."""
    torch.manual_seed(0)
    model = nn.Linear(64, 8)
    data = [(torch.randn(16, 64) + 30.0) for _ in range(3)]

    def torch_loss(model, x):
        centred = (x - x.mean(1, keepdim=True)) / x.var(1, keepdim=True, correction=0).sqrt()
        return (model(centred) ** 2).mean()

    def loss_fn(params, x):
        centred = (x - x.mean(1, keepdims=True)) / jnp.sqrt(var(x))
        return ((centred @ params["kernel"] + params["bias"]) ** 2).mean()

    loop = instep.TorchLoop(
        model, torch_loss, torch.optim.SGD(model.parameters(), lr=0.1), data
    )
    params = {"kernel": jnp.zeros((64, 8)), "bias": jnp.zeros(8)}
    return instep.Pair(
        loop, instep.JaxLoop(loss_fn, instep.optim.sgd(0.1), params), [bridge.linear("")]
    )


def fast_variance(x):
    return (x**2).mean(1, keepdims=True) - x.mean(1, keepdims=True) ** 2


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


def torch_upcast(model, x):
    y = model(x).float()
    return torch.softmax(y, -1, dtype=torch.float32).square().mean()


def jax_upcast(params, x):
    y = (x @ params["kernel"] + params["bias"]).astype(jnp.float32)
    return (jax.nn.softmax(y) ** 2).mean(dtype=jnp.float32)


@pytest.mark.parametrize("upcast", ["torch", "jax", "both"])
def test_casts_to_float32_are_lifted_in_float64_walks(upcast):
    """As RMSNorm and softmax have them: right where people train, and not a rounding here."""

    def torch_loss(model, x):
        return torch.softmax(model(x), -1).square().mean()

    def loss_fn(params, x):
        return (jax.nn.softmax(x @ params["kernel"] + params["bias"]) ** 2).mean()

    pair = linear_pair(
        loss_fn if upcast == "torch" else jax_upcast,
        torch_loss if upcast == "jax" else torch_upcast,
    )
    report = parity.run(pair, steps=3)
    assert report.in_step, report
    with jax.enable_x64(True):  # nothing is lifted any more
        y = jax.jit(jax_upcast)({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, jnp.ones(3))
    assert y.dtype == jnp.float32
    assert torch_upcast(nn.Linear(3, 2).double(), torch.ones(3).double()).dtype is torch.float32


def stock_pair():
    """Programs that Flax pins to float32, and every construct a lifted dtype passes through."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    tokens = [torch.randint(7, (5, 6)) for _ in range(3)]

    def torch_loss(model, tokens):
        y = model(tokens) + tokens.float()[..., None] / 255
        for _ in range(3):
            y = torch.tanh(y.float())
        y = y * torch.sigmoid(y) if y.sum() > 0 else y
        return ((y.cumsum(1) * 0.1) ** 2).mean()

    graphdef, params, rest = nnx.split(
        nnx.Sequential(nnx.Embed(7, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 3, rngs=nnx.Rngs(0))),
        nnx.Param,
        ...,
    )

    def tanh32(y):
        return jnp.tanh(y.astype(jnp.float32))

    def loss_fn(params, tokens):
        y = nnx.merge(graphdef, params, rest)(tokens) + tokens[..., None] / 255
        y = jax.lax.fori_loop(0, 1, lambda i, y: tanh32(y).astype(y.dtype), y)
        y, _ = jax.lax.scan(lambda y, _: (tanh32(y), None), y.astype(jnp.float32), length=2)
        y = jax.lax.cond(y.sum() > 0, lambda y: y * jax.nn.sigmoid(y), lambda y: y, y)
        y = jax.checkpoint(lambda y: y.astype(jnp.float32))(y)
        y = jnp.cumsum(y, 1) * jnp.float32(0.1)
        return jnp.mean(y**2, dtype=jnp.float32)

    loop = instep.TorchLoop(
        model, torch_loss, torch.optim.SGD(model.parameters(), lr=0.1), tokens
    )
    return instep.Pair(loop, instep.JaxLoop(loss_fn, optax.sgd(0.1), params))


def test_float32_is_lifted_inside_loops_branches_and_calls():
    report = parity.run(stock_pair(), steps=3)
    assert report.in_step, str(report)


def test_bfloat16_inside_both_halves_is_pytorchs_own_error():
    """As under autocast: a float32 loop whose products are taken in bfloat16."""

    def torch_loss(model, x):
        low = torch.bfloat16
        y = nn.functional.linear(x.to(low), model.weight.to(low), model.bias.to(low))
        return (y.float() ** 2).mean()

    def loss_fn(params, x):
        x, w, b = (a.astype(jnp.bfloat16) for a in (x, params["kernel"], params["bias"]))
        return ((x @ w + b).astype(jnp.float32) ** 2).mean()

    for seed in range(5):
        pair = linear_pair(loss_fn, torch_loss)
        batches = torch.randn(5, 8, 3, generator=torch.Generator().manual_seed(seed))
        pair = replace(pair, torch=replace(pair.torch, batches=list(batches)))
        report = parity.run(pair, steps=5)
        assert report.in_step, (seed, str(report))


def test_an_upcast_that_jax_lacks_is_seen_in_bfloat16():
    def loss_fn(params, x):
        return (jax.nn.softmax(x @ params["kernel"] + params["bias"]) ** 2).mean()

    report = parity.run(linear_pair(loss_fn, torch_upcast), steps=3, precisions=["bfloat16"])
    assert [walk.in_step for walk in report.walks] == [True, True, False]
    first = report.first_divergence
    assert (first.walk, first.stage) == ("bfloat16 re-synchronised", "loss")


def test_chaos_ends_the_free_walk_and_not_the_others():
    """p - 1.0 * dloss/dp = 4 p (1 - p): the logistic map, which doubles every error."""
    torch.manual_seed(0)
    model = nn.Module()
    model.p = nn.Parameter(torch.rand(50))
    loop = instep.TorchLoop(
        model,
        lambda model, x: (x * (4.0 / 3.0 * model.p**3 - 1.5 * model.p**2)).sum(),
        torch.optim.SGD(model.parameters(), lr=1.0),
        [torch.ones(1)],
    )

    def loss_fn(params, x):
        return (x * (4.0 / 3.0 * params["p"] ** 3 - 1.5 * params["p"] ** 2)).sum()

    half = instep.JaxLoop(loss_fn, optax.sgd(1.0), {"p": jnp.zeros(50)})
    report = parity.run(instep.Pair(loop, half, [bridge.tensor("p")]), steps=60)
    walks = named(report)
    assert report.verdict is parity.Verdict.INCONCLUSIVE
    assert "on no loss could be judged" in walks["float64"].reason
    assert walks["float64 re-synchronised"].in_step
    assert walks["float32 re-synchronised"].in_step


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


# Opaque loops are re-synchronised through their view, where it hands on what the state has.


def opaque_pair(view, momentum=0.9):
    pair = linear_pair()
    optimizer = torch.optim.SGD(pair.torch.model.parameters(), lr=0.1, momentum=momentum)
    tx = optax.sgd(0.1, momentum=momentum or None)
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}

    @jax.jit
    def step(state, x):
        params, opt_state = state
        loss, grads = jax.value_and_grad(pair.jax.loss_fn)(params, x)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), (loss, grads)

    return replace(
        pair,
        torch=replace(pair.torch, optimizer=optimizer),
        jax=instep.JaxLoop.opaque(step, lambda: (params, tx.init(params)), view),
    )


def test_an_opaque_loop_is_synced_through_its_view():
    def view(state, seen):
        return instep.View(seen[0], state[0], opt_state=state[1], grads=seen[1])

    report = parity.run(opaque_pair(view), steps=4, precisions=["float32", "bfloat16"])
    assert report.in_step and len(report.walks) == 4, report
    state = [r for r in report.walks[2].rows if r.leaf.kind == "state"]
    assert [row.status for row in state] == [Status.IN_STEP] * 2


@pytest.mark.parametrize(
    ("view", "why"),
    [
        (
            lambda state, seen: instep.View(seen[0], state[0], grads=seen[1]),
            "the JAX side does not show the momentum_buffer of ",
        ),
        (
            lambda state, seen: instep.View(
                seen[0], jax.tree.map(lambda p: p * 1.0, state[0]), None, state[1], seen[1]
            ),
            "view computes params.bias, params.kernel instead of handing on",
        ),
        (
            lambda state, seen: instep.View(
                seen[0], jax.tree.map(np.array, state[0]), None, state[1], seen[1]
            ),
            "view computes with NumPy",
        ),
    ],
)
def test_an_opaque_loop_that_cannot_be_synced_has_limited_coverage(view, why):
    report = parity.run(opaque_pair(view), steps=3)
    assert report.in_step and tuple(named(report)) == NAMES[:1], report
    assert [s.partition(": ")[0] for s in report.coverage.not_walked] == list(NAMES[1:])
    assert all(why in sentence for sentence in report.coverage.not_walked)
    assert not report.coverage.complete
    assert not report.to_dict()["coverage"]["complete"]


def test_weights_behind_those_that_are_shown_are_limited_coverage():
    """The step reads masters that the view does not show: syncing does not reach them."""
    pair = linear_pair()

    @jax.jit
    def step(state, x):
        masters = state["masters"]
        loss, grads = jax.value_and_grad(pair.jax.loss_fn)(masters, x)
        masters = jax.tree.map(lambda p, g: p - 0.1 * g, masters, grads)
        return {"masters": masters, "params": masters}, (loss, grads)

    def view(state, seen):
        return instep.View(seen[0], state["params"], grads=seen[1])

    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    state = {"masters": params, "params": params}
    half = instep.JaxLoop.opaque(step, state, view)
    report = parity.run(replace(pair, jax=half), steps=3)
    assert not report.coverage.complete
    assert "view does not show masters.bias and 1 more" in report.coverage.unseen[0]


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
    for module, name in flags:  # the opposite of what a walk sets
        setattr(module, name, name != "deterministic")
    try:
        mine = settings()
        parity.run(linear_pair(torch_loss=watching), steps=2)
        assert settings() == mine and mine not in seen
        report = parity.run(linear_pair(torch_loss=broken), steps=2)
        assert settings() == mine
        assert "KeyError: 'only in float32'" in report.coverage.not_walked[0]
    finally:
        for (module, name), value in zip(flags, before, strict=False):
            setattr(module, name, value)
    assert settings() == before


# The report of all walks.


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
