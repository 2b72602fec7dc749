"""``weights="auto"``: a rule for every layer of a PyTorch model, by kind and name.

The kind of a layer is its class. Its name on the JAX side is, in this order,

1. the same dotted path;
2. the same path but for how lists are written: ``layers_0``, ``layers.0`` and ``0``;
3. the name that Linen made, ``Dense_0``, ``Dense_1``, ...: the n-th of its class in order of
   creation is the n-th PyTorch layer of that kind in order of registration, if both sides
   have equally many left. (``Dense(1)(Dense(2)(x))`` creates the outer layer first.)

Shapes are never asked. A recurrent layer is looked for inside ``nnx.RNN`` (``cell``), inside
``nnx.Bidirectional`` (``forward_rnn``, ``backward_rnn``), and layer by layer under its
number (``lstm.0.cell``). A tensor that belongs to no such layer has the same name on both
sides. What ``"auto"`` takes for granted, since no name tells it: ``flattened=()`` and
``transpose_kernel=False``; a layer where that is wrong needs a rule of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from torch import nn

from . import _rules, _rules_sequence
from ._linen import Layer, by_number, normal
from ._rule import Rule, join
from ._sides import Sides, fits


KINDS: dict[tuple[type[nn.Module], ...], Callable[..., Rule]] = {
    (nn.Linear,): _rules.linear,
    (nn.Conv1d, nn.Conv2d, nn.Conv3d): _rules.conv,
    (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d): _rules.conv_transpose,
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm): _rules.batch_norm,
    (nn.LayerNorm,): _rules.layer_norm,
    (nn.GroupNorm,): _rules.group_norm,
    (nn.RMSNorm,): _rules.rms_norm,
    (nn.Embedding, nn.EmbeddingBag): _rules.embedding,
}


def auto_rules(sides: Sides) -> list[Rule]:
    """A rule for every layer of the module that a JAX layer is found for."""
    assert sides.module is not None
    layers = [layer for layer in _layers(sides.module) if _has_tensors(layer, sides)]
    paths = _jax_paths(sides)
    written: dict[tuple[str, ...], list[str]] = {}
    for path in paths:
        written.setdefault(normal(path), []).append(path)

    found: dict[str, Rule] = {}
    for layer in layers:
        alike = written.get(normal(layer.path), [])
        rule = _at(layer, layer.path, "same path", sides) if layer.path in paths else None
        if rule is None and len(alike) == 1:
            rule = _at(layer, alike[0], "same path but for lists", sides)
        if rule is not None:
            found[layer.name] = rule
    taken = {name for rule in found.values() for name in _jax_names(rule)}
    free = [p for p in paths if not any(name.startswith(f"{p}.") for name in taken)]
    left = [layer for layer in layers if layer.name not in found]
    for layer, path in by_number(left, free):
        found[layer.name] = _marked(layer.make(path), "Linen's number")
    return [found[layer.name] for layer in layers if layer.name in found]


def _layers(model: nn.Module) -> Iterator[Layer]:
    """In order of registration; what is inside a layer of a known kind belongs to it."""
    inside: set[nn.Module] = set()
    for path, module in model.named_modules():
        if module in inside:
            continue
        known = list(_layers_of(path, module))
        if known:
            inside |= set(module.modules())
            yield from known
            continue
        own = *module.named_parameters(recurse=False), *module.named_buffers(recurse=False)
        for leaf, _ in own:
            name = join(path, leaf)
            yield Layer("tensor", name, partial(_rules.tensor, name))


def _layers_of(path: str, module: nn.Module) -> Iterator[Layer]:
    for classes, make in KINDS.items():
        if isinstance(module, classes):
            yield Layer(make.__name__, path, partial(make, path))
    if isinstance(module, nn.MultiheadAttention):
        make = partial(_rules_sequence.multihead_attention, path, heads=module.num_heads)
        yield Layer("multihead_attention", path, make)
    for kind, classes in (("lstm", (nn.LSTM, nn.LSTMCell)), ("gru", (nn.GRU, nn.GRUCell))):
        if not isinstance(module, classes):
            continue
        make = partial(getattr(_rules_sequence, kind), path)
        if isinstance(module, nn.RNNCellBase):
            yield Layer(kind, path, partial(make, layer=None))
            continue
        for layer in range(module.num_layers):
            for reverse in (False, True)[: 1 + module.bidirectional]:
                inside = _inside_recurrent(module, layer, reverse)
                one = partial(make, layer=layer, reverse=reverse)
                yield Layer(kind, path, one, inside, f"{layer}{reverse}")


def _inside_recurrent(module: nn.RNNBase, layer: int, reverse: bool) -> tuple[str, ...]:
    numbers = [f"{layer}", f"layers.{layer}", f"layers_{layer}"]
    sides = ("backward_rnn" if reverse else "forward_rnn",) if module.bidirectional else ("",)
    return (
        "",  # PyTorch's own names, or a single cell
        *(
            join(join(number, side), cell)
            for number in (["", *numbers] if module.num_layers == 1 else numbers)
            for side in sides
            for cell in ("cell", "")
            if number or side or cell
        ),
    )


def _at(layer: Layer, path: str, how: str, sides: Sides) -> Rule | None:
    """The rule of ``layer`` at ``path``, or just below; None if nothing is there."""
    rules = [layer.make(join(path, below)) for below in layer.inside]
    fitting = [rule for rule in rules if any(fits(v, sides) for v in rule.variants)]
    near = [rule for rule in rules if any(map(sides.jax.has, _jax_names(rule)))]
    rules = fitting or near
    return _marked(rules[0], how) if rules else None


def _jax_names(rule: Rule) -> Iterator[str]:
    return (name for v in rule.variants for link in v.links for name in link.jax)


def _has_tensors(layer: Layer, sides: Sides) -> bool:
    links = (link for variant in layer.make("").variants for link in variant.links)
    return any(sides.torch.has(name) for link in links for name in link.torch)


def _jax_paths(sides: Sides) -> dict[str, None]:
    """Every leaf, and everything above it, without collections; in order."""
    paths: dict[str, None] = {}
    bare = {real: name for name, real in sides.jax.lookup.items() if name != real}
    for name in sides.jax.shapes:
        parts = bare.get(name, name).split(".")
        for n in range(len(parts) + 1):
            paths[".".join(parts[:n])] = None
    return paths


def _marked(rule: Rule, how: str) -> Rule:
    """Its links say how they were found."""
    return replace(
        rule,
        variants=tuple(
            replace(v, links=tuple(replace(x, rule=f"{x.rule} ({how})") for x in v.links))
            for v in rule.variants
        ),
    )
