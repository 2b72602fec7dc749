"""instep.losses against torch.nn.functional: values and gradients."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import instep
from conftest import assert_in_step
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


@pytest.mark.parametrize("label", [10, 5, -1, -101])
def test_label_out_of_range_is_an_error_or_nan_never_a_clamped_class(label):
    x, y = jnp.zeros((2, 5)), jnp.array([0, label])
    with pytest.raises(ValueError, match=rf"labels \[{label}\] are out of range for 5 classes"):
        cross_entropy(x, y)
    assert jnp.isnan(jax.jit(cross_entropy)(x, y))
    assert jnp.isnan(jax.jit(cross_entropy)(x, y, jnp.ones(5)))
    assert jnp.isnan(jax.jit(lambda x, y: cross_entropy(x, y, label_smoothing=0.1))(x, y))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: cross_entropy(x, jnp.zeros((3,), int)), r"have shape \(2,\); got \(3,\)"),
        (lambda x: cross_entropy(x, jnp.zeros((2, 4))), r"need the shape of logits, \(2, 5\)"),
        (lambda x: cross_entropy(x, jnp.zeros(2, int), jnp.ones(4)), r"\(4,\); there are 5"),
        (lambda x: cross_entropy(x, jnp.zeros(2, int), reduction="avg"), "got 'avg'"),
        (lambda x: cross_entropy(x, jnp.zeros(2, int), label_smoothing=2), "in .0, 1.; got 2"),
        (lambda x: mse_loss(x, jnp.zeros((2, 1))), r"target has shape \(2, 1\), input has"),
        (lambda x: mse_loss(x, x, weight=jnp.ones(5)), r"weight has shape \(5,\)"),
        (lambda x: instep.losses.mse_loss(x, x, reduction="max"), "got 'max'"),
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
