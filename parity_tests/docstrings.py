"""What ``test_docstrings`` reads: public names, docstrings, and what their code raises."""

import ast
import builtins
import dataclasses
import enum
import functools
import inspect
import itertools
import re
import sys
import textwrap
import types
from importlib import import_module

import torch


SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|References|Example):+$", re.M)
TORCH = re.compile(
    r"(?<![\w.])(torch|nn|aten|Tensor|optimizer|scheduler|scaler|loss|model)((?:\.\w+)+)"
)
ROOTS = {
    "torch": torch,
    "nn": torch.nn,
    "aten": torch.ops.aten,
    "Tensor": torch.Tensor,
    "optimizer": torch.optim.SGD([torch.zeros(1)]),
    "scheduler": torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.zeros(1)]), 1),
    "scaler": torch.amp.GradScaler,
    "loss": torch.Tensor,
    "model": torch.nn.Module,
}


def public(module: str) -> dict[str, object]:
    """What ``dir`` shows of a module, without its submodules."""
    held = import_module(module)
    found = {name: getattr(held, name) for name in dir(held) if not name.startswith("_")}
    return {k: v for k, v in found.items() if not isinstance(v, types.ModuleType)}


def function_of(obj):
    """The function under ``custom_jvp``, ``jit``, ``contextmanager`` and their kin."""
    return obj if inspect.isclass(obj) else inspect.unwrap(obj)


def docstring(name: str, obj) -> str:
    """Of a function or class its own; of a constant the string below its assignment."""
    if inspect.isclass(obj) or isinstance(function_of(obj), types.FunctionType):
        own = vars(obj).get("__doc__") if inspect.isclass(obj) else obj.__doc__
        generated = dataclasses.is_dataclass(obj) and (own or "").startswith(f"{name}(")
        return "" if generated else inspect.cleandoc(own or "")
    for module in [m for n, m in sys.modules.items() if n.startswith("instep.")]:
        if vars(module).get(name) is not obj:
            continue
        lines = _tree(module).body
        for line, below in itertools.pairwise(lines):
            assigned = isinstance(line, ast.Assign | ast.AnnAssign)
            if assigned and name in {n.id for n in ast.walk(line) if isinstance(n, ast.Name)}:
                told = getattr(getattr(below, "value", None), "value", None)
                if isinstance(told, str):
                    return inspect.cleandoc(told)
    return ""


def section(doc: str, title: str) -> str:
    """The text under ``title:``, or nothing."""
    parts = SECTION.split(doc)
    return dict(zip(parts[1::2], parts[2::2], strict=True)).get(title, "")


def entries(doc: str) -> dict[str, str]:
    """What ``Args:`` says, by parameter; ``a, b: ...`` is for each of the two."""
    text = section(doc, "Args") + section(doc, "Attributes")
    found = re.split(r"^  (?! )([\w*, \n]+?):(?=\s)", text, flags=re.M)
    pairs = zip(found[1::2], found[2::2], strict=True)
    return {n.strip(" *\n"): said for names, said in pairs for n in names.split(",")}


def comments(obj) -> dict[str, str]:
    """What the comment beside or above each field of a record says."""
    if not (inspect.isclass(obj) and (dataclasses.is_dataclass(obj) or _is_tuple(obj))):
        return {}
    found, above = {}, ""
    for line in inspect.getsource(obj).splitlines():
        code, _, said = line.partition("# ")
        if field := re.match(r"    (\w+): ", code):
            found[field[1]] = said or above
        elif said and found and not next(reversed(found.values())):  # in parentheses
            found[next(reversed(found))] = said
        above = said if not code.strip() else ""
    return {name: said for name, said in found.items() if said}


def parameters(obj) -> dict[str, str]:
    """Names and annotations; of a class those of its constructor, if it has its own."""
    if inspect.isclass(obj):
        made = dataclasses.is_dataclass(obj) or "__init__" in vars(obj) or _is_tuple(obj)
        if not made or getattr(obj, "_is_protocol", False):
            return {}
    elif not isinstance(function_of(obj), types.FunctionType):
        return {}
    signature = inspect.signature(obj)
    return {name: str(p.annotation) for name, p in signature.parameters.items()}


def methods(obj) -> dict[str, types.FunctionType]:
    """The functions of a class's own methods and properties without an underscore."""
    found = {}
    fields = getattr(obj, "__dataclass_fields__", {})
    for name, held in vars(obj).items() if inspect.isclass(obj) else ():
        if isinstance(held, property):
            held = held.fget
        elif isinstance(held, classmethod | staticmethod):
            held = held.__func__
        is_own = not name.startswith("_") and name not in fields
        if is_own and isinstance(held, types.FunctionType):
            found[name] = held
    return found


def _is_tuple(obj) -> bool:
    return issubclass(obj, tuple) and hasattr(obj, "_fields")


def raised(obj, helpers: int = 1) -> set[str]:
    """What ``obj`` raises, and the private functions that it calls by name."""
    if inspect.isclass(obj):
        if issubclass(obj, enum.Enum) or getattr(obj, "_is_protocol", False):
            return set()
        own = [vars(obj).get(name) for name in ("__init__", "__new__", "__post_init__")]
        return set().union(*(raised(f, helpers) for f in own if f is not None))
    function = function_of(obj)
    if not isinstance(function, types.FunctionType) or function.__code__.co_filename[0] == "<":
        return set()  # what a dataclass writes
    known = function.__globals__ | inspect.getclosurevars(function).nonlocals
    return {name for node in ast.walk(_tree(function)) for name in _of(node, known, helpers)}


def _of(node, known, helpers):
    if isinstance(node, ast.Raise) and node.exc is not None:
        called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        name = getattr(called, "id", "")
        kind = known.get(name, getattr(builtins, name, None))
        if inspect.isclass(kind) and kind is not StopIteration:
            yield name
    if helpers and isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        callee = known.get(node.func.id)
        ours = getattr(callee, "__module__", "").startswith("instep")
        if ours and isinstance(callee, types.FunctionType) and callee.__name__ not in _public():
            yield from raised(callee, helpers - 1)


@functools.cache
def _public() -> frozenset[str]:
    return frozenset(name for module in MODULES for name in public(module))


@functools.cache
def _tree(function):
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def torch_names(doc: str) -> dict[str, object]:
    """The PyTorch calls that a docstring names, and what they are; None: not there."""
    return {root + rest: _resolved(root, rest) for root, rest in TORCH.findall(doc)}


def _resolved(root: str, rest: str):
    held, path = ROOTS[root], root
    for part in rest[1:].split("."):
        path = f"{path}.{part}"
        if root == "torch" and not hasattr(held, part):
            try:
                import_module(path)
            except ImportError:
                return None
        held = getattr(held, part, None)
    return held


MODULES = [
    "instep",
    *(f"instep.{name}" for name in ("optim", "schedules", "losses", "ops", "bridge", "parity")),
    *(f"instep.{name}" for name in ("checkpoint", "data", "sharding", "progress", "bench")),
    "instep.workloads",
]
