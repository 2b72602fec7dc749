"""instep.ops against torch.nn.functional."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import assert_in_step
from instep.ops import batch_norm


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 5, 2)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("axis", [1, -1])
def test_batch_norm(shape, training, affine, axis, x64):
    rng = np.random.default_rng(0)
    x, mean, var = rng.normal(size=shape) + 3, rng.normal(size=3), rng.uniform(1, 2, size=3)
    w, b = (rng.normal(size=(2, 3))) if affine else (None, None)
    cotangent = rng.normal(size=shape)

    tx = torch.tensor(x, requires_grad=True)
    tw, tb = (torch.tensor(v, requires_grad=True) for v in (w, b)) if affine else (None, None)
    tmean, tvar = torch.tensor(mean), torch.tensor(var)
    out = F.batch_norm(tx, tmean, tvar, tw, tb, training, momentum=0.3, eps=1e-3)
    out.backward(torch.tensor(cotangent))

    def to_axis(a):
        return np.moveaxis(a, 1, axis)

    def forward(x, w, b):
        y, m, v = batch_norm(x, mean, var, w, b, training, momentum=0.3, eps=1e-3, axis=axis)
        return y, (m, v)

    args = jnp.asarray(to_axis(x)), *(None if v is None else jnp.asarray(v) for v in (w, b))
    y, vjp, (m, v) = jax.vjp(forward, *args, has_aux=True)
    dx, dw, db = vjp(jnp.asarray(to_axis(cotangent)))
    assert_in_step(to_axis(out.detach().numpy()), y, "output")
    assert_in_step(tmean, m, "running_mean")
    assert_in_step(tvar, v, "running_var")
    assert_in_step(to_axis(tx.grad.numpy()), dx, "input gradient")
    if affine:
        assert_in_step(tw.grad, dw, "weight gradient")
        assert_in_step(tb.grad, db, "bias gradient")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_batch_norm_in_half_precision_keeps_dtypes_and_sums_in_float32(dtype):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(64, 3)) * 30
    tx = torch.tensor(x).to(getattr(torch, dtype))
    mean, var = torch.zeros(3), torch.ones(3)
    theirs = F.batch_norm(tx, mean, var, torch.ones(3), torch.zeros(3), training=True)
    ours, m, v = batch_norm(
        jnp.asarray(x, dtype), jnp.zeros(3), jnp.ones(3), jnp.ones(3), jnp.zeros(3), True
    )
    assert ours.dtype == dtype and m.dtype == v.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(ours, float), theirs.double().numpy())
    np.testing.assert_allclose(v, var.numpy(), rtol=float(jnp.finfo(jnp.float32).eps) * 8)


def test_batch_norm_bad_input():
    x, s = jnp.ones((1, 3)), jnp.ones(3)
    with pytest.raises(ValueError, match=r"more than one value per channel.*\(1, 3\) has 1"):
        batch_norm(x, s, s, training=True)
    with pytest.raises(ValueError, match="needs running_mean and running_var"):
        batch_norm(x, None, None)
