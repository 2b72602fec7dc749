"""instep.schedules.reduce_lr_on_plateau against torch.optim.lr_scheduler.ReduceLROnPlateau."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings, strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau

from instep.schedules import PlateauState, reduce_lr_on_plateau


FIELDS = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
SETTINGS = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    phases=[Phase.explicit, Phase.generate],  # shrinking recompiles
)
STEPS = 40

# Few values, so that ties and plateaus are drawn, and what is no number at all.
metrics = st.lists(
    st.sampled_from([0.0, 1.0, 1.0001, 0.9999, 1.0002, -1.0, 2.0, np.nan, np.inf, -np.inf])
    | st.floats(-2.0, 2.0, allow_subnormal=False),
    min_size=STEPS,
    max_size=STEPS,
)
arguments = st.fixed_dictionaries(
    dict(
        mode=st.sampled_from(["min", "max"]),
        factor=st.sampled_from([0.1, 0.5, 0.9999999]),
        patience=st.integers(0, 4),
        threshold=st.sampled_from([0.0, 1e-4, 0.1, 1.0]),
        threshold_mode=st.sampled_from(["rel", "abs"]),
        cooldown=st.integers(0, 4),
        min_lr=st.sampled_from([0.0, 1e-3, 0.05]),
        eps=st.sampled_from([1e-8, 1e-2]),
    )
)


def walk_torch(base_lrs, arguments, metrics):
    groups = [{"params": [torch.zeros(1)], "lr": lr} for lr in base_lrs]
    optimizer = torch.optim.SGD(groups)
    scheduler = ReduceLROnPlateau(optimizer, **arguments)
    states = []
    for metric in metrics:
        optimizer.step()
        scheduler.step(metric)
        state = {name: getattr(scheduler, name) for name in FIELDS}
        states.append(state | {"lr": [group["lr"] for group in optimizer.param_groups]})
    return states


def assert_same(theirs, ours: PlateauState):
    """Bit for bit: both sides multiply and compare the same float64 numbers."""
    assert np.atleast_1d(ours.lr).tolist() == theirs["lr"]
    for name in FIELDS:
        assert np.asarray(getattr(ours, name)) == theirs[name], name


@SETTINGS
@given(arguments, metrics)
def test_update(arguments, metrics):
    theirs = walk_torch([0.1], arguments, metrics)
    with jax.enable_x64(True):
        plateau = reduce_lr_on_plateau(0.1, **arguments)
        state = plateau.init()
        for expected, metric in zip(theirs, metrics, strict=True):
            state = plateau.update(state, metric)
            assert_same(expected, state)


@pytest.mark.parametrize("min_lr", [0.0, [0.02, 0.0, 0.001]])
def test_groups_eager_scan_and_jit_without_a_retrace(min_lr):
    base_lrs, metrics = [0.1, 0.01, 0.001], [1.0, 0.5, 0.6, np.nan, 0.5, 0.4, 0.4, 0.4, 0.4]
    arguments = dict(patience=1, factor=0.5, min_lr=min_lr, cooldown=1)
    theirs = walk_torch(base_lrs, arguments, metrics)
    with jax.enable_x64(True):
        plateau = reduce_lr_on_plateau(base_lrs, **arguments)
        traces = []

        @jax.jit
        def jitted(state, metric):
            traces.append(metric)
            return plateau.update(state, metric)

        eager = compiled = plateau.init()
        for expected, metric in zip(theirs, metrics, strict=True):
            eager, compiled = plateau.update(eager, metric), jitted(compiled, metric)
            assert_same(expected, eager)
            assert_same(expected, compiled)
        assert len(traces) == 1
        assert eager.lr.shape == (3,)

        scanned, _ = jax.lax.scan(
            lambda state, metric: (plateau.update(state, metric), None),
            plateau.init(),
            jnp.asarray(metrics),
        )
        assert_same(theirs[-1], scanned)
    assert len({tuple(state["lr"]) for state in theirs}) > 2  # it was reduced twice


def test_patience_is_that_of_torch():
    """optax.contrib.reduce_on_plateau(patience=3) would reduce here."""
    plateau = reduce_lr_on_plateau(0.1, patience=3)
    state = plateau.init()
    rates = []
    for metric in [1.0, 1.0, 1.0, 1.0, 1.0]:
        state = plateau.update(state, metric)
        rates.append(float(state.lr))
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.1, 0.1, 0.01], rtol=1e-6)


def test_made_before_x64_is_switched_on():
    plateau = reduce_lr_on_plateau(0.1, patience=0, factor=0.3)
    assert plateau.init().lr.dtype == np.float32
    with jax.enable_x64(True):
        state = plateau.update(plateau.update(plateau.init(), 1.0), 1.0)
        assert state.lr.dtype == np.float64 and state.lr == 0.1 * 0.3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.int32, jnp.bfloat16])
def test_a_metric_of_any_dtype(dtype, x64):
    state = reduce_lr_on_plateau(0.1).init()
    new = reduce_lr_on_plateau(0.1).update(state, jnp.asarray(2, dtype))
    assert new.best == 2.0
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
    assert jax.tree.map(jnp.result_type, new) == jax.tree.map(jnp.result_type, state)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(factor=1.0), "factor must be < 1; got factor=1.0"),
        (dict(mode="least"), "mode must be one of .*'min', 'max'.*; got mode='least'"),
        (dict(threshold_mode="none"), "threshold_mode='none'"),
        (dict(patience=-1), "patience must be an integer >= 0; got patience=-1"),
        (dict(base_lr=[0.1, 0.2], min_lr=[0.0]), r"got base_lr=\[0.1, 0.2\], min_lr=\[0.0\]"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        reduce_lr_on_plateau(**{"base_lr": 0.1} | arguments)
