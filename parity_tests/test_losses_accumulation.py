"""Accumulation of every loss over ragged, masked and weighted microbatches, against PyTorch.

``total_and_weight`` keeps numerator and denominator apart, so the cut of a batch into
microbatches does not matter. PyTorch's loss of the whole batch is the oracle.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import Phase, given, settings, strategies as st

import instep
from batches import (
    CASES,
    accumulated,
    arrays_of,
    by_position,
    cut,
    inputs,
    loss_fn_of,
    of_torch,
    options,
    parameters,
    part,
)
from conftest import assert_in_step
from instep.losses import kl_div, mse_loss, total_and_weight
from losses import NAMES, Call, of_ours, of_torch as value_and_gradients


SETTINGS = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=3,
    phases=[Phase.explicit, Phase.generate],
)
MANY = settings(SETTINGS, max_examples=60)
EXAMPLES = 5
MICROBATCHES = 3
# PyTorch says so whenever kl_div is called with its default.
pytestmark = pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
# PyTorch's mean of no examples is memory that it did not initialise; ours is NaN.
UNINITIALISED = ("multi_margin_loss", "multilabel_margin_loss")
# PyTorch raises for no examples, or no classes.
REFUSES_NONE = ("ctc_loss",)
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def relative(found, expected):
    """The largest error of a gradient, over its largest number."""
    some = {k: g for k, g in expected.items() if g.any()}
    return max(
        (np.abs(found[k] - g).max() / np.abs(g).max() for k, g in some.items()), default=0
    )


def assert_same(theirs, acc, what):
    loss, grads = theirs
    assert_in_step(loss, acc.loss, f"{what}: loss")
    for k, g in grads.items():
        assert_in_step(g, acc.grads[k], f"{what}: gradient of {k}")


def without_labels(batch):
    """All of them ignored."""
    return {
        k: x._replace(value=np.full_like(x.value, x.ignored))
        if k in inputs(batch) and x.ignored is not None
        else x
        for k, x in batch.items()
    }


def joined(pieces):
    def values(k, x):
        if k not in inputs(pieces[0]) or x.axis is None:
            return x
        return x._replace(value=np.concatenate([p[k].value for p in pieces], x.axis))

    return {k: values(k, x) for k, x in pieces[0].items()}


def splits(case, padded=False):
    """Lengths of the pieces, which of them are ignored, and a seed for the numbers."""
    n = MICROBATCHES - 1
    sizes = st.lists(st.integers(0, EXAMPLES), min_size=n, max_size=n).map(
        lambda ends: np.diff([0, *sorted(ends), EXAMPLES]).tolist()
    )
    return st.tuples(sizes, st.sets(st.integers(0, n)), st.integers(0, 9))


def split(case, sizes, ignored, seed):
    """The pieces, some of which hold ignored labels only, and the batch that they make."""
    batch = case.batch(seed, EXAMPLES)
    pieces = cut(batch, sizes)
    pieces = [without_labels(p) if i in ignored else p for i, p in enumerate(pieces)]
    return joined(pieces), pieces


def test_every_loss_has_a_case():
    assert {case.name for case in CASES} == set(NAMES)


def check_ragged(case, drawn, errors):
    batch, pieces = split(case, *drawn)
    params = parameters(batch)
    acc, weights = accumulated(case, pieces, params)
    theirs = of_torch(case, [batch], params)
    if not weights.any():  # PyTorch's gradient is 0 there
        assert np.isnan(theirs[0]) and np.isnan(acc.loss)
        return
    assert_same(theirs, acc, f"{case.id} {drawn}")

    counted = [p for p, w in zip(pieces, weights, strict=True) if w]
    _, means = of_torch(case, counted, params)
    errors.append(relative(means, theirs[1]))
    if np.ptp(weights[weights > 0]) == 0:
        assert errors[-1] < 1e-12


@every_case
def test_ragged_pieces_make_the_whole_batch(case, x64):
    """The verbs, on microbatches of any length; beside them the mean of means."""
    errors = []
    check_ragged(case, ([1, 0, 4], (), 26), errors)
    assert errors[0] > 0.1
    SETTINGS(given(splits(case))(lambda drawn: check_ragged(case, drawn, errors)))()


@pytest.mark.exhaustive
@every_case
def test_more_ragged_pieces(case, x64):
    errors = []
    MANY(given(splits(case))(lambda drawn: check_ragged(case, drawn, errors)))()
    assert max(errors) > 0.2, errors


GRADIENT = optax.GradientTransformation(  # whose state is the gradient that it was given
    init=lambda params: jax.tree.map(jnp.zeros_like, params),
    update=lambda grads, state, params=None: (grads, grads),
)


def padded(pieces, filler):
    """Arrays of shape (k, b, ...), and ``where``, of shape (k, b)."""
    kept = [_length(p) for p in pieces]
    where = np.arange(EXAMPLES)[None] < np.array(kept)[:, None]
    full = [
        arrays_of(joined([p, part(filler, np.arange(n, EXAMPLES))]))
        for p, n in zip(pieces, kept, strict=True)
    ]
    return jax.tree.map(lambda *a: np.stack(a), *full) | {"where": where}


def _length(batch):
    return next(x.value.shape[x.axis] for x in inputs(batch).values() if x.axis is not None)


@every_case
def test_padded_pieces_make_the_whole_batch(case, x64):
    """``make_train_step(accumulate=k)``, with other numbers and labels for padding."""
    like = case.batch(0, EXAMPLES)
    filler = case.batch(10, EXAMPLES)
    train_step = instep.make_train_step(
        loss_fn_of(case), GRADIENT, accumulate=MICROBATCHES, donate=False
    )
    state = instep.init_state(jax.tree.map(jnp.asarray, parameters(like)), GRADIENT)

    @SETTINGS
    @given(splits(case, padded=True))
    def run(drawn):
        batch, pieces = split(case, *drawn)
        shared = {k: x for k, x in batch.items() if k in inputs(batch) and x.axis is None}
        after, metrics = train_step(state, padded(pieces, filler | shared))
        loss, grads = of_torch(case, [batch], parameters(batch))
        if not metrics.weight:
            assert np.isnan(loss) and np.isnan(metrics.loss)
            return
        assert_in_step(loss, metrics.loss, f"{case.id} {drawn}: loss")
        for k, g in grads.items():
            assert_in_step(g, after.opt_state[k], f"{case.id} {drawn}: gradient of {k}")

    run()
    assert train_step._cache_size() == 1


# ------------------------------------------------ shapes: empty, one class, all of them ignored

SHAPES = st.tuples(st.sampled_from([0, 1, 3]), st.sampled_from([0, 1, 3]))
NEEDS_CLASSES = {
    "cross_entropy",
    "ctc_loss",
    "linear_cross_entropy",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "nll_loss",
}


def call_of(case, batch, **more):
    tensors = {k: torch.tensor(x.value) for k, x in inputs(batch).items()}
    for k, x in inputs(batch).items():
        tensors[k].requires_grad_(x.grad)
    args, kwargs = by_position(options(batch) | tensors)
    return Call(case.name, tuple(args), kwargs | more)


def weightless(batch):
    if "weight" not in batch:
        return batch
    w = batch["weight"]
    return batch | {"weight": w._replace(value=np.zeros_like(w.value))}


def check_shape(case, shape, reduction, change):
    call = call_of(case, change(case.batch(0, *shape)), reduction=reduction)
    theirs, ours = value_and_gradients(call, 1), of_ours(call, 1)
    # The cosine of one feature is 1 or -1: its gradient is what rounding leaves of 0.
    at_least = float(case.name == "cosine_embedding_loss")
    for t, o in zip(theirs, ours, strict=True):
        what = f"{call.signature} {change.__name__}"
        assert_in_step(t, o, what, at_least=at_least, finite=False)


def reductions(case):
    return ["mean", "sum", "none"] + ["batchmean"] * (case.name == "kl_div")


def shapes(case):
    def sound(drawn):
        (_, classes), *_ = drawn
        if case.name in NEEDS_CLASSES and not classes:
            return False
        return not (0 in drawn[0] and case.name in (*UNINITIALISED, *REFUSES_NONE))

    changes = st.sampled_from([dict, without_labels, weightless])
    return st.tuples(SHAPES, st.sampled_from(reductions(case)), changes).filter(sound)


@every_case
def test_shapes(case, x64):
    """Value and gradient of each reduction, with the places of NaN and infinity."""
    SETTINGS(given(shapes(case))(lambda drawn: check_shape(case, *drawn)))()


@pytest.mark.exhaustive
@every_case
def test_more_shapes(case, x64):
    MANY(given(shapes(case))(lambda drawn: check_shape(case, *drawn)))()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", [c for c in CASES if c.ignores], ids=lambda case: case.id)
def test_all_ignored(case, reduction, x64):
    check_shape(case, (3, 3), reduction, without_labels)


@pytest.mark.parametrize("name", (*UNINITIALISED, *REFUSES_NONE))
def test_the_mean_of_no_examples_is_nan(name, x64):
    case = next(c for c in CASES if c.name == name)
    args, kwargs = by_position(case_arrays(case, (0, 3)))
    assert np.isnan(case.ours(*args, **kwargs))
    assert case.ours(*args, **kwargs, reduction="sum") == 0
    loss = total_and_weight(case.ours)(*args, **kwargs)
    assert (loss.total, loss.weight) == (0, 0)


@pytest.mark.parametrize("shape", [(1, 3), (3,)])
def test_batchmean_of_a_broadcast_input(shape, x64):
    x, y = torch.zeros(shape), torch.full((4, 3), 0.2)
    call = Call("kl_div", (x, y), {"reduction": "batchmean"})
    assert_in_step(value_and_gradients(call, 0)[0], of_ours(call, 0)[0])


@pytest.mark.parametrize(
    ("name", "shape", "message", "ours"),
    [
        ("ctc_loss", (0, 3), "log_probs tensor must not be empty", None),
        ("multi_margin_loss", (0, 0), "Expected non-empty vector or matrix", "no classes"),
        ("multilabel_margin_loss", (0, 0), "Expected non-empty", "no classes"),
        ("multilabel_margin_loss", (3, 0), "Expected non-empty", "no classes"),
    ],
)
def test_where_torch_raises(name, shape, message, ours, x64):
    case = next(c for c in CASES if c.name == name)
    with pytest.raises(RuntimeError, match=message):
        value_and_gradients(call_of(case, case.batch(0, *shape)), 0)
    if ours is not None:
        args, kwargs = by_position(case_arrays(case, shape))
        with pytest.raises(ValueError, match=ours):
            case.ours(*args, **kwargs)


def case_arrays(case, shape):
    batch = case.batch(0, *shape)
    return options(batch) | arrays_of(batch)


# ---------------------------------------------------------------- total_and_weight by itself

ONES = jnp.ones((4, 3))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_total_over_weight_is_the_mean(case, x64):
    batch = case.batch(1, EXAMPLES)
    args, kwargs = by_position(options(batch) | arrays_of(batch))
    loss = total_and_weight(case.ours)(*args, **kwargs)
    assert_in_step(case.ours(*args, **kwargs), loss.total / loss.weight)

    if case.name == "ctc_loss":  # whose sum is not divided by the numbers of labels
        return
    total = call_of(case, batch | {"reduction": "sum"})
    average = call_of(case, batch)
    (total,), (average,) = (value_and_gradients(call, 0) for call in (total, average))
    assert_in_step(total, loss.total, "total")
    assert_in_step(total / average, loss.weight, "weight")


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("how", ["keyword", "position", "partial"])
def test_reduction_without_a_denominator(reduction, how):
    with pytest.raises(ValueError, match=f"divides a mean or batchmean; got '{reduction}'"):
        if how == "keyword":
            total_and_weight(mse_loss)(ONES, ONES, reduction=reduction)
        elif how == "position":
            total_and_weight(mse_loss)(ONES, ONES, reduction)
        else:
            total_and_weight(partial(mse_loss, reduction=reduction))(ONES, ONES)


def test_reduction_is_read_wherever_it_is_given():
    assert total_and_weight(kl_div)(ONES, ONES).weight == 12
    assert total_and_weight(kl_div)(ONES, ONES, "batchmean").weight == 4
    assert total_and_weight(kl_div)(ONES, ONES, reduction="batchmean").weight == 4
    assert total_and_weight(partial(kl_div, reduction="batchmean"))(ONES, ONES).weight == 4
    assert total_and_weight(mse_loss)(ONES, ONES, "mean").weight == 12
    assert total_and_weight(mse_loss)(ONES, ONES, weight=2 * ONES).weight == 24
    with pytest.raises(ValueError, match="must be 'none', 'mean' or 'sum'; got 'batchmean'"):
        mse_loss(ONES, ONES, "batchmean")


def test_loss_whose_denominator_is_not_known():
    with pytest.raises(TypeError, match="has no argument 'reduction'"):
        total_and_weight(lambda x, y: mse_loss(x, y))
    # jax.jit would keep the first mask as a constant.
    jitted = total_and_weight(jax.jit(mse_loss, static_argnames="reduction"))
    with pytest.raises(ValueError, match="Non-hashable static argument"):
        jitted(ONES, ONES, where=ONES > 0)


@pytest.mark.parametrize("shape", [(), (4,), (4, 3)])
def test_where_has_leading_axes(shape):
    where = jnp.zeros(shape, bool)
    loss = total_and_weight(mse_loss)(ONES, 0 * ONES, where=where)
    assert (loss.total, loss.weight) == (0, 0)
    loss = total_and_weight(mse_loss)(ONES, 0 * ONES, where=~where)
    assert (loss.total, loss.weight) == (12, 12)


@pytest.mark.parametrize("shape", [(3,), (4, 1), (1,), (4, 3, 1)])
def test_where_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"where has shape .*terms .* have shape \(4, 3\)"):
        total_and_weight(mse_loss)(ONES, ONES, where=jnp.ones(shape, bool))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32])
def test_where_is_bool(dtype):
    with pytest.raises(TypeError, match=f"where is {jnp.dtype(dtype)}; it needs bool"):
        total_and_weight(mse_loss)(ONES, ONES, where=jnp.ones(4, dtype))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_total_and_weight_are_float32(case, dtype):
    batch = case.batch(0, EXAMPLES)
    arrays = {
        k: jnp.asarray(x, dtype if np.issubdtype(x.dtype, np.floating) else np.int32)
        for k, x in arrays_of(batch).items()
    }
    args, kwargs = by_position(options(batch) | arrays)
    loss = jax.eval_shape(lambda: total_and_weight(case.ours)(*args, **kwargs))
    assert (loss.total.dtype, loss.weight.dtype) == (jnp.float32, jnp.float32)
    assert loss.total.shape == loss.weight.shape == ()


def test_count_of_many_masked_terms():
    """2^24 + 3 ones, which float32 cannot count one by one."""
    n = 2**24 + 4
    ones = jnp.ones(n, jnp.bfloat16)
    loss = total_and_weight(mse_loss)(ones, ones, where=jnp.arange(n) > 0)
    assert loss.weight == np.float32(n - 1)
