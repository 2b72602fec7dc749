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

from . import _rules, _rules_sequence
from ._linen import Layer, by_number, normal
from ._rule import Rule, join
from ._sides import Sides, fits


# The kind of a layer -> what makes its rule.
RULES: dict[str, Callable[..., Rule]] = {
    make.__name__: make
    for make in (
        _rules.linear,
        _rules.conv,
        _rules.conv_transpose,
        _rules.batch_norm,
        _rules.layer_norm,
        _rules.group_norm,
        _rules.rms_norm,
        _rules.embedding,
        _rules.tensor,
        _rules_sequence.multihead_attention,
        _rules_sequence.lstm,
        _rules_sequence.gru,
    )
}


def auto_rules(sides: Sides) -> list[Rule]:
    """A rule for every layer of the module that a JAX layer is found for."""
    assert sides.torch.layers is not None
    layers = [layer for layer in sides.torch.layers if _has_tensors(layer, sides)]
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
        found[layer.name] = _marked(_make(layer, path), "Linen's number")
    return [found[layer.name] for layer in layers if layer.name in found]


def _make(layer: Layer, path: str) -> Rule:
    """Its rule, with the JAX side at ``path``."""
    return RULES[layer.kind](layer.path, path, **layer.options)


def _at(layer: Layer, path: str, how: str, sides: Sides) -> Rule | None:
    """The rule of ``layer`` at ``path``, or just below; None if nothing is there."""
    rules = [_make(layer, join(path, below)) for below in layer.inside]
    fitting = [rule for rule in rules if any(fits(v, sides) for v in rule.variants)]
    near = [rule for rule in rules if any(map(sides.jax.has, _jax_names(rule)))]
    rules = fitting or near
    return _marked(rules[0], how) if rules else None


def _jax_names(rule: Rule) -> Iterator[str]:
    return (name for v in rule.variants for link in v.links for name in link.jax)


def _has_tensors(layer: Layer, sides: Sides) -> bool:
    links = (link for variant in _make(layer, "").variants for link in variant.links)
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
