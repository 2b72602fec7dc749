"""What a walk cannot replay: every fault planted here is named, and nothing else is."""

import random
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import instep
import weak_pairs as pairs
from instep import bridge, parity
from instep.parity._checks import checks
from instep.parity._checks._all import CHECKS
from instep.parity._checks._precision import matmul_precision
from instep.parity._checks._probe import Probe
from instep.parity._checks._unexcited import idle_leaves
from instep.parity._records import Check
from instep.workloads import digits_mlp
from pairs import linear_pair, with_batches


FEATURES, CLASSES = 3, 4


def named(pair, name, steps=2) -> list[str]:
    """The sentences of one check."""
    return list(CHECKS[name](Probe(pair, steps)))


@pytest.mark.parametrize(
    "make",
    [
        linear_pair,
        pairs.net,
        pairs.batch_norm,
        pairs.padded,
        digits_mlp.WORKLOAD.make_pair,
    ],
)
def test_a_clean_pair_has_nothing(make):
    found = checks(make())
    assert all(check.passed and not check.sentence for check in found), found
    assert len(found) == 9


def test_the_loop_is_left_as_it_was():
    pair = pairs.net()
    before = {name: x.clone() for name, x in pair.torch.model.state_dict().items()}
    state = torch.get_rng_state()
    checks(pair)
    assert all(torch.equal(x, before[n]) for n, x in pair.torch.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_check_that_cannot_be_made_says_why_and_has_not_passed():
    pair = linear_pair(lambda params, x: x @ params["nothing"])
    (compile,) = (check for check in checks(pair) if check.name == "one compile")
    assert not compile.passed
    assert re.match(
        r"not checked: KeyError: 'nothing' \(test_checks\.py:\d+\)", str(compile)[13:]
    )


def test_one_step_shows_no_repetition():
    with pytest.raises(ValueError, match="steps must be at least 2.*got steps=1"):
        checks(linear_pair(), steps=1)


# Random draws.


def dropout(key):
    """Least squares with dropout; ``key`` makes a key of the rng and the buffers."""

    def loss_fn(params, buffers, x, rng):
        kept = jax.random.bernoulli(key(rng, buffers), 0.5, x.shape)
        return (((x * kept) @ params["kernel"] + params["bias"]) ** 2).mean()

    return linear_pair(loss_fn, rng=jax.random.key(0))


def test_dropout_by_the_rng_that_is_given():
    assert named(dropout(lambda rng, buffers: rng), "random draws") == []


def test_dropout_by_a_key_that_is_burnt_in():
    (found,) = named(dropout(lambda rng, buffers: jax.random.key(7)), "random draws")
    assert found.startswith("1 of 1 random draws give the same bits at step 1 and at step 2")
    assert "shape (8, 3)" in found
    assert "Draw with the rng" in found


def test_one_of_two_keys_is_burnt_in():
    def loss_fn(params, buffers, x, rng):
        noise = jax.random.normal(rng, x.shape) + jax.random.normal(jax.random.key(1), (3,))
        return (((x + noise) @ params["kernel"] + params["bias"]) ** 2).mean()

    (found,) = named(linear_pair(loss_fn, rng=jax.random.key(0)), "random draws")
    assert found.startswith("1 of 2 random draws")
    assert "shape (3,)" in found


def opaque_dropout(split: bool) -> instep.Pair:
    pair = linear_pair()
    params = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}

    def step(state, x):
        params, key = state

        def loss_fn(params):
            kept = jax.random.bernoulli(key, 0.5, x.shape)
            return (((x * kept) @ params["kernel"] + params["bias"]) ** 2).mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        return (params, jax.random.split(key)[0] if split else key), loss

    half = instep.JaxLoop.opaque(
        jax.jit(step, donate_argnums=0),
        lambda: (params, jax.random.key(0)),
        lambda state, loss: instep.View(loss, state[0]),
    )
    return replace(pair, jax=half)


@pytest.mark.parametrize("split", [True, False])
def test_a_key_in_the_state_of_an_opaque_loop(split):
    assert len(named(opaque_dropout(split), "random draws")) == (not split)


# The batches.


def test_batches_that_go_on_where_they_stopped():
    stream = iter(torch.arange(960.0).view(40, 8, 3))
    pair = with_batches(lambda: stream)
    (found,) = named(pair, "steady batches")
    assert found.startswith("microbatch 0 of the PyTorch half is another one")
    assert "max|d|" in found


def test_batches_drawn_outside_of_pytorch():
    def batches():
        return [torch.full((8, 3), random.random()) for _ in range(4)]

    (found,) = named(with_batches(batches), "steady batches")
    assert "draws outside of PyTorch's generators" in found


def test_batches_that_are_shuffled_by_pytorch_are_steady():
    data = torch.utils.data.TensorDataset(torch.randn(32, 3))
    loader = torch.utils.data.DataLoader(data, 8, shuffle=True)
    pair = with_batches(loader)
    pair = replace(
        pair,
        torch=replace(pair.torch, loss_fn=lambda model, x: (model(x[0]) ** 2).mean()),
        batch=lambda x: x[0],
    )
    assert named(pair, "steady batches") == []


def with_order(order):
    pair = linear_pair()
    arrays = [x.numpy() for x in pair.torch.batches]
    return replace(pair, jax=replace(pair.jax, batches=order(arrays)))


def halves_of_batches(arrays):
    rows = np.concatenate(arrays)
    return list(np.concatenate([rows[1:], rows[:1]]).reshape(np.shape(arrays)))


ORDERS = {
    "same": (lambda x: x, None),
    "swapped": (
        lambda x: [x[0], x[2], x[1], *x[3:]],
        r"the same 6 batches in another order: the first that differs is batch 1, which is "
        r"batch 2 of the PyTorch half \(leaf 0: max\|d\| ",
    ),
    "rows": (halves_of_batches, "the same examples in another order.*is batch 0 "),
    "values": (lambda x: [2 * one for one in x], "other values.*is batch 0 "),
    "fewer": (lambda x: x[:-1], "an epoch of the JAX half has 5 batches and one of the P.* 6"),
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_the_batches(order):
    make, expected = ORDERS[order]
    found = named(with_order(make), "data order")
    assert len(found) == (expected is not None)
    if expected:
        assert re.search(expected, found[0]), found


# Compiles.


def counting(count):
    """An opaque step whose state has a count."""
    pair = linear_pair()
    params = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}

    def step(state, x):
        params, n = state
        loss = ((x @ params["kernel"] + params["bias"]) ** 2).mean()
        return (params, (n + 1).astype(jnp.int32)), loss

    half = instep.JaxLoop.opaque(
        step, (params, count), lambda state, loss: instep.View(loss, state[0])
    )
    return replace(pair, jax=half)


def test_a_strongly_typed_count_is_compiled_once():
    assert named(counting(jnp.zeros((), jnp.int32)), "one compile") == []


def test_a_weakly_typed_count_is_compiled_twice():
    (found,) = named(counting(jnp.asarray(0)), "one compile", steps=3)
    assert found.startswith("the step is compiled again at step 2: state.1 was int32[] weakly")
    assert "and is int32[]" in found


def test_a_batch_of_another_shape_is_compiled_again():
    pair = with_batches([torch.randn(8, 3), torch.randn(5, 3)])
    (found,) = named(pair, "one compile")
    assert "batch was float32[8, 3] and is float32[5, 3]" in found


# Dtypes and precisions.


def test_leaves_of_another_dtype():
    pair = linear_pair()
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), pair.jax.params)
    (found,) = named(replace(pair, jax=replace(pair.jax, params=half)), "dtypes")
    assert found.startswith(
        "weight (JAX: kernel) and 1 more is float32 in PyTorch and bfloat16 in JAX"
    )


def in_bfloat16(params, x):
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, x))
    return ((low[1] @ low[0]["kernel"] + low[0]["bias"]) ** 2).mean().astype(jnp.float32)


def autocast(model, x):
    with torch.autocast("cpu", torch.bfloat16):
        return (model(x) ** 2).mean().float()


def test_a_cast_that_pytorch_does_not_make():
    (found,) = named(linear_pair(in_bfloat16), "low precision")
    assert re.match(r"the JAX half makes bfloat16 in \d+ operations, the first at test_", found)
    (found,) = named(linear_pair(torch_loss=autocast), "low precision")
    assert found.startswith("the PyTorch half makes bfloat16 (torch.autocast, or a cast)")
    assert named(linear_pair(in_bfloat16, autocast), "low precision") == []


def on_a_gpu(pair):
    return list(matmul_precision(Probe(pair, 2), "gpu"))


def test_what_jax_does_by_itself_on_a_gpu():
    (found,) = on_a_gpu(linear_pair())
    assert re.match(
        r"on a GPU, of \d+ float32 dot_general JAX would compute \d+ in TF32, and PyTorch in "
        r'float32: set jax.default_matmul_precision to "highest", or '
        r"torch.backends.cuda.matmul.allow_tf32 = True",
        found,
    )
    assert on_a_gpu(linear_pair(matmul_precision="highest")) == []
    (found,) = list(matmul_precision(Probe(linear_pair(), 2), "tpu"))
    assert "in bfloat16, and PyTorch in float32" in found


def test_tf32_that_pytorch_allows():
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        assert named(linear_pair(), "matmul precision") == []
        (found,) = named(linear_pair(matmul_precision="highest"), "matmul precision")
        assert "in float32, and PyTorch in TF32" in found
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def test_convolutions_are_tf32_in_pytorch():
    assert on_a_gpu(pairs.upsampled()) == []
    with torch.backends.cudnn.flags(allow_tf32=False):
        (found,) = on_a_gpu(pairs.upsampled())
        (same,) = named(pairs.upsampled(), "matmul precision")
    assert "float32 conv_general_dilated JAX would compute" in found
    assert found == same


# Labels.


def classifier(loss, labels, accumulate=1, ignore_index=-100):
    torch.manual_seed(0)
    model = nn.Linear(FEATURES, CLASSES)
    data = [(torch.randn(len(labels), FEATURES), torch.tensor(labels)) for _ in range(4)]

    def torch_loss(model, batch):
        y = torch.where(batch[1] == ignore_index, batch[1], batch[1].clamp(0))
        return F.cross_entropy(model(batch[0]), y, ignore_index=ignore_index)

    loop = instep.TorchLoop(
        model, torch_loss, torch.optim.SGD(model.parameters(), 0.1), data, accumulate=accumulate
    )

    def loss_fn(params, batch):
        x, y = batch
        return loss(x @ params["kernel"] + params["bias"], y)

    params = {"kernel": jnp.zeros((FEATURES, CLASSES)), "bias": jnp.zeros(CLASSES)}
    half = instep.JaxLoop(loss_fn, instep.optim.sgd(0.1), params, accumulate=accumulate)
    return instep.Pair(loop, half, [bridge.linear("")])


def by_optax(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def by_one_hot(logits, y):
    return -(jax.nn.one_hot(y, CLASSES) * jax.nn.log_softmax(logits)).sum(-1).mean()


def by_clip(logits, y):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1, mode="clip")
    return -picked.mean()


def by_index(logits, y):
    return -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean()


EFFECTS = {
    by_optax: "JAX gives NaN, or counts a negative one from the end",
    by_one_hot: "jax.nn.one_hot makes a row of zeros",
    by_clip: "JAX takes the nearest entry",
    by_index: "JAX takes the nearest entry",
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("loss", EFFECTS)
def test_labels_out_of_range(loss, accumulate):
    """One-based labels, as of a MATLAB file."""
    assert named(classifier(loss, [0, 3, 1, 2], accumulate), "labels in range") == []
    pair = classifier(loss, [1, 3, 2, 3], accumulate)
    pair = replace(pair, batch=lambda batch: (batch[0], batch[1] + 1))
    (found,) = named(pair, "labels in range")
    n, size = 2 * accumulate, 4 * accumulate
    assert found.startswith(
        f"batch leaf 1 has {n} of {size} values out of range (such as 4) at step 1, and "
        f"indexes 4 entries, 0 to 3: "
    )
    assert EFFECTS[loss] in found


@pytest.mark.parametrize("loss", EFFECTS)
def test_a_label_of_minus_1_is_the_last_class(loss):
    (found,) = named(classifier(loss, [0, 3, -1, 2]), "labels in range")
    assert "has 1 of 4 values out of range (such as -1)" in found


@pytest.mark.parametrize("ignored", [-100, -1])
def test_labels_that_pytorch_ignores_are_not_out_of_range(ignored):
    def masked(logits, y):
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.where(y == ignored, 0.0, losses).sum() / (y != ignored).sum()

    pair = classifier(masked, [0, 3, ignored, 2], ignore_index=ignored)
    assert named(pair, "labels in range") == []
    assert parity.run(pair, steps=2).in_step


def test_tokens_beyond_the_table():
    pair = pairs.padded()
    beyond = replace(pair, batch=lambda batch: (batch[0] + 1, batch[1]))
    (found,) = named(beyond, "labels in range")
    assert "indexes 7 entries, 0 to 6" in found and "(such as 7)" in found


# What did nothing.


def test_a_clip_and_a_schedule_that_do_nothing():
    pair = linear_pair(clip_grad_norm=50.0)
    scheduler = torch.optim.lr_scheduler.StepLR(pair.torch.optimizer, 3)
    pair = replace(pair, torch=replace(pair.torch, clip_grad_norm=50.0, scheduler=scheduler))
    clip, schedule = named(pair, "features excited")
    assert re.match(r"clip_grad_norm=50 never fired: the largest norm in 2 steps was \d", clip)
    assert schedule.startswith("StepLR never changed the rate: it is 0.1 through 2 steps")
    (clip,) = named(pair, "features excited", steps=3)
    assert "in 3 steps" in clip


def test_ignored_labels_that_never_occur():
    pair = classifier(by_optax, [0, 3, 1, 2], ignore_index=1)
    assert named(pair, "features excited") == []
    pair = classifier(by_optax, [0, 3, 0, 2], ignore_index=1)
    (found,) = named(pair, "features excited")
    assert found.startswith("ignore_index=1 never occurs among 8 integers in 2 steps")


def test_padding_that_never_occurs():
    pair = pairs.padded()
    moved = [(tokens.clamp(1), y) for tokens, y in pair.torch.batches]
    pair = replace(pair, torch=replace(pair.torch, batches=moved))
    (found,) = named(pair, "features excited")
    assert found.startswith("padding_idx=0 never occurs among 48 integers")


@pytest.mark.parametrize("p, training", [(0.0, True), (0.3, False)])
def test_dropout_that_does_nothing(p, training):
    pair = linear_pair()
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(p)).train(training)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loop = replace(pair.torch, model=model, optimizer=optimizer)
    pair = replace(pair, torch=loop, weights=[bridge.linear("0", "")])
    (found,) = named(pair, "features excited")
    assert found.startswith("1 is dropout with p=0" if training else "1 is dropout in evalu")


def test_leaves_of_a_report_that_never_changed():
    pair = linear_pair(
        lambda params, x: ((x @ params["kernel"]) ** 2).mean(),
        lambda model, x: ((x @ model.weight.T) ** 2).mean(),
    )
    report = parity.run(pair, steps=2)
    found = list(idle_leaves(report)(Probe(pair, 2)))
    assert found[0] == (
        "gradient: bias of 2 was zero throughout in 2 steps, so nothing is claimed of it"
    )
    assert [sentence.split(":")[0] for sentence in found] == ["gradient", "update", "parameter"]
    told = [c.sentence for c in checks(pair, report) if c.name == "leaves excited"]
    assert told == found
    (last,) = checks(linear_pair(), parity.run(linear_pair(), steps=2))[9:]
    assert last == Check("leaves excited", True)


def test_a_check_prints_itself():
    assert str(Check("dtypes", True)) == "dtypes: passed"
    assert str(Check("dtypes", False, "float16")) == "dtypes: float16"
