"""docs/custom_gradients.md runs, proves what it says, and its numbers are measured here."""

import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import instep
from conftest import assert_in_step
from instep.ops import straight_through
from instep.parity import _tolerance


PAGE = (Path(__file__).parent.parent / "docs" / "custom_gradients.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
*DEFINITIONS, PROOFS, LOOP, ASSERTION = BLOCKS
SAID = " ".join(PAGE.split())


def page(*edits: tuple[str, str]) -> dict:
    """The names that the page defines, after ``edits`` of its text."""
    text = "\n".join([*DEFINITIONS, LOOP])
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    names = {}
    exec(text, names)
    return names


NAMES = page()
LABELS = np.array([0, 2, 1, 1, 4])
WEIGHT = np.random.default_rng(0).normal(size=(5, 3))
BY = 0.5
PAIRS = {
    "reversal": (
        lambda x: NAMES["ReverseGradient"].apply(x.sin(), BY),
        lambda x: NAMES["reverse_gradient"](jnp.sin(x), BY),
    ),
    "reversal by an array": (
        lambda x: NAMES["ReverseGradient"].apply(x.sin(), BY),
        lambda x: NAMES["reverse_gradient_by"](jnp.sin(x), jnp.asarray(BY)),
    ),
    "swish": (NAMES["Swish"].apply, NAMES["swish"]),
    "round": (
        lambda x: NAMES["Round"].apply(3 * x) ** 2,
        lambda x: NAMES["round_through"](3 * x) ** 2,
    ),
    "idiom": (
        lambda x: NAMES["through"](torch.sign, x) ** 2,
        lambda x: NAMES["jax_through"](jnp.sign, x) ** 2,
    ),
    "cross entropy, of x": (
        lambda x: NAMES["LinearCrossEntropy"].apply(x, *theirs(WEIGHT, LABELS), BY)[0],
        lambda x: NAMES["linear_cross_entropy"](x, WEIGHT, LABELS, BY)[0],
    ),
    "cross entropy, of the weight": (
        lambda w: NAMES["LinearCrossEntropy"].apply(*theirs(WEIGHT), w, theirs(LABELS)[0], BY)[
            0
        ],
        lambda w: NAMES["linear_cross_entropy"](WEIGHT, w, LABELS, BY)[0],
    ),
}
ONCE = [name for name in PAIRS if name.startswith("cross entropy")]
every_pair = pytest.mark.parametrize("name", PAIRS)


def theirs(*arrays):
    return [torch.tensor(a) for a in arrays]


def assert_same_gradient(torch_fn, jax_fn, x):
    """Value and pullback of a random cotangent, by the rule of the other tests."""
    t = torch.tensor(x, requires_grad=True)
    y = torch_fn(t)
    u = np.random.default_rng(1).normal(size=y.shape)
    y.backward(torch.tensor(u))
    ours, pullback = jax.vjp(jax_fn, jnp.asarray(x))
    assert_in_step(y, ours, "value")
    assert_in_step(t.grad, pullback(jnp.asarray(u))[0], "gradient")
    assert t.grad.abs().max() > 0


def second_at_one(f):
    x = torch.tensor(1.0, requires_grad=True)
    (g,) = torch.autograd.grad(f(x), x, create_graph=True)
    return torch.autograd.grad(g, x)[0].item()


# ---- the pairs ----


def test_the_proofs_of_the_page_hold():
    exec(PROOFS, dict(NAMES))


def test_the_rule_of_the_page_is_that_of_parity():
    assert NAMES["RELATIVE"] == _tolerance.RELATIVE and f"{_tolerance.RELATIVE} of" in SAID


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("(-scale * grad,),", "(scale * grad,),", "gradient"),
        ("(-scale * grad,),", "(-grad,),", "gradient"),
        ("(x * jax.nn.sigmoid(x), x)", "(x * jax.nn.sigmoid(x), swish(x))", "gradient"),
        ("s = jax.nn.sigmoid(x)\n", "s = 1 / (1 + jnp.exp(x))\n", "gradient"),
        (
            "s = jax.nn.sigmoid(x)\n",
            "s = jax.lax.stop_gradient(jax.nn.sigmoid(x))\n",
            "second gradient",
        ),
        ("instep.ops.straight_through(jnp.round)", "jnp.round", "gradient"),
        ("straight_through(jnp.round)", "straight_through(jnp.trunc)", "value"),
        (".add(-1)", ".add(0)", "gradient"),
        ("d = d / (n * temperature)", "d = d / n", "gradient"),
        ("dw = grad * (d.T @ x)\n    return dx", "dw = (d.T @ x)\n    return dx", "gradient"),
        ("return dx, dw, None\n", "return dx, None, None\n", "gradient"),
        ("logp[rows, labels].mean()", "logp[rows, labels].sum()", "value"),
    ],
)
def test_a_mistake_is_found(old, new, found):
    with pytest.raises(AssertionError, match=rf"^{found}: off by"):
        exec(PROOFS, page((old, new)))


@every_pair
def test_value_gradient_and_second_gradient(name, x64):
    torch_fn, jax_fn = PAIRS[name]
    x = np.random.default_rng(2).normal(size=(5, 3))
    assert_same_gradient(torch_fn, jax_fn, x)
    assert_same_gradient(torch_fn, jax.jit(jax_fn), x)
    NAMES["assert_same"](torch_fn, jax_fn, x, second=name not in ONCE)


@every_pair
def test_vmap_is_a_loop_over_examples(name, x64):
    torch_fn, jax_fn = PAIRS[name]
    x = np.random.default_rng(3).normal(size=(4, 5, 3))
    loop = lambda x: torch.stack([torch_fn(row) for row in x])  # noqa: E731
    assert_same_gradient(loop, jax.jit(jax.vmap(jax_fn)), x)


@every_pair
def test_scan_is_a_loop_over_steps(name, x64):
    torch_fn, jax_fn = PAIRS[name]
    x = np.random.default_rng(4).normal(size=(5, 3))

    def loop(h):
        for _ in range(4):
            h = 0.7 * h + torch_fn(h)
        return h

    def scan(h):
        return jax.lax.scan(lambda h, _: (0.7 * h + jax_fn(h), None), h, None, length=4)[0]

    assert_same_gradient(loop, jax.jit(scan), x)


def test_a_scale_on_a_schedule_is_an_argument(x64):
    scales, x = np.linspace(0.0, 1.0, 5), np.random.default_rng(5).normal(size=3)

    def loop(x):
        return sum(NAMES["ReverseGradient"].apply(x.sin(), s) ** 2 for s in scales)

    def scan(x):
        def step(total, scale):
            return total + NAMES["reverse_gradient_by"](jnp.sin(x), scale) ** 2, None

        return jax.lax.scan(step, jnp.zeros(3), jnp.asarray(scales))[0]

    assert_same_gradient(loop, jax.jit(scan), x)
    by = jax.grad(lambda s: NAMES["reverse_gradient_by"](jnp.asarray(x), s).sum())(BY)
    assert by == 0
    with pytest.raises(jax.errors.UnexpectedTracerError, match="nondiff_argnums"):
        jax.jit(NAMES["reverse_gradient"])(x, BY)
    jax.jit(NAMES["reverse_gradient"], static_argnums=1)(x, BY)


def test_what_has_no_gradient_has_none_on_either_side(x64):
    x = np.random.default_rng(6).normal(size=(5, 3))
    boolean = page(
        ("(logits.argmax(1) == labels).to(x.dtype).mean()", "logits.argmax(1) == labels"),
        ("        ctx.mark_non_differentiable(accuracy)\n", ""),
        ("right.astype(x.dtype).mean()", "right"),
    )
    for names, zero in ((NAMES, jnp.ones(())), (boolean, np.zeros(5, jax.dtypes.float0))):
        tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(WEIGHT)
        loss, right = names["LinearCrossEntropy"].apply(tx, tw, *theirs(LABELS), BY)
        loss.backward()
        assert tw.grad is None and not right.requires_grad
        (_, ours), pullback = jax.vjp(
            lambda x, y, names=names: names["linear_cross_entropy"](x, WEIGHT, y, BY), x, LABELS
        )
        np.testing.assert_array_equal(ours, right)
        assert ours.dtype == str(right.dtype).removeprefix("torch.")
        assert 0 < right.double().mean() < 1
        dx, dy = pullback((jnp.ones(()), zero))
        assert_in_step(tx.grad, dx)
        assert dy.dtype == jax.dtypes.float0 and dy.shape == LABELS.shape


# ---- the numbers ----


def test_saved_tensors():
    def saved(f):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(t) or t, lambda t: t
        ):
            f(torch.ones(3, requires_grad=True))
        return len(kept)

    def held(f):
        return len(jax.tree.leaves(jax.vjp(f, jnp.ones(3))[1]))

    plain = lambda x: x * jax.nn.sigmoid(x)  # noqa: E731
    assert (saved(lambda x: x * torch.sigmoid(x)), saved(NAMES["Swish"].apply)) == (3, 1)
    assert (held(plain), held(NAMES["swish"]), held(jax.checkpoint(plain))) == (3, 1, 1)
    assert (
        "saves 3 tensors and this Function 1; the pullback of `jax.vjp` holds 3 arrays" in SAID
    )


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.mm.default
        return func(*args, **(kwargs or {}))


def test_a_gradient_that_no_one_uses_is_not_computed():
    def torch_products(frozen):
        x = torch.tensor(WEIGHT, requires_grad=True)
        weight = torch.tensor(WEIGHT, requires_grad=not frozen)
        with Products() as mode:
            NAMES["LinearCrossEntropy"].apply(x, weight, *theirs(LABELS), BY)[0].backward()
        return mode.count

    def products(argnums):
        gradient = jax.grad(NAMES["linear_cross_entropy"], argnums, has_aux=True)
        lowered = jax.jit(gradient, static_argnums=3).lower(WEIGHT, WEIGHT, LABELS, BY)
        return lowered.as_text().count("dot_general")

    assert (torch_products(frozen=False), torch_products(frozen=True)) == (3, 2)
    assert (products((0, 1)), products(0)) == (3, 2)
    assert "PyTorch takes 3 matrix products" in SAID and ", and 2 where" in SAID
    assert "The gradient lowers to 3 and 2 under `jit` too." in SAID


def test_second_derivatives_of_what_forward_computed(x64):
    kept = page(
        (
            "ctx.save_for_backward(x)\n",
            "s = torch.sigmoid(x)\n        ctx.save_for_backward(x, s)\n",
        ),
        ("(x,) = ctx.saved_tensors\n        s = torch.sigmoid(x)", "x, s = ctx.saved_tensors"),
        (
            "def swish_bwd(x, grad):\n    s = jax.nn.sigmoid(x)",
            "def swish_bwd(xs, grad):\n    x, s = xs",
        ),
        (
            "lambda x: (x * jax.nn.sigmoid(x), x)",
            "lambda x: (x * jax.nn.sigmoid(x), (x, jax.nn.sigmoid(x)))",
        ),
    )
    stopped = page(
        (
            "def swish_bwd(x, grad):\n    s = jax.nn.sigmoid(x)",
            "def swish_bwd(xs, grad):\n    x, s = xs",
        ),
        (
            "lambda x: (x * jax.nn.sigmoid(x), x)",
            "lambda x: (x * jax.nn.sigmoid(x), (x, jax.lax.stop_gradient(jax.nn.sigmoid(x))))",
        ),
    )
    true = second_at_one(F.silu)
    constant = second_at_one(kept["Swish"].apply)
    assert f"at x = 1 be {constant:.3f} where the true one is {true:.3f}" in SAID
    assert f"JAX's is {true:.3f}." in SAID
    assert_in_step(torch.tensor(true), jax.grad(jax.grad(kept["swish"]))(1.0))
    x = np.random.default_rng(7).normal(size=4)
    NAMES["assert_same"](F.silu, kept["swish"], x)
    NAMES["assert_same"](F.silu, NAMES["swish"], x)
    NAMES["assert_same"](kept["Swish"].apply, stopped["swish"], x)
    with pytest.raises(AssertionError, match="^second gradient"):
        NAMES["assert_same"](kept["Swish"].apply, kept["swish"], x)


def test_second_derivatives_of_what_may_be_differentiated_once(x64):
    def f(x):
        weight, labels = theirs(WEIGHT, LABELS)
        return NAMES["LinearCrossEntropy"].apply(x * torch.ones(5, 3), weight, labels, BY)[0]

    assert second_at_one(lambda x: f(x) + x**3) == second_at_one(lambda x: x**3) == 6.0
    assert second_at_one(lambda x: f(x) ** 2 + x**3) == 6.0
    x = torch.tensor(1.0, requires_grad=True)
    (g,) = torch.autograd.grad(f(x) ** 2 + x**3, x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        g.backward()

    NAMES["assert_same"](
        lambda x, w: F.cross_entropy(x @ w.T / BY, torch.tensor(LABELS)),
        lambda x, w: NAMES["linear_cross_entropy"](x, w, LABELS, BY)[0],
        *np.random.default_rng(8).normal(size=(2, 5, 3)),
    )


def quantizers():
    """For each row of the table: torch's function, and what it is applied to."""
    rng = np.random.default_rng(0)
    book = torch.tensor(rng.normal(size=(64, 16)))

    def nearest(x):
        return book.to(x.dtype)[torch.cdist(x.double(), book).argmin(1)]

    return {
        "`x.round()`, deviation 3": (torch.round, 3 * rng.normal(size=1_000_000)),
        "`0.1 * x.sign()`, deviation 0.05": (
            lambda x: 0.1 * x.sign(),
            0.05 * rng.normal(size=1_000_000),
        ),
        "the nearest of 64 vectors of 16 elements": (nearest, rng.normal(size=(10_000, 16))),
    }


def test_how_often_the_idiom_is_not_the_function():
    for row, (f, x) in quantizers().items():
        shares = []
        for dtype in (torch.float32, torch.bfloat16):
            narrow = torch.tensor(x).to(dtype)
            shares.append((NAMES["through"](f, narrow) != f(narrow)).double().mean().item())
        assert f"| {row} | {shares[0]:.1%} | {shares[1]:.1%} |" in PAGE, (row, shares)
    f, x = quantizers()["`x.round()`, deviation 3"]
    x = torch.tensor(x).float()
    signs = (NAMES["through"](f, x).signbit() != f(x).signbit()).double().mean().item()
    assert f"only the sign of a zero changes, in {signs:.1%} of the elements" in SAID


def test_the_idiom_far_from_the_function():
    x = torch.tensor([1e10, torch.inf])
    far, infinite = NAMES["through"](torch.sign, x)
    assert far == 0 and infinite.isnan()
    np.testing.assert_array_equal(straight_through(jnp.sign)(x.numpy()), 1.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_idiom_is_the_idiom_to_the_bit(dtype):
    x = np.random.default_rng(9).normal(size=1000) * 0.05
    x[:5] = 1e10, np.inf, 0.0, -0.0, -0.01
    tx = torch.tensor(x).to(getattr(torch, dtype))
    for f, g in ((torch.round, jnp.round), (torch.sign, jnp.sign)):
        ours = jax.jit(lambda x, g=g: NAMES["jax_through"](g, x))(jnp.asarray(x, dtype))
        right = NAMES["through"](f, tx)
        np.testing.assert_array_equal(np.asarray(ours, np.float32), right.float().numpy())
        np.testing.assert_array_equal(np.signbit(ours), np.signbit(right.float().numpy()))


# ---- the loops ----


def test_the_loop_is_in_step():
    exec(ASSERTION, dict(NAMES))


def without_floor(text):
    """The floor is measured on random copies: it differs from one machine to the next."""
    return re.sub(r"floor [\d.e-]+", "floor", text)


def test_the_loop_without_its_rule_is_not_in_step_and_says_so():
    shown = re.search(r"```console\nAssertionError: (.*?)```", PAGE, re.S).group(1)
    with pytest.raises(AssertionError) as raised:
        instep.parity.assert_in_step(NAMES["pair"](reverse=lambda h, scale: h), steps=10)
    assert without_floor(str(raised.value)).startswith(without_floor(shown))


def rounded_pair(through):
    """Least squares with a weight that is rounded to multiples of 1/4."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2, bias=False)
    data = [torch.randn(8, 3) for _ in range(5)]

    def torch_loss(model, x):
        weight = NAMES["Round"].apply(4 * model.weight) / 4
        return ((F.linear(x, weight) - x[:, :2]) ** 2).mean()

    def loss_fn(params, x):
        return ((x @ (through(4 * params["kernel"]) / 4) - x[:, :2]) ** 2).mean()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    half = instep.JaxLoop(loss_fn, instep.optim.sgd(0.1), {"kernel": jnp.zeros((3, 2))})
    loop = instep.TorchLoop(model, torch_loss, optimizer, data)
    return instep.Pair(loop, half, [instep.bridge.linear("")])


def test_a_rounded_weight_in_a_loop():
    instep.parity.assert_in_step(rounded_pair(NAMES["round_through"]), steps=5)
    with pytest.raises(AssertionError, match="the gradient stage is the first") as raised:
        instep.parity.assert_in_step(rounded_pair(jnp.round), steps=5)
    assert "1.0e+00 of its maximum" in str(raised.value)


# ---- straight_through ----


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("fn", [jnp.round, jnp.sign, jnp.floor, lambda x: 0.1 * jnp.sign(x)])
def test_straight_through_is_the_function_to_the_bit(fn, dtype):
    x = jnp.asarray(np.random.default_rng(10).normal(size=1000) * 3, dtype)
    x = jnp.concatenate([x, jnp.array([0.0, -0.0, 1e30, jnp.inf, -jnp.inf, jnp.nan], dtype)])
    ours, right = jax.jit(straight_through(fn))(x), jax.jit(fn)(x)
    assert ours.dtype == right.dtype == dtype
    np.testing.assert_array_equal(
        np.asarray(ours).view(np.uint8), np.asarray(right).view(np.uint8)
    )


def test_straight_through_is_the_identity_in_both_modes(x64):
    x, t = jnp.asarray(np.random.default_rng(11).normal(size=(2, 6)))
    for through in (NAMES["round_through"], jax.jit(jax.vmap(NAMES["round_through"]))):
        y, dy = jax.jvp(through, (x,), (t,))
        np.testing.assert_array_equal(y, jnp.round(x))
        np.testing.assert_array_equal(dy, t)
        np.testing.assert_array_equal(jax.vjp(through, x)[1](t)[0], t)
    hessian = jax.hessian(lambda x: (NAMES["round_through"](x) ** 3).sum())(x)
    assert_in_step(np.diag(6 * np.round(x)), hessian)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (jnp.sum, r"fn makes float32\[\] of float32\[4\]"),
        (lambda x: x[None], r"fn makes float32\[1, 4\] of float32\[4\]"),
        (lambda x: x > 0, r"fn makes bool\[4\] of float32\[4\]"),
        (lambda x: x.astype(jnp.bfloat16), r"fn makes bfloat16\[4\] of float32\[4\]"),
    ],
)
def test_straight_through_keeps_shape_and_dtype(fn, message):
    for call in (
        straight_through(fn),
        jax.jit(straight_through(fn)),
        jax.jacrev(straight_through(fn)),
    ):
        with pytest.raises(TypeError, match=message):
            call(jnp.ones(4))


def test_straight_through_takes_a_python_number():
    through = straight_through(jnp.round)
    assert through(1.6) == 2.0 and jax.grad(through)(1.6) == 1.0


def test_a_learnt_step_size(x64):
    x = np.random.default_rng(12).normal(size=7)
    NAMES["assert_same"](
        lambda x, s: s * NAMES["Round"].apply(x / s),
        lambda x, s: s * NAMES["round_through"](x / s),
        *(x, np.array(0.3)),
        second=False,
    )

    def closed(s):
        return straight_through(lambda x: s * jnp.round(x / s))(jnp.asarray(x)).sum()

    with pytest.raises(jax.errors.UnexpectedTracerError):
        jax.grad(closed)(0.3)


# ---- the traps ----


def test_custom_vjp_has_no_forward_mode(x64):
    f, x = NAMES["swish"], jnp.linspace(-1.0, 1.0, 4)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(f, (x,), (x,))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jacfwd(f)(x)
    total = lambda x: (f(x) ** 2).sum()  # noqa: E731
    right = jax.hessian(lambda x: (jax.nn.silu(x) ** 2).sum())(x)
    assert_in_step(np.asarray(right), jax.hessian(total)(x))
    f = page(("(x * jax.nn.sigmoid(x), x)", "(swish(x), x)"))["swish"]
    with pytest.raises(TypeError, match="forward-mode"):
        jax.hessian(total)(x)


def test_the_tangent_of_a_custom_jvp_is_linear():
    def identity(change):
        f = jax.custom_jvp(lambda x: x)
        f.defjvp(lambda primals, tangents: (f(*primals), change(tangents[0])))
        return f

    x, three = jnp.ones(2), jnp.full(2, 3.0)
    clipped, shifted = identity(lambda t: jnp.clip(t, -1, 1)), identity(lambda t: t + 1)
    assert jax.jvp(clipped, (x,), (three,))[1].tolist() == [1, 1]
    with pytest.raises(NotImplementedError, match="Transpose rule"):
        jax.grad(lambda x: clipped(x).sum())(x)
    assert jax.jvp(shifted, (x,), (three,))[1].tolist() == [4, 4]
    assert jax.grad(lambda x: (3 * shifted(x)).sum())(x).tolist() == [3, 3]


def test_vmap_shows_the_rule_one_example():
    f = jax.custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, None), lambda _, g: (g / jnp.maximum(jnp.linalg.norm(g), 1),))
    for mapped, norm in ((f, 1), (jax.vmap(f), 2)):
        g = jax.grad(lambda x, f=mapped: (5 * f(x)).sum())(jnp.ones((4, 3)))
        np.testing.assert_array_max_ulp(jnp.linalg.norm(g), np.float32(norm), 2)
    assert "gives one of norm 1 for a batch of 4, and of norm 2 when" in SAID


@pytest.mark.parametrize("cotangent", ["None", "jnp.zeros(5, int)", "jnp.zeros(5)"])
def test_the_cotangent_of_an_integer(cotangent, x64):
    f = page(("return dx, dw, None\n", f"return dx, dw, {cotangent}\n"))["linear_cross_entropy"]
    x = jnp.asarray(WEIGHT)
    loss = lambda x, labels: f(x, x, labels, BY)[0]  # noqa: E731
    with pytest.raises(TypeError, match="int"):
        jax.grad(loss, 1)(x, LABELS)
    assert jax.grad(loss, 1, allow_int=True)(x, LABELS).dtype == jax.dtypes.float0


def test_export_drops_backward():
    class Model(torch.nn.Module):
        def forward(self, x):
            return NAMES["ReverseGradient"].apply(x, BY)

    def gradient(model):
        x = torch.ones(2, requires_grad=True)
        model(x).sum().backward()
        return x.grad.tolist()

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        program = torch.export.export(Model(), (torch.ones(2, requires_grad=True),)).module()
    assert not [w for w in said if issubclass(w.category, UserWarning)]
    assert (gradient(Model()), gradient(program)) == ([-0.5, -0.5], [1.0, 1.0])


def test_torch_func_asks_for_setup_context():
    reverse = lambda x: NAMES["ReverseGradient"].apply(x, BY)  # noqa: E731
    for call in (torch.func.vmap(reverse), torch.func.grad(lambda x: reverse(x).sum())):
        with pytest.raises(RuntimeError, match="setup_context"):
            call(torch.ones(3))
