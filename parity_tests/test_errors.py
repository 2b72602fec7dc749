"""Bad input: an error that names the values and the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import instep


PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
TX = optax.sgd(0.1)


def ok(params, batch):
    return (batch @ params["w"] + params["b"]).mean()


def run(loss_fn, params=PARAMS, batch=None, accumulate=1, buffers=None):
    batch = np.ones((4, 3), "f") if batch is None else batch
    state = instep.init_state(params, TX, buffers)
    return instep.make_train_step(loss_fn, TX, accumulate=accumulate)(state, batch)


def stateful(returned):
    return lambda params, buffers, batch, rng: instep.Loss(ok(params, batch), buffers=returned)


CASES = {
    # split and stack
    "split not divisible": (
        lambda: instep.split(np.ones((10, 2)), 4),
        ValueError,
        r"10 examples cannot be split into k=4.*10 % 4 = 2.*Take 8 examples, or pad to 12",
    ),
    "split into none": (
        lambda: instep.split(np.ones((4, 2)), 0),
        ValueError,
        r"k must be at least 1; got k=0",
    ),
    "split of different leading sizes": (
        lambda: instep.split({"x": np.ones((8, 2)), "y": np.ones(6)}, 2),
        ValueError,
        r"different leading sizes: \{'x': 8, 'y': 6\}",
    ),
    "split of a scalar leaf": (
        lambda: instep.split({"x": np.ones(4), "lr": 0.1}, 2),
        ValueError,
        r"leaves \['lr'\] of the batch are scalars.*Broadcast",
    ),
    "split of nothing": (
        lambda: instep.split({}, 2),
        ValueError,
        r"the batch has no leaves: \{\}",
    ),
    "stack of nothing": (lambda: instep.stack([]), ValueError, r"nothing to stack"),
    "stack of ragged microbatches": (
        lambda: instep.stack([np.ones((4, 2)), np.ones((3, 2))]),
        ValueError,
        r"microbatch 1 has shapes \{'': \(3, 2\)\}.*drop_last=True.*weight 0",
    ),
    # the leading axis of an accumulated batch
    "leading axis is not accumulate": (
        lambda: run(ok, batch=np.ones((8, 3), "f"), accumulate=4),
        ValueError,
        r"accumulate=4.*\(4, b, \.\.\.\); found \{'': \(8, 3\)\}.*instep.split\(batch, 4\)",
    ),
    "accumulate below 1": (
        lambda: run(ok, accumulate=0),
        ValueError,
        r"accumulate must be at least 1; got 0",
    ),
    # the signature of the loss function
    "loss_fn of one parameter": (
        lambda: run(lambda params: 0.0),
        TypeError,
        r"\(params, batch\) or loss_fn\(params, buffers, batch, rng\).*takes 1 .*\(params\)",
    ),
    "loss_fn of three parameters": (
        lambda: run(lambda params, batch, rng: 0.0),
        TypeError,
        r"takes 3 positional parameters: \(params, batch, rng\).*functools.partial",
    ),
    "loss_fn with *args": (
        lambda: run(lambda *args: 0.0),
        TypeError,
        r"found \(\*args\).*Write the parameters out",
    ),
    "loss_fn without a signature": (lambda: run(min), TypeError, r"signature of <built-in"),
    # what it returns
    "loss_fn returns a tuple": (
        lambda: run(lambda params, batch: (ok(params, batch), {"acc": 1.0})),
        TypeError,
        r"returned a tuple of 2.*instep.Loss\(total, weight=..., buffers=..., metrics=...\)",
    ),
    "loss_fn returns a vector": (
        lambda: run(lambda params, batch: batch @ params["w"]),
        TypeError,
        r"total of the loss has shape \(4, 2\), not \(\).*loss.mean\(\)",
    ),
    "loss_fn returns one element": (
        lambda: run(lambda params, batch: ok(params, batch)[None]),
        TypeError,
        r"total of the loss has shape \(1,\)",
    ),
    "loss_fn returns a complex number": (
        lambda: run(lambda params, batch: ok(params, batch) + 1j),
        TypeError,
        r"the loss has dtype complex64",
    ),
    "loss_fn returns None": (
        lambda: run(lambda params, batch: None),
        TypeError,
        r"total of the loss is a NoneType",
    ),
    "loss_fn returns an integer": (
        lambda: run(lambda params, batch: jnp.argmax(params["b"])),
        TypeError,
        r"the loss has dtype int32",
    ),
    "weight is a vector": (
        lambda: run(lambda params, batch: instep.Loss(ok(params, batch), jnp.ones(4))),
        TypeError,
        r"weight of the loss has shape \(4,\)",
    ),
    "buffers that were not there": (
        lambda: run(stateful({"mean": jnp.ones(2)})),
        ValueError,
        r"Loss.buffers does not match buffers: missing \[\], not expected \['mean'\]",
    ),
    "buffers of another shape": (
        lambda: run(stateful({"mean": jnp.ones(2)}), buffers={"mean": jnp.ones(3)}),
        ValueError,
        r"Loss.buffers has other shapes than buffers: \{'mean': '\(2,\) for \(3,\)'\}",
    ),
    "buffers in another container": (
        lambda: run(stateful([jnp.ones(2)]), buffers=(jnp.ones(2),)),
        ValueError,
        r"Return the same pytree",
    ),
    "floating buffers for integer ones": (
        lambda: run(stateful({"n": jnp.ones(2)}), buffers={"n": jnp.ones(2, int)}),
        ValueError,
        r"Loss.buffers holds float32 where buffers holds int32",
    ),
    "two leaves of one name": (
        lambda: instep.init_state({"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, TX),
        ValueError,
        r"two leaves are called 'a.b'",
    ),
    # parameters
    "integer params": (
        lambda: instep.init_state({"w": jnp.ones(2), "n": jnp.arange(3)}, TX),
        TypeError,
        r"found \{'n': 'int32\[3\]'\}.*`buffers`",
    ),
    "complex params": (
        lambda: instep.zero_grad({"w": jnp.ones(2, complex)}),
        TypeError,
        r"\{'w': 'complex64\[2\]'\}",
    ),
    "empty params": (
        lambda: instep.init_state({}, TX),
        ValueError,
        r"params has no leaves: \{\}",
    ),
    # gradients
    "gradients with other names": (
        lambda: _step_with({"w": jnp.ones((3, 2)), "bias": jnp.ones(2)}),
        ValueError,
        r"acc.grads does not match state.params: missing \['b'\], not expected \['bias'\]",
    ),
    "a gradient is missing": (
        lambda: _step_with({"w": jnp.ones((3, 2))}),
        ValueError,
        r"missing \['b'\], not expected \[\]",
    ),
    "gradients of another shape": (
        lambda: _step_with({"w": jnp.ones((2, 3)), "b": jnp.ones(2)}),
        ValueError,
        r"other shapes than state.params: \{'w': '\(2, 3\) for \(3, 2\)'\}",
    ),
    "accumulator of other parameters": (
        lambda: instep.backward(ok, instep.zero_grad({"v": jnp.ones(2)}), PARAMS, None, None),
        ValueError,
        r"acc.grads does not match params: missing \['b', 'w'\], not expected \['v'\]",
    ),
}


def _step_with(grads):
    acc = instep.Accumulator(grads, jnp.zeros(()), jnp.ones(()), jnp.ones((), int))
    return instep.step(TX, instep.init_state(PARAMS, TX), acc)


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    call, error, message = CASES[case]
    with pytest.raises(error, match=message):
        call()


def test_keyword_only_parameters_are_the_callers_own():
    def scaled(params, batch, *, scale=2.0):
        return scale * ok(params, batch)

    _, metrics = run(scaled)
    assert float(metrics.loss) == 2.0 * float(run(ok)[1].loss)


def test_a_gradient_may_be_none():
    tx = instep.optim.sgd(0.5)
    state = instep.init_state(PARAMS, tx)
    grads = {"w": jnp.ones((3, 2)), "b": None}
    acc = instep.Accumulator(grads, jnp.zeros(()), jnp.ones(()), jnp.ones((), int))
    state = instep.step(tx, state, acc)
    np.testing.assert_array_equal(state.params["w"], 0.5)
    np.testing.assert_array_equal(state.params["b"], PARAMS["b"])


def test_a_model_that_draws_needs_a_key():
    def dropout_loss(params, buffers, batch, rng):
        kept = jax.random.bernoulli(rng, 0.5, batch.shape)
        return instep.Loss(ok(params, batch * kept))

    with pytest.raises(TypeError):
        run(dropout_loss)


def test_good_input_is_not_refused():
    state, metrics = run(ok)
    assert int(state.step) == 1 and metrics.grad_norm is None
    parts = instep.split({"x": np.arange(12).reshape(6, 2)}, 3)["x"]
    assert isinstance(parts, np.ndarray) and parts.shape == (3, 2, 2)
    np.testing.assert_array_equal(parts, np.arange(12).reshape(3, 2, 2))
    np.testing.assert_array_equal(instep.stack(list(parts)), parts)
    assert isinstance(instep.stack(list(parts)), np.ndarray)
    assert isinstance(instep.stack([jnp.ones(2), np.ones(2)]), jax.Array)
