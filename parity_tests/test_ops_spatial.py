"""Convolution, pooling, padding and resampling, where PyTorch's database does not look."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import array, assert_in_step
from instep import ops


NAN, INF = float("nan"), float("inf")


def check(theirs, ours, *inputs):
    """Values, dtypes, shapes and gradients of a function of floating arrays."""
    leaves = [torch.tensor(x, requires_grad=True) for x in inputs]
    expected = theirs(*leaves)
    pair = isinstance(expected, tuple)
    output = expected[0] if pair else expected
    cotangent = images(*output.shape, seed=7)

    def both(*xs):
        made, pull = jax.vjp(ours, *xs)
        first = jnp.asarray(cotangent)
        indices = [np.zeros(x.shape, jax.dtypes.float0) for x in made[1:]] if pair else []
        return made, pull((first, *indices) if pair else first)

    made, pulled = jax.jit(both)(*map(jnp.asarray, inputs))
    for x, y in zip(expected if pair else [expected], made if pair else [made], strict=True):
        assert array(x).dtype == y.dtype and x.shape == y.shape
        assert_in_step(x.double(), np.asarray(y, float), "value", finite=False)
    grads = torch.autograd.grad(output, leaves, torch.tensor(cotangent))
    for x, y in zip(grads, pulled, strict=True):
        assert_in_step(x, y, "gradient", finite=False)


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def ties(*shape):
    return np.random.default_rng(0).integers(0, 2, shape).astype(float)


def holes(*shape):
    """Numbers, infinities and NaN."""
    x = images(*shape)
    for i, value in enumerate((NAN, INF, -INF)):
        x[np.random.default_rng(i).random(shape) < 0.1] = value
    return x


LOW = np.full((1, 1, 6, 6), -INF)


@pytest.mark.parametrize("x", [ties(2, 2, 9, 8), holes(2, 2, 9, 8), LOW], ids=str)
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (3, 2), "stride": 1, "dilation": (1, 3), "ceil_mode": True},
        {"kernel_size": (2, 3), "padding": 1, "dilation": 2, "ceil_mode": True},
    ],
    ids=str,
)
def test_max_pool_chooses_as_pytorch(x, window, x64):
    given = window | {"return_indices": True}
    check(lambda x: F.max_pool2d(x, **given), lambda x: ops.max_pool2d(x, **given), x)


@pytest.mark.parametrize("x", [ties(2, 1, 40), holes(2, 1, 40)], ids=str)
def test_max_pool_with_a_large_window(x, x64):
    given = {"kernel_size": 20, "stride": 7, "padding": 10, "return_indices": True}
    check(lambda x: F.max_pool1d(x, **given), lambda x: ops.max_pool1d(x, **given), x)


@pytest.mark.parametrize("x", [ties(2, 1, 7, 6), holes(2, 1, 7, 6)], ids=str)
@pytest.mark.parametrize("size", [(3, 4), (7, 3), 1])
def test_adaptive_pools(x, size, x64):
    check(
        lambda x: F.adaptive_max_pool2d(x, size, return_indices=True),
        lambda x: ops.adaptive_max_pool2d(x, size, return_indices=True),
        x,
    )
    check(
        lambda x: F.adaptive_avg_pool2d(x, size), lambda x: ops.adaptive_avg_pool2d(x, size), x
    )


@pytest.mark.parametrize("dtype", ["int32", "bfloat16"])
def test_pools_keep_dtypes(dtype, x64):
    x = np.random.default_rng(0).integers(-9, 9, (1, 2, 6, 6))
    tx, jx = torch.tensor(x).to(getattr(torch, dtype)), jnp.asarray(x).astype(dtype)
    pairs = [(F.max_pool2d(tx, 3, 2, 1), ops.max_pool2d(jx, 3, 2, 1))]
    if dtype == "bfloat16":
        pairs.append((F.avg_pool2d(tx, 3, 2, 1), ops.avg_pool2d(jx, 3, 2, 1)))
        pairs.append((F.adaptive_avg_pool2d(tx, 4), ops.adaptive_avg_pool2d(jx, 4)))
    for theirs, ours in pairs:
        assert str(theirs.dtype) == f"torch.{ours.dtype}"
        np.testing.assert_array_equal(theirs.double().numpy(), np.asarray(ours, float))


def test_max_pool_has_a_second_derivative(x64):
    x, v = images(1, 2, 7, 7), images(1, 2, 7, 7, seed=1)
    tx = torch.tensor(x, requires_grad=True)
    [slope] = torch.autograd.grad(F.max_pool2d(tx, 3, 2, 1).pow(3).sum(), tx, create_graph=True)
    [expected] = torch.autograd.grad(slope, tx, torch.tensor(v))

    def loss(x):
        return jnp.sum(ops.max_pool2d(x, 3, 2, 1) ** 3)

    _, made = jax.jvp(jax.grad(loss), (jnp.asarray(x),), (jnp.asarray(v),))
    assert_in_step(expected, made)


def test_avg_pool_of_infinities_and_of_negative_integers(x64):
    given = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}
    for counted in (True, False):
        g = given | {"count_include_pad": counted}
        check(lambda x, g=g: F.avg_pool2d(x, **g), lambda x, g=g: ops.avg_pool2d(x, **g), LOW)
    x = np.random.default_rng(0).integers(-9, 9, (1, 2, 6, 6))
    made = ops.avg_pool2d(jnp.asarray(x), **given)
    np.testing.assert_array_equal(F.avg_pool2d(torch.tensor(x), **given), made)


@pytest.mark.parametrize("kind", [images, ties, holes])
@pytest.mark.parametrize(
    ("shape", "size"), [((2, 3, 9, 8), (4, 3)), ((1, 2, 6, 7, 5), (2, 1, 3))]
)
def test_fractional_max_pool(kind, shape, size, x64):
    u = np.random.default_rng(0).random((*shape[:2], len(size)))
    theirs = F.fractional_max_pool2d if len(size) == 2 else F.fractional_max_pool3d
    samples = torch.tensor(u)
    check(
        lambda x: theirs(x, 2, size, return_indices=True, _random_samples=samples),
        lambda x: ops.fractional_max_pool(x, 2, size, jnp.asarray(u)),
        kind(*shape),
    )


def test_max_unpool(x64):
    x = images(2, 3, 4, 5)
    _, at = F.max_pool2d(torch.tensor(images(2, 3, 8, 10)), 2, return_indices=True)
    check(
        lambda x: F.max_unpool2d(x, at, 2),
        lambda x: ops.max_unpool(x, jnp.asarray(at.numpy()), (8, 10)),
        x,
    )


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("sides", [(2, 1, 0, 3), (-1, 3, 2, -2), (3, -2, -1, 2)], ids=str)
def test_pad(mode, sides, x64):
    x = images(1, 2, 5, 6)
    check(lambda x: F.pad(x, sides, mode), lambda x: ops.pad(x, sides, mode), x)


PLACES = np.array([-3, -1.2, -1, -0.75, -0.5, -0.3, 0, 0.25, 0.5, 0.9, 1, 1.1, 2.6])


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [True, False])
def test_grid_sample_at_edges(mode, padding, corners, x64):
    grid = np.stack(np.meshgrid(PLACES, PLACES[::-1]), -1)[None]
    given = (mode, padding, corners)
    check(
        lambda x, g: F.grid_sample(x, g, *given),
        lambda x, g: ops.grid_sample(x, g, *given),
        images(1, 2, 1 if corners else 4, 5),
        grid,
    )


@pytest.mark.filterwarnings("ignore:Since version 1.3.0")  # of axes of length 1
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (1, 2, 3, 1, 4)], ids=str)
@pytest.mark.parametrize("corners", [True, False])
def test_affine_grid(size, corners, x64):
    n = len(size) - 2
    theta = images(size[0], n, n + 1)
    check(
        lambda t: F.affine_grid(t, size, corners),
        lambda t: ops.affine_grid(t, size, corners),
        theta,
    )


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize("scale", [(2.0, 3.0), (1.7, 0.6), (0.5, 1.0), (2.3, 2.5)], ids=str)
def test_interpolate(mode, scale, x64):
    x = images(1, 2, 7, 6)
    more = [{}, {"recompute_scale_factor": True}, {"antialias": True}]
    for extra in more[: 2 if mode.startswith("nearest") else 3]:
        given = {"scale_factor": scale, "mode": mode, **extra}
        check(
            lambda x, g=given: F.interpolate(x, **g),
            lambda x, g=given: ops.interpolate(x, **g),
            x,
        )


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_nearest_elements_are_those_of_pytorch(mode, x64):
    for length, size in [(3, 7), (25, 49), (49, 7), (49, 48), (41, 82), (7, 70), (93, 31)]:
        x = np.arange(length, dtype=float).reshape(1, 1, -1)
        expected = F.interpolate(torch.tensor(x), size, mode=mode)
        made = ops.interpolate(jnp.asarray(x), size, mode=mode)
        np.testing.assert_array_equal(expected, made, err_msg=f"{length} to {size}")


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_convolutions(x64):
    x, w, b = images(2, 4, 9, 8), images(6, 2, 4, 3, seed=1), images(6, seed=2)
    for given in (
        {"padding": "same", "dilation": (1, 2), "groups": 2},
        {"padding": (1, 0), "stride": (2, 3), "groups": 2},
    ):
        check(
            lambda x, w, b, g=given: F.conv2d(x, w, b, **g),
            lambda x, w, b, g=given: ops.conv2d(x, w, b, **g),
            *(x, w, b),
        )
    w = images(4, 3, 4, 3, seed=1)
    given = {"stride": (3, 2), "padding": (4, 1), "output_padding": (2, 1), "groups": 2}
    check(
        lambda x, w, b: F.conv_transpose2d(x, w, b, **given, dilation=2),
        lambda x, w, b: ops.conv_transpose2d(x, w, b, **given, dilation=2),
        *(x, w, b),
    )
    x, w, b = images(9, 2, 4), images(3, 4, 5, seed=1), images(5, seed=2)
    check(lambda *a: torch.conv_tbc(*a, 1), lambda *a: ops.conv_tbc(*a, 1), *(x, w, b))


def test_fold_sums_where_patches_overlap(x64):
    given = {"kernel_size": (3, 2), "dilation": (1, 2), "padding": (1, 0), "stride": (2, 1)}
    check(lambda x: F.unfold(x, **given), lambda x: ops.unfold(x, **given), holes(2, 3, 7, 6))
    x = images(2, 18, 16)
    check(lambda x: F.fold(x, (7, 6), **given), lambda x: ops.fold(x, (7, 6), **given), x)
