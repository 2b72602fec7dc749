"""instep.losses against torch.nn.functional: values and gradients."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jax.experimental.checkify import JaxRuntimeError

import instep
from conftest import assert_bitwise, assert_in_step
from instep import losses
from instep.losses import cross_entropy, mse_loss


RNG = np.random.default_rng(0)
SHAPES = {"C": (5,), "NC": (6, 5), "NCd": (3, 5, 4), "NCdd": (2, 5, 3, 4)}
WEIGHTS = {"plain": None, "weighted": RNG.uniform(0.1, 2.0, size=5)}
IGNORE = {"all kept": None, "some ignored": 2, "default ignored": -100}
REDUCTIONS = ("mean", "sum", "none")
SMOOTHING = (0.0, 0.1, 1.0)


def labels_for(shape, ignored):
    axis = 0 if len(shape) == 1 else 1
    rest = shape[:axis] + shape[axis + 1 :]
    labels = np.random.default_rng(1).integers(0, 5, size=rest) if rest else np.array(3)
    if ignored == -100 and labels.ndim:
        labels = np.where(np.random.default_rng(2).random(labels.shape) < 0.3, -100, labels)
    return labels


def torch_value_and_grad(loss_fn, x):
    x = torch.tensor(x, requires_grad=True)
    loss = loss_fn(x)
    cotangent = np.random.default_rng(3).normal(size=loss.shape)
    loss.backward(torch.tensor(cotangent))
    return loss, x.grad, cotangent


def assert_same(torch_loss, jax_loss, x):
    loss, grad, cotangent = torch_value_and_grad(torch_loss, x)
    ours, vjp = jax.vjp(jax.jit(jax_loss), jnp.asarray(x))
    assert_in_step(loss, ours, "loss")
    assert_in_step(grad, vjp(jnp.asarray(cotangent))[0], "gradient")


@pytest.mark.parametrize(
    ("shape", "weight", "ignore", "reduction", "smoothing"),
    list(product(SHAPES, WEIGHTS, IGNORE, REDUCTIONS, SMOOTHING)),
)
def test_cross_entropy_with_indices(shape, weight, ignore, reduction, smoothing, x64):
    x = np.random.default_rng(4).normal(size=SHAPES[shape])
    y = labels_for(SHAPES[shape], IGNORE[ignore])
    w = WEIGHTS[weight]
    options = {"reduction": reduction, "label_smoothing": smoothing}
    if IGNORE[ignore] is not None:
        options["ignore_index"] = IGNORE[ignore]
    tw = None if w is None else torch.tensor(w)
    jw = None if w is None else jnp.asarray(w)
    assert_same(
        lambda x: F.cross_entropy(x, torch.tensor(y), weight=tw, **options),
        lambda x: cross_entropy(x, jnp.asarray(y), weight=jw, **options),
        x,
    )


@pytest.mark.parametrize(
    ("shape", "weight", "reduction", "smoothing"),
    list(product(SHAPES, WEIGHTS, REDUCTIONS, SMOOTHING)),
)
def test_cross_entropy_with_probabilities(shape, weight, reduction, smoothing, x64):
    x = np.random.default_rng(5).normal(size=SHAPES[shape])
    q = np.random.default_rng(6).dirichlet(np.ones(5), size=x.size // 5)
    axis = 0 if x.ndim == 1 else 1
    q = np.moveaxis(q.reshape(*x.shape[:axis], *x.shape[axis + 1 :], 5), -1, axis)
    w = WEIGHTS[weight]
    options = {"reduction": reduction, "label_smoothing": smoothing}
    assert_same(
        lambda x: F.cross_entropy(
            x, torch.tensor(q), weight=None if w is None else torch.tensor(w), **options
        ),
        lambda x: cross_entropy(
            x, jnp.asarray(q), weight=None if w is None else jnp.asarray(w), **options
        ),
        x,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", ["plain", "weighted"])
def test_mse_loss(reduction, weight, x64):
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(2, 4, 3))
    w = None if weight == "plain" else rng.uniform(size=(4, 3))
    assert_same(
        lambda x: F.mse_loss(
            x,
            torch.tensor(y),
            reduction=reduction,
            weight=None if w is None else torch.tensor(w),
        ),
        lambda x: mse_loss(x, y, reduction, weight=None if w is None else jnp.asarray(w)),
        x,
    )


def test_logarithms_next_to_one_and_zero(x64):
    """log1p: 1 - x is 1 for a small probability, and the loss would be 0."""
    x = np.array([1e-20, 1e-12])
    assert_same(
        lambda x: F.binary_cross_entropy(x, torch.zeros(2), reduction="none"),
        lambda x: losses.binary_cross_entropy(x, jnp.zeros(2), reduction="none"),
        x,
    )


def test_nll_loss_ignores_minus_100(x64):
    assert_same(
        lambda x: F.nll_loss(x, torch.tensor([0, -100])),
        lambda x: losses.nll_loss(x, jnp.array([0, -100])),
        ROWS,
    )


def test_ctc_loss_of_the_last_class_for_blank(x64):
    y, lengths = np.array([[1, 2], [3, 3]]), np.array([4, 3])
    assert_same(
        lambda x: F.ctc_loss(x, *map(torch.tensor, (y, lengths, [2, 2])), blank=4),
        lambda x: losses.ctc_loss(x, y, lengths, (2, 2), blank=4),
        LOGP,
    )


def test_gradient_of_pos_weight_which_pytorch_refuses(x64):
    """The formula, written in PyTorch."""
    x, y = np.random.default_rng(16).normal(size=(2, 4, 3))

    def formula(p):
        log, other = F.logsigmoid(torch.tensor(x)), F.logsigmoid(-torch.tensor(x))
        return -(p * torch.tensor(y) * log + (1 - torch.tensor(y)) * other).mean()

    assert_same(
        formula,
        lambda p: losses.binary_cross_entropy_with_logits(x, y, pos_weight=p),
        np.array([0.5, 1.0, 3.0]),
    )


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4)])
def test_batchmean_divides_by_the_first_axis_only(shape, x64):
    x, y = np.random.default_rng(17).uniform(0.1, 1.0, (2, *shape))
    assert_same(
        lambda x: F.kl_div(x, torch.tensor(y), reduction="batchmean"),
        lambda x: losses.kl_div(x, y, "batchmean"),
        x,
    )


def test_nothing_to_average_is_nan_as_in_torch(x64):
    ignored = np.full(3, -100)
    x = np.ones((3, 5))
    assert F.cross_entropy(torch.tensor(x), torch.tensor(ignored)).isnan()
    assert jnp.isnan(cross_entropy(jnp.asarray(x), jnp.asarray(ignored)))
    assert F.cross_entropy(torch.tensor(x), torch.tensor(ignored), reduction="sum") == 0
    assert cross_entropy(jnp.asarray(x), jnp.asarray(ignored), reduction="sum") == 0


def test_bfloat16_logits_are_computed_in_float32():
    x = np.random.default_rng(8).normal(size=(64, 1000)) * 5
    y = np.random.default_rng(9).integers(0, 1000, size=64)
    ours = cross_entropy(jnp.asarray(x, jnp.bfloat16), y)
    assert ours.dtype == jnp.bfloat16
    theirs = F.cross_entropy(torch.tensor(x).bfloat16(), torch.tensor(y))
    ulp = float(jnp.finfo(jnp.bfloat16).eps) * 2.0 ** np.floor(np.log2(theirs.item()))
    assert abs(float(ours) - theirs.item()) <= ulp


ROWS = np.random.default_rng(10).normal(size=(2, 5))
LOGP = np.log(np.random.default_rng(11).dirichlet(np.ones(5), size=(4, 2)))
WEIGHT = np.random.default_rng(12).normal(size=(5, 5))

# A loss of floating numbers and of values that may be wrong; what it says of these.
VALUES = {
    "cross_entropy": (cross_entropy, ROWS, [0, 7], r"labels \[7\] are out of range for 5"),
    "cross_entropy, below": (cross_entropy, ROWS, [0, -1], r"labels \[-1\] are out of range"),
    "cross_entropy, weighted": (
        lambda x, y: cross_entropy(x, y, jnp.ones(5), reduction="sum"),
        ROWS,
        [0, 5],
        r"labels \[5\] are out of range",
    ),
    "cross_entropy, smoothed": (
        lambda x, y: cross_entropy(x, y, label_smoothing=0.1, reduction="sum"),
        ROWS,
        [0, -101],
        r"labels \[-101\] .* Labels are 0 to 4, or ignore_index=-100",
    ),
    "nll_loss": (losses.nll_loss, ROWS, [5, 0], r"target \[5\]"),
    "linear_cross_entropy": (
        lambda x, y: losses.linear_cross_entropy(x, jnp.asarray(WEIGHT), y, chunk_size=2),
        ROWS,
        [0, 5],
        r"target \[5\] are out of range for 5",
    ),
    "multi_margin_loss": (
        losses.multi_margin_loss,
        ROWS,
        [-1, 0],
        r"target \[-1\] .* 0 to 4\.",
    ),
    "multilabel_margin_loss": (
        losses.multilabel_margin_loss,
        ROWS,
        [[0, 5, -1, -1, -1], [1, 2, -1, 0, 0]],
        r"target \[5\] are out of range for 5 classes",
    ),
    "ctc_loss": (
        lambda x, y: losses.ctc_loss(x, y, (4, 4), (2, 1)),
        LOGP,
        [[1, 9], [1, 0]],
        r"targets \[9\] are not 0 to 4",
    ),
    "ctc_loss, steps": (
        lambda x, n: losses.ctc_loss(x, jnp.array([[1, 2], [1, 2]]), n, (2, 1)),
        LOGP,
        [4, 5],
        r"input_lengths \[5\] are not 0 to 4",
    ),
    "ctc_loss, labels of one": (
        lambda x, n: losses.ctc_loss(x, jnp.array([1, 2, 1]), (4, 4), n),
        LOGP,
        [2, 2],
        r"target_lengths \[2\] are more than the targets have",
    ),
    "gaussian_nll_loss": (
        lambda x, v: losses.gaussian_nll_loss(x, jnp.zeros((2, 5)), v),
        ROWS,
        np.where(ROWS > 0.5, -0.5, 0.5),
        r"var \[-0\.5\] is negative",
    ),
}


@pytest.mark.parametrize(("loss", "x", "values", "message"), VALUES.values(), ids=VALUES)
def test_a_value_out_of_range_is_an_error_or_nan_never_clamped(loss, x, values, message):
    x, values = jnp.asarray(x), jnp.asarray(values)
    with pytest.raises(ValueError, match=message):
        loss(x, values)
    value, grad = jax.jit(jax.value_and_grad(loss))(x, values)
    assert jnp.isnan(value) and jnp.isnan(grad).any()
    with pytest.raises(JaxRuntimeError, match=message):
        losses.checked(jax.value_and_grad(loss))(x, values)


def test_a_probability_out_of_range_is_an_error_or_nan():
    y = jnp.ones(3)

    def loss(x):
        return losses.binary_cross_entropy(x, y)

    for wrong in (-0.5, 1.5):
        x = jnp.array([0.5, wrong, 1.0])
        message = rf"input \[{wrong}\] is not in \[0, 1\]. Take the sigmoid"
        with pytest.raises(ValueError, match=message):
            loss(x)
        value, grad = jax.jit(jax.value_and_grad(loss))(x)
        assert jnp.isnan(value) and jnp.isnan(grad[1])
        with pytest.raises(JaxRuntimeError, match=message):
            losses.checked(loss)(x)


def test_checked_names_the_label_of_a_fused_step():
    """In accumulation, and with the legal labels that it lets pass."""

    def loss_fn(params, batch):
        return losses.total_and_weight(cross_entropy)(batch[0] @ params["w"], batch[1])

    tx = instep.optim.sgd(0.1)
    state = instep.init_state({"w": jnp.zeros((3, 5))}, tx)
    train_step = instep.make_train_step(loss_fn, tx, accumulate=2, donate=False)
    batch = instep.split((jnp.ones((4, 3)), jnp.array([0, 4, -100, 1])), 2)
    expected, _ = train_step(state, batch)
    got, _ = losses.checked(train_step)(state, batch)
    assert_bitwise(expected.params, got.params)
    wrong = (batch[0], batch[1].at[1, 0].set(11))
    _, metrics = train_step(state, wrong)
    assert jnp.isnan(metrics.loss)
    with pytest.raises(JaxRuntimeError, match=r"labels \[11\] are out of range for 5 classes"):
        losses.checked(train_step)(state, wrong)


def test_a_step_has_no_effects_that_slow_its_calls():
    """JAX calls a program with effects, such as checks, through Python: 190 us for 24."""

    def loss_fn(params, batch):
        return cross_entropy(batch[0] @ params["w"], batch[1])

    tx = instep.optim.sgd(0.1)
    state = instep.init_state({"w": jnp.zeros((3, 5))}, tx)
    batch = jnp.ones((4, 3)), jnp.array([0, 4, -100, 1])
    step = instep.make_train_step(loss_fn, tx, donate=False)
    assert not step.trace(state, batch).jaxpr.effects
    losses.checked(step)(state, batch)
    assert not step.trace(state, batch).jaxpr.effects  # nor has it afterwards


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "multi_margin_loss"])
@pytest.mark.parametrize(
    "how", [lambda f: f, jax.jit, losses.checked], ids=["eager", "jit", "checked"]
)
def test_labels_of_fewer_bits_than_the_number_of_classes(name, dtype, how, x64):
    """As a uint8, 299 is 43 and -100 is the label 156; as an int8, 299 is 43 as well."""
    x = np.random.default_rng(13).normal(size=(3, 300))
    y = np.array([0, 156, 255] if dtype is np.uint8 else [0, 100, 127], dtype)
    theirs = getattr(F, name)(torch.tensor(x), torch.tensor(y).long())
    ours = how(getattr(losses, name))
    assert_in_step(theirs, ours(jnp.asarray(x), jnp.asarray(y)))
    assert_in_step(theirs, ours(jnp.asarray(x), y))


def test_multilabel_margin_of_labels_without_a_sign(x64):
    x = np.random.default_rng(14).normal(size=(2, 3))
    y = np.array([[1, 0, 2], [2, 2, 1]])
    theirs = F.multilabel_margin_loss(torch.tensor(x), torch.tensor(y))
    assert_in_step(theirs, losses.multilabel_margin_loss(x, y.astype(np.uint8)))


@pytest.mark.parametrize("how", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("flat", [False, True], ids=["rows", "one after the other"])
def test_ctc_of_lengths_of_eight_bits(flat, how, x64):
    """Two states for each of 70 labels are more than an int8 counts, and so are 300 classes."""
    rng = np.random.default_rng(15)
    x = rng.normal(size=(200, 2, 300))
    x -= np.log(np.exp(x).sum(-1, keepdims=True))
    y, n_steps, n_labels = (
        rng.integers(1, 127, (2, 70)),
        np.array([110, 127]),
        np.array([70, 66]),
    )
    if flat:
        y = np.concatenate([row[:n] for row, n in zip(y, n_labels, strict=True)])
    theirs = F.ctc_loss(*map(torch.tensor, (x, y, n_steps, n_labels)))
    eight_bits = (a.astype(np.int8) for a in (y, n_steps, n_labels))
    assert_in_step(theirs, how(losses.ctc_loss)(x, *eight_bits))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: cross_entropy(x, jnp.zeros((3,), int)), r"have shape \(2,\); got \(3,\)"),
        (
            lambda x: cross_entropy(x, jnp.zeros((2, 4))),
            r"need the shape of the logits, \(2, 5\)",
        ),
        (lambda x: cross_entropy(x, jnp.zeros(2, int), jnp.ones(4)), r"\(4,\); there are 5"),
        (lambda x: cross_entropy(x, jnp.zeros(2, int), reduction="avg"), "got 'avg'"),
        (lambda x: cross_entropy(x, jnp.zeros(2, int), label_smoothing=2), "in .0, 1.; got 2"),
        (lambda x: mse_loss(x, jnp.zeros((2, 1))), r"target has shape \(2, 1\), input has"),
        (lambda x: mse_loss(x, x, weight=jnp.ones(5)), r"weight has shape \(5,\)"),
        (lambda x: instep.losses.mse_loss(x, x, reduction="max"), "got 'max'"),
        (lambda x: losses.huber_loss(x, x, delta=0.0), "delta must be positive; got 0"),
        (lambda x: losses.smooth_l1_loss(x, x, beta=-1.0), "beta must not be negative; got -1"),
        (lambda x: losses.multi_margin_loss(x, jnp.zeros(2, int), p=3), "1 or 2; got 3"),
        (lambda x: losses.triplet_margin_loss(x, x, x, margin=0.0), "must be positive; got 0"),
        (lambda x: losses.triplet_margin_loss(x, x, x[0]), r"\(2, 5\), \(2, 5\) and \(5,\)"),
        (lambda x: losses.margin_ranking_loss(x, x, x[0]), r"\(2, 5\), \(2, 5\) and \(5,\)"),
        (lambda x: losses.cosine_embedding_loss(x, x, x), r"got \(2, 5\) and \(2, 5\)"),
        (lambda x: losses.gaussian_nll_loss(x, x, jnp.ones(5)), r"var has shape \(5,\)"),
        (lambda x: losses.multilabel_soft_margin_loss(x, x[:1]), r"target has shape \(1, 5\)"),
        (lambda x: losses.ctc_loss(x, jnp.ones(1, int), 2, 1, blank=5), r"in \[0, 5\); got 5"),
        (lambda x: losses.ctc_loss(x, jnp.ones(1, int), 2.0, 1), "got float64 of shape"),
        (
            lambda x: losses.ctc_loss(x, jnp.ones(1, int), -1, 1),
            r"input_lengths \[-1\] are not 0 to 2",
        ),
        (lambda x: losses.ctc_loss(x, jnp.ones((2, 1), int), 2, 1), r"N=1; got \(2, 1\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((2, 5)))


def test_mse_takes_the_wider_dtype_and_refuses_integers():
    x, y = jnp.ones(2, jnp.bfloat16), jnp.zeros(2)
    theirs = F.mse_loss(torch.ones(2).bfloat16(), torch.zeros(2))
    assert mse_loss(x, y).dtype == jnp.float32 and theirs.dtype is torch.float32
    with pytest.raises(TypeError, match="input and target are int32"):
        mse_loss(jnp.ones(2, int), jnp.ones(2, int))
