"""Every public name has a docstring from which it can be used, and that is true of its code.

a. It begins with one sentence on a line of its own, which ends in a full stop or a colon.
b. A parameter that is an array (by its annotation: ``jax.Array``, ``np.ndarray``) or a tree of
   them (``PyTree``) has its shape told where it is described, or the docstring does: in
   parentheses, ``(N, C)``, or by a word of ``SHAPE``. With arrays it names a dtype too.
c. It names the PyTorch call that it equals, and PyTorch has it. ``NO_EQUAL`` says why not.
d. What its code raises, or a private function that it calls by name, stands under ``Raises:``.
e. It mentions every parameter: under ``Args:``, in double backticks, or for a field of a record
   in the comment beside it.
f. ``PAPER`` lists what cites one, under ``References:``.
g. A method or property of it without an underscore has a docstring by a, its own or that of the
   protocol that it fills, and what its own code raises stands there.

"As for ``f``" hands b, d and e on to the docstring of f; in ``instep.ops`` so does any f of the
first line. An operator there has the arguments of PyTorch's: e asks only for those that are not
in PyTorch's schema or signature. And b, d and f may be answered once for a file, in its own
docstring: in the paragraph that begins with "Shapes and dtypes:", under ``Raises:`` and under
``References:``.
"""

import ast
import contextlib
import functools
import inspect
import re
from importlib import import_module

import pytest
import torch

import docstrings as d


SHAPE = re.compile(
    r"\(\)|\(\w+,\)|\((?:[\w*+/. -]+, ?)+[\w*+/. -]+\)|\blike \S|"
    r"\b(scalars?|shapes?|broadcasts?|(py)?trees?|lea(f|ves)|matri(x|ces)|vectors?)\b"
)
DTYPE = re.compile(
    r"\b(dtypes?|floating|floats?|integers?|bool(ean)?s?|complex|u?int\d+|b?float\d+|real|bits?)\b"
)
REFERENCE = re.compile(r"\b[Aa]s\s+(?:for\s+|in\s+)?``([\w.]+)``")

# Module, or module and name: why PyTorch has nothing that it could equal.
NO_EQUAL = {
    "instep.parity": "compares a PyTorch loop with a JAX loop",
    "instep.progress": "shows and records a JAX step",
    "instep.bench": "times both sides",
    "instep.workloads": "problems, each with a PyTorch half",
    "instep.Pair": "two halves of a comparison",
    "instep.JaxLoop": "the counterpart of TorchLoop, itself a record of instep",
    "instep.Metrics": "what a step returns; a PyTorch loop has it in variables",
    "instep.keep_memory": "PyTorch allocates too little at a time to need it",
    "instep.View": "what an observer sees inside a step",
    "instep.checkpoint.CheckpointError": "an error of instep",
    "instep.checkpoint.CheckpointWarning": "a warning of instep",
    "instep.sharding.ProcessLostError": "an error of instep",
    "instep.data.BatchIterator": "a protocol: PyTorch's loaders have no positions",
    "instep.data.BatchStream": "a protocol: PyTorch's loaders have no positions",
    "instep.data.Epochs": "a stream with positions",
    "instep.data.mapped": "a stream with positions",
    "instep.data.from_grain": "reads grain",
    "instep.data.pad": "a shape is compiled once: PyTorch takes any",
}

PAPER = {
    "instep": "GradScaler Policy",
    "instep.optim": "adadelta adafactor adagrad adam adamax adamw asgd lbfgs muon nadam radam "
    "rmsprop rprop sgd sparse_adam ema_avg_fn swa_avg_fn update_bn",
    "instep.schedules": "cosine_annealing_lr cosine_annealing_warm_restarts cyclic_lr "
    "linear_lr one_cycle_lr swa_lr",
    "instep.losses": "cross_entropy ctc_loss gaussian_nll_loss huber_loss kl_div "
    "linear_cross_entropy multi_margin_loss smooth_l1_loss triplet_margin_loss",
    "instep.ops": "alpha_dropout batch_norm celu dropout elu fractional_max_pool gelu glu "
    "group_norm gru_cell instance_norm layer_norm lstm_cell mish pixel_shuffle prelu rms_norm "
    "rrelu scaled_dot_product_attention selu silu straight_through weight_norm",
    "instep.sharding": "fsdp",
}

# What is taken out of a docstring, by a pattern, and the rule that must miss it.
PLANTS = [
    ("instep", "split", r"consecutive examples\.", "a"),
    ("instep.losses", "cross_entropy", r"shape ``\(C,\)``, .*?floating", "b"),
    ("instep.ops", "dropout", r"any shape, floating", "b"),
    ("instep", "clip_grad_norm", r"torch\.nn\.utils\.clip_grad_norm_", "c"),
    ("instep.optim", "adamw", r"torch\.optim\.AdamW", "c"),
    ("instep.ops", "sigmoid", r"torch\.", "c"),
    ("instep.losses", "kl_div", r"(?s)Raises:.*", "d"),
    ("instep.optim", "param_groups", r"TypeError: a group is not a pair\.", "d"),
    ("instep.bridge", "conv", r"Arguments and errors as for ``linear``\.", "d"),
    ("instep", "init_state", r"scaler: with one", "e"),
    ("instep.optim", "adamw", r"(?s)References:.*", "f"),
]

CASES = [(module, name) for module in d.MODULES for name in d.public(module)]


@pytest.mark.parametrize(("module", "name"), CASES, ids=map(".".join, CASES))
def test_docstring(module, name):
    assert not faults(module, name)


@pytest.mark.parametrize(("module", "name", "text", "rule"), PLANTS)
def test_the_rules_have_teeth(module, name, text, rule, monkeypatch):
    obj = d.public(module)[name]
    doc, n = re.subn(text, "", obj.__doc__)
    assert n
    monkeypatch.setattr(obj, "__doc__", doc)
    assert rule in {fault[0] for fault in faults(module, name)}


@pytest.mark.parametrize("text", [r"Save|Write a checkpoint.*", r"ValueError: "])
def test_the_rule_of_methods_has_teeth(text, monkeypatch):
    save = d.public("instep.checkpoint")["Checkpointer"].save
    monkeypatch.setattr(save, "__doc__", re.sub(text, "", save.__doc__))
    assert "g" in {fault[0] for fault in faults("instep.checkpoint", "Checkpointer")}


def faults(module: str, name: str) -> list[str]:
    obj = d.public(module)[name]
    doc = d.docstring(name, obj)
    if not doc:
        return ["a: there is no docstring"]
    if not getattr(obj, "__module__", "instep").startswith("instep"):
        return ["a: a stray import"]
    own = {**d.comments(obj), **d.entries(doc)}
    family = family_of(name) if module == "instep.ops" else ""
    others = [(f, d.public(module)[f]) for f in referred(doc, module) if f in d.public(module)]
    found = list(summary(doc))
    found += shapes(obj, doc, own, [*(d.docstring(*x) for x in others), family])
    found += equal(module, name, doc)
    texts = [doc, family, *(d.docstring(*x) for x in others)]
    said = "".join(d.section(text, "Raises") for text in texts)
    documented = set(re.findall(r"\w+", said))
    found += [f"d: raises {error}" for error in sorted(d.raised(obj) - documented)]
    inherited = {p for x in others for p in d.parameters(x[1])}
    inherited |= of_torch(doc) if module == "instep.ops" else set()
    for p in d.parameters(obj).keys() - own.keys() - inherited:
        if not re.search(rf"``\*{{0,2}}{p}\b", doc + family):
            found.append(f"e: does not mention {p}")
    if name in PAPER.get(module, "").split() and not cites(name, doc, family):
        found.append("f: cites no paper")
    for method, function in d.methods(obj).items():
        told = inspect.getdoc(getattr(obj, method)) or ""
        found += [f"g: {method}: {fault}" for fault in summary(told or "nothing")]
        errors = d.raised(function, helpers=0) - set(re.findall(r"\w+", told))
        found += [f"g: {method} raises {error}" for error in sorted(errors)]
    return found


def cites(name, doc, family):
    in_file = d.section(family, "References")
    return "<http" in d.section(doc, "References") or f"``{name}``" in in_file


def summary(doc):
    first, *rest = doc.split("\n")
    if not first.endswith((".", ":")) or (rest and rest[0].strip()):
        yield f"a: the first line is not a sentence: {first}"
    elif re.search(r"(?<!\be\.g)(?<!\bi\.e)\. [A-Z`]", first):
        yield f"a: the first line has two sentences: {first}"


def shapes(obj, doc, own, others):
    elsewhere = "".join(others).replace("Shapes and dtypes:", "")
    prose = doc.partition("Args:")[0] if own else doc
    arrays = {p: a for p, a in d.parameters(obj).items() if "Callable" not in a}
    for p, annotation in arrays.items():
        if not re.search(r"\b(Array|ndarray|PyTree)\b", annotation):
            continue
        if not SHAPE.search(own.get(p, prose)) and not SHAPE.search(elsewhere):
            yield f"b: no shape of {p}"
    held = any(re.search(r"\b(Array|ndarray)\b", a) for a in arrays.values())
    if held and not DTYPE.search(doc + str(own) + elsewhere):
        yield "b: no dtype"


def equal(module, name, doc):
    names = d.torch_names(doc)
    absent = [n for n, held in names.items() if held is None]
    for n in absent:
        if n.startswith(("torch.", "nn.", "aten.")):
            yield f"c: PyTorch has no {n}"
    exempt = module in NO_EQUAL or f"{module}.{name}" in NO_EQUAL
    if len(absent) == len(names) and not exempt:
        yield "c: names no PyTorch call"


def referred(doc: str, module: str) -> list[str]:
    """The names of the same module that a docstring refers to."""
    named = REFERENCE.findall(doc)
    if module == "instep.ops":  # "``conv2d`` with one axis of space"
        named += re.findall(r"``(\w+)``", doc.split("\n")[0])
    return [name.rpartition(".")[2] for name in named]


@functools.cache
def families() -> dict[str, str]:
    """Which file an operator is imported from."""
    tree = ast.parse(inspect.getsource(import_module("instep.ops")))
    lines = [x for x in tree.body if isinstance(x, ast.ImportFrom)]
    return {alias.asname: f"instep.ops.{x.module}" for x in lines for alias in x.names}


def family_of(name: str) -> str:
    """What the file of an operator says of all of its operators."""
    doc = inspect.cleandoc(import_module(families()[name]).__doc__ or "")
    told = [
        x for x in doc.split("\n\n") if x.startswith(("Shapes and dtypes:", "Raises:", "Ref"))
    ]
    return "\n\n".join(told)


def of_torch(doc: str) -> set[str]:
    """The arguments of the PyTorch functions that a docstring names."""
    found = set()
    for name, function in d.torch_names(doc).items():
        leaf = name.rpartition(".")[2]
        packet = getattr(torch.ops.aten, leaf, None) or getattr(
            torch.ops.aten, name.replace("torch.", "").replace(".", "_"), None
        )
        for overload in packet.overloads() if packet is not None else ():
            schema = getattr(packet, overload)._schema
            found |= {a.name for a in schema.arguments}
        with contextlib.suppress(TypeError, ValueError):  # a builtin: its schema is above
            found |= set(inspect.signature(function).parameters)
    return found | ({"input"} if "self" in found else set())
