"""A batch for every loss that can be cut between its examples, and the loss on both sides.

Every floating input is multiplied by parameters of the shape of one example, so that all
examples of a batch add to one gradient, as those of a model do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from instep import Loss, backward, losses, mean, zero_grad
from instep.losses import total_and_weight


class Input(NamedTuple):
    """One argument: a number per example or, with ``axis`` None, the same for all of them."""

    value: np.ndarray
    axis: int | None = 0  # of the examples
    grad: bool = False
    ignored: int | None = None  # labels: the one that is not counted

    def part(self, index: Any) -> Input:
        if self.axis is None:
            return self
        return self._replace(value=np.take(self.value, index, self.axis))


Batch = dict[str, Any]  # by name, or by position: "0", "1"; what is no Input is an option
Make = Callable[["Draw", int, int], Batch]


class Case(NamedTuple):
    name: str  # of the loss
    how: str  # it is called
    make: Make

    @property
    def id(self) -> str:
        return f"{self.name}, {self.how}" if self.how else self.name

    def batch(self, seed: int, examples: int, classes: int = 3) -> Batch:
        return self.make(Draw(seed), examples, classes)

    def torch(self, batch: Batch, **options: Any) -> torch.Tensor:
        args, kwargs = by_position(batch)
        return getattr(F, self.name)(*args, **kwargs, **options)

    @property
    def ours(self) -> Callable[..., jax.Array]:
        return getattr(losses, self.name)

    @property
    def ignores(self) -> bool:
        return any(x.ignored is not None for x in inputs(self.batch(0, 1)).values())


class Draw:
    """Numbers of each kind that a loss takes."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def real(self, *shape: int, **how: Any) -> Input:
        return Input(self.rng.normal(size=shape), **how)

    def positive(self, *shape: int, **how: Any) -> Input:
        return Input(self.rng.uniform(0.1, 0.9, size=shape), **how)

    def weight(self, *shape: int, **how: Any) -> Input:
        return Input(self.rng.uniform(0.1, 3.0, size=shape), **how)

    def signs(self, *shape: int) -> Input:
        return Input(self.rng.choice([-1.0, 1.0], size=shape))

    def bits(self, *shape: int) -> Input:
        return Input(self.rng.choice([0.0, 1.0], size=shape))

    def counts(self, *shape: int) -> Input:
        return Input(self.rng.poisson(2.0, size=shape).astype(float))

    def labels(self, classes: int, *shape: int, ignored: int | None = None) -> Input:
        y = self.rng.integers(0, classes, size=shape)
        if ignored is not None:
            y = np.where(self.rng.random(shape) < 0.3, ignored, y)
        return Input(y, ignored=ignored)

    def simplex(self, examples: int, classes: int) -> Input:
        return Input(self.rng.dirichlet(np.ones(classes), size=examples))

    def sets(self, examples: int, classes: int) -> Input:
        """Distinct labels, then -1."""
        y = self.rng.permuted(np.tile(np.arange(classes), (examples, 1)), axis=1)
        n = self.rng.integers(0, classes + 1, size=(examples, 1))
        return Input(np.where(np.arange(classes) < n, y, -1))


def given(*args: Input, **kwargs: Any) -> Batch:
    return {**{f"{i}": x for i, x in enumerate(args)}, **kwargs}


def trained(x: Input) -> Input:
    return x._replace(grad=True)


def pairs(kind: str, **more: Callable[[Draw, int, int], Any]) -> Make:
    """Input and target of one shape (n, c)."""

    def make(d: Draw, n: int, c: int) -> Batch:
        inputs = given(trained(d.real(n, c)), getattr(d, kind)(n, c))
        return inputs | {k: f(d, n, c) for k, f in more.items()}

    return make


def per_element(d: Draw, n: int, c: int) -> Input:
    return d.weight(n, c)


def per_class(d: Draw, n: int, c: int) -> Input:
    return d.weight(c, axis=None)


def always(value: Any) -> Callable[[Draw, int, int], Any]:
    return lambda d, n, c: value


def _binary(weighted: bool) -> Make:
    def make(d, n, c):
        batch = given(trained(d.positive(n, c)), d.positive(n, c))
        return batch | ({"weight": d.weight(n, c)} if weighted else {})

    return make


def _labelled(*trailing: int, ignored: int | None = None, weighted=False, **options) -> Make:
    def make(d, n, c):
        y = d.labels(c, n, *trailing, ignored=ignored)
        batch = given(trained(d.real(n, c, *trailing)), y, **options)
        if ignored is not None:
            batch["ignore_index"] = ignored
        return batch | ({"weight": per_class(d, n, c)} if weighted else {})

    return make


def _distributions(weighted: bool, **options) -> Make:
    def make(d, n, c):
        batch = given(trained(d.real(n, c)), d.simplex(n, c), **options)
        return batch | ({"weight": per_class(d, n, c)} if weighted else {})

    return make


def _linear(kind: str, *trailing: int) -> Make:
    def make(d, n, c):
        shape = (c, *trailing)
        w, bias = d.real(*shape, 2, axis=None), d.real(*shape, axis=None)
        batch = given(trained(d.real(n, 2)), trained(w))
        batch["linear_bias"] = trained(bias)
        if kind == "probabilities":
            return batch | {"2": d.simplex(n, c), "label_smoothing": 0.1}
        if kind == "ignored":
            return batch | {"2": d.labels(c, n, *trailing, ignored=1), "ignore_index": 1}
        return batch | {"2": d.labels(c, n, *trailing), "weight": per_class(d, n, c)}

    return make


def _triplet(**options) -> Make:
    def make(d, n, c):
        return given(*(trained(d.real(n, c)) for _ in range(3)), **options)

    return make


def _cosine(d, n, c):
    return given(trained(d.real(n, c)), trained(d.real(n, c)), d.signs(n), margin=-0.9)


def _ranking(d, n, c):
    return given(trained(d.real(n, c)), trained(d.real(n, c)), d.signs(n, c), margin=1.0)


def _gaussian(one: bool, **options) -> Make:
    def make(d, n, c):
        var = trained(d.positive(n, 1 if one else c))
        return given(trained(d.real(n, c)), trained(d.real(n, c)), var, **options)

    return make


def _poisson(d, n, c):
    return given(trained(d.positive(n, c)), d.counts(n, c), log_input=False, full=True)


def _kl(log_target: bool, **options) -> Make:
    def make(d, n, c):
        x = Input(np.log(d.simplex(n, c).value), grad=True)
        y = trained(d.simplex(n, c))
        if log_target:
            y = y._replace(value=np.log(y.value))
        return given(x, y, log_target=log_target, **options)

    return make


def _ctc(zero_infinity: bool) -> Make:
    def make(d, n, c):
        steps, longest, classes = 7, 3, c + 1  # with the blank
        x = d.real(steps, n, classes, axis=1)
        y = Input(d.rng.integers(1, classes, size=(n, longest)))
        n_labels = d.labels(longest + 1, n)
        shortest = 2 if zero_infinity else 2 * longest  # repeats need a blank between them
        n_steps = Input(d.rng.integers(shortest, steps + 1, size=n))
        return given(trained(x), y, n_steps, n_labels, zero_infinity=zero_infinity)

    return make


CASES = [
    Case("binary_cross_entropy", "", _binary(False)),
    Case("binary_cross_entropy", "weight", _binary(True)),
    Case("binary_cross_entropy_with_logits", "", pairs("positive")),
    Case(
        "binary_cross_entropy_with_logits",
        "weight, pos_weight",
        pairs("bits", weight=per_element, pos_weight=per_class),
    ),
    Case("cosine_embedding_loss", "", _cosine),
    Case("cross_entropy", "", _labelled()),
    Case("cross_entropy", "ignore_index", _labelled(ignored=-100)),
    Case(
        "cross_entropy",
        "weight, ignore_index, label_smoothing",
        _labelled(ignored=1, weighted=True, label_smoothing=0.1),
    ),
    Case("cross_entropy", "trailing axes", _labelled(2, 2, ignored=-100, weighted=True)),
    Case("cross_entropy", "probabilities", _distributions(False)),
    Case("cross_entropy", "probabilities, weight", _distributions(True, label_smoothing=0.1)),
    Case("ctc_loss", "", _ctc(False)),
    Case("ctc_loss", "zero_infinity", _ctc(True)),
    Case("gaussian_nll_loss", "", _gaussian(False, full=True)),
    Case("gaussian_nll_loss", "one variance per example", _gaussian(True)),
    Case("hinge_embedding_loss", "", pairs("signs")),
    Case("huber_loss", "", pairs("real", delta=always(0.7))),
    Case("huber_loss", "weight", pairs("real", weight=per_element)),
    Case("kl_div", "", _kl(False)),
    Case("kl_div", "batchmean", _kl(False, reduction="batchmean")),
    Case("kl_div", "batchmean, log_target", _kl(True, reduction="batchmean")),
    Case("l1_loss", "", pairs("real")),
    Case("l1_loss", "weight", pairs("real", weight=per_element)),
    Case("linear_cross_entropy", "weight", _linear("weight")),
    Case("linear_cross_entropy", "ignore_index, trailing axes", _linear("ignored", 2)),
    Case("linear_cross_entropy", "probabilities", _linear("probabilities")),
    Case("margin_ranking_loss", "", _ranking),
    Case("mse_loss", "", pairs("real")),
    Case("mse_loss", "weight", pairs("real", weight=per_element)),
    Case("multi_margin_loss", "", _labelled()),
    Case("multi_margin_loss", "weight, p", _labelled(weighted=True, p=2)),
    Case("multilabel_margin_loss", "", pairs("sets")),
    Case("multilabel_soft_margin_loss", "", pairs("bits")),
    Case("multilabel_soft_margin_loss", "weight", pairs("bits", weight=per_class)),
    Case("nll_loss", "", _labelled()),
    Case("nll_loss", "weight, ignore_index", _labelled(ignored=-100, weighted=True)),
    Case("nll_loss", "trailing axes", _labelled(2, ignored=0)),
    Case("poisson_nll_loss", "", pairs("counts")),
    Case("poisson_nll_loss", "log_input, full", _poisson),
    Case("smooth_l1_loss", "", pairs("real", beta=always(0.5))),
    Case("soft_margin_loss", "", pairs("signs")),
    Case("triplet_margin_loss", "", _triplet(margin=2.0)),
    Case("triplet_margin_loss", "p, swap", _triplet(p=1.0, swap=True, margin=2.0)),
    Case("triplet_margin_with_distance_loss", "", _triplet(margin=2.0)),
]


# ------------------------------------------------------------------------------ both sides


def inputs(batch: Batch) -> dict[str, Input]:
    return {k: x for k, x in batch.items() if isinstance(x, Input)}


def options(batch: Batch) -> dict[str, Any]:
    return {k: x for k, x in batch.items() if not isinstance(x, Input)}


def by_position(batch: Batch) -> tuple[list[Any], dict[str, Any]]:
    args = [batch[k] for k in sorted(k for k in batch if k.isdigit())]
    return args, {k: x for k, x in batch.items() if not k.isdigit()}


def part(batch: Batch, index: Any) -> Batch:
    """The examples of ``batch`` at ``index``."""
    return {k: x.part(index) if isinstance(x, Input) else x for k, x in batch.items()}


def cut(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    ends = np.cumsum(sizes)
    return [part(batch, np.arange(e - n, e)) for e, n in zip(ends, sizes, strict=True)]


def parameters(batch: Batch, seed: int = 0) -> dict[str, np.ndarray]:
    """A factor in (0.5, 0.9) for every number of one example, or of what all share."""
    rng = np.random.default_rng(seed)
    shapes = {k: _shape_of_one(x) for k, x in inputs(batch).items() if x.grad}
    return {k: rng.uniform(0.5, 0.9, size=shape) for k, shape in shapes.items()}


def _shape_of_one(x: Input) -> tuple[int, ...]:
    return x.value.shape if x.axis is None else np.delete(x.value.shape, x.axis).tolist()


def multiplied(batch: Batch, arrays: dict[str, Any], params: dict[str, Any]) -> Batch:
    """The batch with ``arrays`` for its inputs; on both sides."""

    def by_params(k, x):
        if k not in params:
            return arrays[k]
        return arrays[k] * (params[k] if x.axis is None else _expanded(params[k], x.axis))

    return options(batch) | {k: by_params(k, x) for k, x in inputs(batch).items()}


def _expanded(p: Any, axis: int) -> Any:
    return p.unsqueeze(axis) if torch.is_tensor(p) else jnp.expand_dims(p, axis)


def of_torch(case: Case, pieces: Sequence[Batch], params: dict[str, np.ndarray]):
    """PyTorch's loop: ``(loss / k).backward()`` of every piece; the loss and the gradients."""
    leaves = {k: torch.tensor(p, requires_grad=True) for k, p in params.items()}
    total = torch.zeros(())
    for piece in pieces:
        arrays = {k: torch.tensor(x.value) for k, x in inputs(piece).items()}
        loss = case.torch(multiplied(piece, arrays, leaves)) / len(pieces)
        loss.backward()
        total = total + loss.detach()
    return total.numpy(), {k: p.grad.numpy() for k, p in leaves.items()}


def loss_fn_of(case: Case) -> Callable[..., Loss]:
    """``(params, batch) -> Loss``; the batch is ``arrays_of`` one, and perhaps ``where``."""
    like = case.batch(0, 1)

    def loss_fn(params, batch):
        args, kwargs = by_position(multiplied(like, batch, params))
        return total_and_weight(case.ours)(*args, where=batch.get("where"), **kwargs)

    return loss_fn


def arrays_of(batch: Batch) -> dict[str, np.ndarray]:
    return {k: x.value for k, x in inputs(batch).items()}


def accumulated(case: Case, pieces: Sequence[Batch], params: dict[str, np.ndarray]):
    """The verbs of instep on pieces of any length, up to ``mean``; and their weights."""
    acc, weights = zero_grad(params), [0.0]
    for piece in pieces:
        acc = _backward(case.id)(acc, params, arrays_of(piece))
        weights.append(float(acc.weight))
    return mean(acc), np.diff(weights)


@functools.cache
def _backward(case_id: str):
    (case,) = [c for c in CASES if c.id == case_id]
    loss_fn = loss_fn_of(case)
    return jax.jit(lambda acc, params, batch: backward(loss_fn, acc, params, None, batch)[0])
