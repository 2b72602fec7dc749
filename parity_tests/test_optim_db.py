"""Every configuration of torch.optim's own test database, against torch.optim."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import instep
from conftest import assert_in_step
from instep.bridge import tensor_to_array
from instep.parity._judge import rms_distance, ulp
from instep.parity._tolerance import ROUNDING_FACTOR, ROUNDING_ULPS
from optimizers import (
    as_array,
    batch,
    case_id,
    cases,
    give_gradients,
    jax_gradients,
    optim_db,
    standing,
    start,
    torch_gradients,
    touched,
)


STEPS = 100


@pytest.fixture(autouse=True)
def _same_newton_schulz(request, monkeypatch):
    """Muon in PyTorch with our iteration: its bfloat16 rounding is compared by itself."""
    if "newton_schulz" in request.node.name:
        return

    def shared(grad, coefficients, steps, eps):
        made = instep.optim._muon.newton_schulz(as_array(grad), coefficients, steps, eps)
        return torch.from_numpy(np.array(made.astype(jnp.float32))).bfloat16()

    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", shared)


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_float64_100_steps(case, x64):
    """Each side with its own gradients; every parameter and every state tensor."""
    p = {n: torch.tensor(v, requires_grad=True) for n, v in start(case.name).items()}
    optimizer = case.torch(p.values(), **case.options)

    params = jax.tree.map(jnp.asarray, start(case.name))
    tx = optax.with_extra_args_support(case.ours)
    opt_state, update = tx.init(params), tx.update
    if case.name != "Muon":  # the iteration in bfloat16 is to be the same to the bit
        update = jax.jit(update)
    largest = {}  # so far, of every scalar: it passes through zero

    def compare(theirs, ours, leaf):
        theirs = torch.as_tensor(theirs, dtype=torch.float64).detach()
        if not theirs.ndim:
            largest[leaf] = max(largest.get(leaf, 0.0), abs(theirs.item()))
        assert_in_step(
            theirs, ours.astype(float), f"step {step}: {leaf}", largest.get(leaf, 0.0)
        )

    for step in range(STEPS):
        rows = touched(case.name, step)
        give_gradients(p, torch_gradients(p, step), rows)
        optimizer.step()

        grads = jax_gradients(params, *batch(step))
        updates, opt_state = update(grads, opt_state, params, touched=rows)
        params = optax.apply_updates(params, updates)

        for n in p:
            compare(p[n], params[n], n)
            slots = optimizer.state[p[n]]
            ours = {s: tree[n] for s, tree in opt_state.slots.items() if tree[n] is not None}
            assert ours.keys() - {"started"} == slots.keys()
            for slot, value in slots.items():
                compare(value, ours[slot], f"{slot} of {n}")
    moved = any(not np.array_equal(params[n], v) for n, v in start(case.name).items())
    assert moved == (case.options.get("lr") != 0.0)


def implementations(case) -> list[dict]:
    """PyTorch's own ways to compute the same on the CPU, the reference first."""
    (info,) = [info for info in optim_db if info.optim_cls is case.torch]
    fused = "fused" in info.supported_impls and "cpu" in info.supports_fused_on
    flags = [f for f in ("foreach", "fused") if f in info.supported_impls]
    single = dict.fromkeys(flags, False)
    return [single, *(single | {f: True} for f in flags if f != "fused" or fused)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_low_precision_every_step_from_where_torch_stands(case, dtype):
    """float32: 4 ulp of the leaf's maximum, or twice the distance between PyTorch's own
    implementations of the same step. bfloat16: 1 ulp."""
    single, *others = implementations(case)
    p = {
        n: torch.tensor(v, dtype=dtype, requires_grad=True) for n, v in start(case.name).items()
    }
    optimizer = case.torch(p.values(), **case.options, **single)
    tx = optax.with_extra_args_support(case.ours)
    opt_state, update = tx.init({n: as_array(v) for n, v in p.items()}), tx.update
    if case.name != "Muon":
        update = jax.jit(update)
    largest = dict.fromkeys(p, 0.0)  # so far: a scalar passes through zero
    for step in range(STEPS // 4):
        before = {n: v.detach().clone() for n, v in p.items()}
        saved = copy.deepcopy(optimizer.state_dict())
        rows = touched(case.name, step)
        grads = torch_gradients(p, step)
        give_gradients(p, grads, rows)
        optimizer.step()

        params = {n: as_array(v) for n, v in before.items()}
        ours = {n: as_array(g) for n, g in grads.items()}
        updates, _ = update(ours, opt_state, params, touched=rows)
        params = optax.apply_updates(params, updates)
        opt_state = standing(opt_state, optimizer, p)

        for n in p:
            theirs = p[n].detach().double().numpy()
            largest[n] = max(largest[n], abs(theirs).max())
            one_ulp = ulp(largest[n], tensor_to_array(p[n]))
            error = abs(np.asarray(params[n], np.float64) - theirs).max()
            bound = one_ulp * (4 if dtype is torch.float32 else 1)
            if error > bound and dtype is torch.float32:
                bound = 2 * max(
                    abs(one_step(case, how, before, saved, grads, rows)[n] - theirs).max()
                    for how in others
                )
            assert error <= bound, f"step {step}: {n}: {error / one_ulp:.2f} ulp"


def one_step(case, how, before, saved, grads, rows) -> dict[str, np.ndarray]:
    """The step of another of PyTorch's implementations."""
    p = {n: v.clone() for n, v in before.items()}
    optimizer = case.torch(p.values(), **case.options, **how)
    flags = {k: v for k, v in optimizer.param_groups[0].items() if k in ("foreach", "fused")}
    optimizer.load_state_dict(saved)
    optimizer.param_groups[0].update(flags)
    give_gradients(p, grads, rows)
    optimizer.step()
    return {n: v.double().numpy() for n, v in p.items()}


@pytest.mark.parametrize("shape", [(5, 5), (12, 5), (5, 12), (64, 32)])
@pytest.mark.parametrize("steps", [1, 5])
def test_newton_schulz_rounds_no_worse_than_torch(shape, steps):
    """The iteration itself, in bfloat16, against the same polynomial in float64."""
    a, b, c = coefficients = (3.4445, -4.7750, 2.0315)
    given = torch.tensor(np.random.default_rng(0).normal(size=shape), dtype=torch.float32)
    x = given.bfloat16().double().numpy()
    exact = x / np.linalg.norm(x)
    for _ in range(steps):
        gram = exact @ exact.T
        exact = a * exact + (b * gram + c * gram @ gram) @ exact
    theirs = torch.optim._muon._zeropower_via_newtonschulz(given, coefficients, steps, 1e-7)
    ours = jax.jit(instep.optim._muon.newton_schulz, static_argnums=(1, 2, 3))(
        as_array(given), coefficients, steps, 1e-7
    )
    errors = [rms_distance(tensor_to_array(theirs).astype(float), exact)]
    errors.append(rms_distance(np.asarray(ours, float), exact))
    bound = ROUNDING_FACTOR * errors[0] + ROUNDING_ULPS * ulp(
        abs(exact).max(), np.asarray(ours)
    )
    assert errors[1] <= bound, f"{errors[1]:.3g} > {bound:.3g} (torch {errors[0]:.3g})"
