"""``instep.lower``: where gradients stop, writes and views, names, inputs, refusals."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import orthogonal

import instep
from conftest import assert_in_step
from instep._errors import LoweringError
from instep.bridge.lower import _table


class Net(nn.Module):
    """A linear layer, a buffer, and a forward pass of its own."""

    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 3)
        self.register_buffer("seen", torch.ones(3))
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def no_grad(net, x):
    with torch.no_grad():
        scale = net.linear(x).abs()
    return net.linear(x) * scale


def no_grad_then_grad(net, x):
    y = net.linear(x)
    with torch.no_grad():
        z = y * 2
    return y * z + net.linear.weight.sum()


def detach(net, x):
    y = net.linear(x)
    return y * y.detach()


def data(net, x):
    y = net.linear(x)
    return y * y.data + net.linear.weight.data.sum()


def running_mean(net, x):
    y = net.linear(x)
    with torch.no_grad():
        net.seen.mul_(0.9).add_(y.mean(0), alpha=0.1)
    return y - net.seen


def assigned_buffer(net, x):
    y = net.linear(x)
    net.seen = net.seen + y.detach().mean(0)
    return y * net.seen


def write_through_view(net, x):
    y = net.linear(x).clone()
    y.view(-1)[1:4] = x.sum()
    return y * 2


def write_through_transpose(net, x):
    y = net.linear(x) * 1
    y.t()[0] += x[:, 1]
    return y


def write_a_slice(net, x):
    y = net.linear(x) * 1
    y.narrow(0, 0, 2).mul_(x.narrow(0, 2, 2))
    return y


def masked_write(net, x):
    y = net.linear(x) * 1
    y[x > 0] = 0.5
    return y


def relu_in_place(net, x):
    return F.relu_(net.linear(x) * 1)


def made_in_forward(net, x):
    positions = torch.arange(x.shape[0], dtype=x.dtype)
    return net.linear(x) * positions[:, None] + torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype)


def condition(net, x):
    return torch.cond(x.sum() > 0, lambda y: y * 2, lambda y: y - 1, (net.linear(x),))


def clamped_if_not_finite(net, x):
    y = net.linear(x)
    if not torch.isfinite(y).all():
        y = y.clamp(-1, 1)
    y = net.linear(y)
    if torch.isinf(y).any() or y.isnan().any().item():
        y = torch.nan_to_num(y)
    return y


def kinks(net, x):
    y = net.linear(x) * 0
    return y.abs() + F.relu(y) + y.clamp(min=0) + torch.maximum(y, -y) + y.norm(dim=1)[:, None]


PROGRAMS = [
    no_grad, no_grad_then_grad, detach, data, running_mean, assigned_buffer, write_through_view,
    write_through_transpose, write_a_slice, masked_write, relu_in_place, made_in_forward,
    condition, clamped_if_not_finite, kinks,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # PyTorch's own run of torch.cond
@pytest.mark.parametrize("forward", PROGRAMS, ids=lambda f: f.__name__)
def test_values_gradients_and_buffers(forward, x64):
    net, x = Net(forward), torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    lowered = instep.lower(net, (x,))

    def loss(params, buffers, x):
        y, buffers = lowered(params, buffers, x)
        return jnp.sum(y * jnp.arange(1.0, 4.0)[None]), (y, buffers)

    grads, (y, buffers) = jax.grad(loss, has_aux=True)(
        lowered.params, lowered.buffers, x.numpy()
    )
    expected = net(x)
    (expected * torch.arange(1.0, 4.0)).sum().backward()
    assert_in_step(expected, y, "output")
    for name, p in net.named_parameters():
        assert_in_step(p.grad, grads[name], name)
    assert_in_step(net.seen, buffers["seen"], "buffer")


def test_lowering_torch_cond_warns_of_nothing(x64):
    instep.lower(Net(condition), (torch.randn(4, 3),))


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_where_numbers_are_not_finite_it_says_so(bad, x64):
    """PyTorch clamps and goes on; the program has the way of finite numbers alone."""
    net, x = Net(clamped_if_not_finite), torch.randn(4, 3)
    lowered = instep.lower(net, (x,))
    x = np.asarray(x).copy()
    x[0, 0] = bad
    made, backward = jax.vjp(lambda p: lowered(p, lowered.buffers, x)[0], lowered.params)
    assert np.isnan(made).all()
    assert all(np.isnan(g).any() for g in backward(jnp.ones_like(made))[0].values())


def test_the_module_is_left_as_it_is(x64):
    net = Net(running_mean)
    instep.lower(net, (torch.randn(4, 3),))
    assert type(net.linear.weight) is nn.Parameter and net.linear.weight.grad is None
    assert net.seen.tolist() == [1, 1, 1]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Linear(5, 5)
        self.frozen.requires_grad_(False)

    def forward(self, tokens):
        return self.frozen(self.head(self.embed(tokens)))


def test_tied_frozen_and_unused(x64):
    net, tokens = Tied(), torch.tensor([[0, 1], [4, 1]])
    lowered = instep.lower(net, (tokens,))
    assert lowered.aliases == {"head.weight": "embed.weight"}
    assert list(lowered.params) == [name for name, _ in net.named_parameters()]
    assert not lowered.trainable["frozen.weight"] and lowered.trainable["embed.weight"]
    trained = {"embed.weight", "frozen.weight", "frozen.bias"}
    assert lowered.reached == trained
    net(tokens).square().sum().backward()
    grads = jax.grad(lambda p: jnp.sum(lowered(p, {}, tokens.numpy())[0] ** 2))(lowered.params)
    assert_in_step(net.embed.weight.grad, grads["embed.weight"])


def test_train_and_eval_are_as_found(x64):
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    x = torch.randn(4, 3)
    evaluated = instep.lower(net.eval(), (x,))
    assert_in_step(net(x), evaluated(evaluated.params, evaluated.buffers, x.numpy())[0])
    trained = instep.lower(net.train(), (x,))
    with pytest.raises(ValueError, match="no key"):
        trained(trained.params, trained.buffers, x.numpy())
    a, buffers = trained(trained.params, trained.buffers, x.numpy(), rng=jax.random.key(0))
    b, _ = trained(trained.params, trained.buffers, x.numpy(), rng=jax.random.key(1))
    assert (np.asarray(a) == 0).any() and not np.array_equal(a, b)
    net(x)
    assert_in_step(net[0].running_var, buffers["0.running_var"])
    assert buffers["0.num_batches_tracked"] == 1


def test_two_random_operators_have_two_keys():
    lowered = instep.lower(Draws(), (torch.ones(100),))
    (a, b), _ = lowered({}, {}, np.ones(100, np.float32), rng=jax.random.key(0))
    assert not np.array_equal(a, b)


class Draws(nn.Module):
    def forward(self, x):
        return F.dropout(x), F.dropout(x)


def test_dynamic_batch(x64):
    net = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2)), nn.Flatten())
    lowered = instep.lower(net, (torch.randn(4, 3),), dynamic_batch=True)
    for size in (1, 2, 7):
        x = torch.randn(size, 3)
        assert_in_step(net(x), lowered(lowered.params, {}, x.numpy())[0])


def test_another_shape_without_dynamic_batch_is_refused():
    lowered = instep.lower(nn.Linear(3, 4), (torch.randn(4, 3),))
    with pytest.raises(LoweringError, match=r"\[5, 4\], in PyTorch it makes float32\[4, 4\]"):
        lowered(lowered.params, {}, np.ones((5, 3), np.float32))


class Point(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


class Nested(nn.Module):
    def forward(self, point, *, options, scale=1.0, name="a"):
        both = point.x * options["weights"][0] + point.y * scale
        return Answer(both), {"name": name, "list": [both, None]}, point


def test_nested_inputs_and_outputs(x64):
    point, weights = Point(torch.ones(2), torch.arange(2.0)), [torch.tensor(3.0)]
    options = {"weights": weights, "on": True}
    lowered = instep.lower(Nested(), (point,), {"options": options, "scale": 2.0})
    given = Point(np.ones(2), np.arange(2.0))
    arrays = {"weights": [np.array(3.0)], "on": True}
    (answer, rest, back), _ = lowered({}, {}, given, options=arrays, scale=2.0)
    assert answer.logits.tolist() == [3, 5] == answer["logits"].tolist() and answer.loss is None
    assert (
        rest["name"] == "a" and rest["list"][0].tolist() == [3, 5] and rest["list"][1] is None
    )
    assert isinstance(back, Point)
    with pytest.raises(ValueError, match=r"scale is 3.0; the program was made for 2.0"):
        lowered({}, {}, given, options=arrays, scale=3.0)


def test_autocast(x64):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.linear(x)

    net, x = Mixed().float(), torch.randn(2, 3, dtype=torch.float32)
    lowered = instep.lower(net, (x,))
    y, _ = lowered(lowered.params, {}, x.numpy())
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.astype(np.float32), net(x).detach().float().numpy())


def test_grouped_mm(x64):
    rule = _table.rule_of("transformers", "grouped_mm_fallback", "default")
    x, w, ends = torch.randn(5, 3), torch.randn(3, 3, 2), [2, 2, 4]
    rows = [x[:2] @ w[0], x[2:2] @ w[1], x[2:4] @ w[2], torch.zeros(1, 2)]
    assert_in_step(torch.cat(rows), rule.function(x.numpy(), w.numpy(), np.array(ends)))


def test_a_compiled_or_parallel_module_is_unwrapped(x64):
    net, x = nn.Linear(3, 2), torch.randn(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of PyTorch's own imports
        compiled = torch.compile(net)
    for wrapped in (compiled, nn.DataParallel(net)):
        lowered = instep.lower(wrapped, (x,))
        assert list(lowered.params) == ["weight", "bias"]
        assert_in_step(net(x), lowered(lowered.params, {}, x.numpy())[0])


COMPUTED = {
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "orthogonal": lambda layer: orthogonal(layer, orthogonal_map="cayley"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("of", COMPUTED.values(), ids=COMPUTED)
def test_a_weight_that_is_computed(of, x64):
    """In PyTorch's old way, by a hook that leaves it in an attribute, and in the new one."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(4, 3)
    of(net[0])
    lowered = instep.lower(net, (x,))
    made, backward = jax.vjp(
        lambda p: lowered(p, lowered.buffers, x.numpy())[0], lowered.params
    )
    expected = net(x)
    expected.sum().backward()
    assert_in_step(expected, made)
    for name, grad in backward(jnp.ones_like(made))[0].items():
        assert_in_step(net.get_parameter(name).grad, grad, name)


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 10


def draws_from_random(x):
    import random

    return x * random.random()


def draws_from_numpy(x):
    return x * float(np.random.rand())


def writes_without_gradient(x, weight):
    y = x @ weight
    with torch.no_grad():
        y.mul_(2)
    return y


def writes_data(x, weight):
    y = x @ weight
    y.data.mul_(2)
    return y


def writes_a_parameter(x, weight):
    with torch.no_grad():
        weight.clamp_(max=1)
    return x @ weight


def shortens_rows(x, weight):
    return F.embedding(torch.tensor([0, 2]), weight, max_norm=0.5)


def shortens_rows_of_bags(x, weight):
    return F.embedding_bag(torch.tensor([[0, 2]]), weight, max_norm=0.5)


def hooked(x, weight):
    y = x @ weight
    y.register_hook(lambda grad: grad * 2)
    return y


REFUSED = [
    (hooked, "register_hook changes a gradient"),
    (lambda x, w: x[x > 0].sum(), "aten.index.Tensor makes a tensor whose shape depends"),
    (lambda x, w: x if x.sum() > 0 else -x, "decides by the numbers it computes"),
    (lambda x, w: x * x.sum().item(), "reads a number out of a tensor"),
    (lambda x, w: torch.nonzero(x), "shape depends"),
    (lambda x, w: Double.apply(x), "Double is a torch.autograd.Function, whose backward"),
    (lambda x, w: torch.linalg.eigvals(x @ x.T).real, "no JAX rule for aten.linalg_eig"),
    (lambda x, w: draws_from_random(x), "draws from random or numpy.random"),
    (lambda x, w: draws_from_numpy(x), "draws from random or numpy.random"),
    (writes_without_gradient, "aten.mul_.Tensor writes into a tensor that has a gradient"),
    (writes_data, "aten.mul_.Tensor writes into a tensor that has a gradient"),
    (writes_a_parameter, "writes into"),
    (shortens_rows, "max_norm of an embedding shortens rows of its parameter"),
    (shortens_rows_of_bags, "max_norm of an embedding shortens rows of its parameter"),
    (lambda x, w: x @ OUTSIDE, "requires a gradient and is not one of the module"),
]
OUTSIDE = torch.ones(3, 3, requires_grad=True)


@pytest.mark.parametrize(
    ("forward", "message"), REFUSED, ids=lambda x: getattr(x, "__name__", x)
)
def test_refused_when_lowered_with_the_line(forward, message):
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3))

        def forward(self, x):
            return forward(x, self.weight)

    with pytest.raises(LoweringError, match=message) as refused:
        instep.lower(Module(), (torch.randn(4, 3),))
    if not any(x in message for x in ("random", "Function", "requires", "hook")):
        assert "test_lower.py:" in str(refused.value)


def test_a_backward_hook_of_a_module_is_refused():
    net = nn.Sequential(nn.Linear(2, 2))
    net[0].register_full_backward_hook(lambda *_: None)
    with pytest.raises(LoweringError, match="0 has a backward hook"):
        instep.lower(net, (torch.ones(1, 2),))


def test_float64_without_x64_is_refused():
    with pytest.raises(LoweringError, match=r"weight is torch.float64, .*jax_enable_x64"):
        instep.lower(nn.Linear(2, 2).double(), (torch.ones(1, 2).double(),))


def test_a_registered_autograd_function(x64):
    class Own(Double):
        pass

    class Module(nn.Module):
        def forward(self, x):
            return Own.apply(x)

    @jax.custom_vjp
    def double(x):
        return x * 2

    double.defvjp(lambda x: (x * 2, None), lambda _, g: (g * 10,))
    instep.bridge.register(Own, double)
    x = torch.randn(3, requires_grad=True)
    lowered = instep.lower(Module(), (x,))
    Module()(x).sum().backward()
    grad = jax.grad(lambda x: lowered({}, {}, x)[0].sum())(x.detach().numpy())
    assert_in_step(x.grad, grad)


@pytest.mark.parametrize("op", [int, nn.ReLU, "relu", "a.b.c.d"])
def test_what_is_no_operator_is_not_registered(op):
    with pytest.raises(TypeError, match="is no operator"):
        instep.bridge.register(op, jnp.abs)


def test_a_lowered_step_runs_where_torch_cannot_be_imported():
    script = """
        import sys
        import numpy as np, torch, instep
        from torch import nn

        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        optimizer = torch.optim.AdamW(model.parameters())
        batches = [(torch.randn(4, 3), torch.randint(0, 2, (4,)))]
        loop = instep.TorchLoop(
            model, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), optimizer, batches
        )
        train_step, state = instep.from_torch(loop)
        batch = tuple(x.numpy() for x in batches[0])
        for name in [n for n in sys.modules if n.partition(".")[0] == "torch"]:
            sys.modules[name] = None
        for _ in range(3):
            state, metrics = train_step(state, batch)
        print(float(metrics.loss) > 0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.stdout.strip() == "True", done.stderr
