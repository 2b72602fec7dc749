"""A page for each module, of every name that it makes public."""

from __future__ import annotations

import ast
import re
from functools import cache

from links import ROOT


SOURCE = ROOT / "src" / "instep"
ROOMS = {
    "instep": "the step, its verbs and its records",
    "instep.optim": "`torch.optim`",
    "instep.schedules": "`torch.optim.lr_scheduler`",
    "instep.losses": "the losses of `torch.nn.functional`",
    "instep.ops": "PyTorch's operators, values and gradients",
    "instep.bridge": "PyTorch in, PyTorch out",
    "instep.parity": "both halves side by side, and the verdict",
    "instep.checkpoint": "states on disk",
    "instep.data": "batches that can be resumed",
    "instep.sharding": "meshes and processes",
    "instep.progress": "what `instep train` shows and writes",
    "instep.bench": "timing beside others",
    "instep.workloads": "the problems that come along",
}


def public(module: str) -> list[str]:
    """The names of a module without an underscore: made here, or imported ``x as x``."""
    path = SOURCE.joinpath(*module.split(".")[1:], "__init__.py")
    names: list[str] = []
    body = list(ast.parse(path.read_text()).body)
    for node in body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            body.extend(node.body)
        elif isinstance(node, ast.ImportFrom):
            names += [x.name for x in node.names if x.name == x.asname]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [x.id for x in node.targets if isinstance(x, ast.Name)]
    rooms = {room.rpartition(".")[2] for room in ROOMS}
    return [n for n in dict.fromkeys(names) if not n.startswith("_") and n not in rooms]


def pages() -> dict[str, str]:
    """Page -> text. A name that two modules have in common is on the page of the first."""
    made, seen = {}, set(public("instep"))
    for room in ROOMS:
        names = public(room)
        lines = [f"# {room}\n", f"::: {room}", "    options:", "      members: false"]
        lines += ["      show_root_heading: false", "      show_root_toc_entry: false\n"]
        if room == "instep":
            lines += ["| module | |", "|---|---|"]
            lines += [f"| [`{r}`]({r}.md) | {says} |" for r, says in list(ROOMS.items())[1:]]
            lines.append("")
        again = [n for n in names if room != "instep" and n in seen and _same(room, n)]
        if again:
            said = ", ".join(f"[`{n}`](instep.md#instep.{n})" for n in sorted(again))
            lines.append(f"Also here: {said}.\n")
        if room == "instep.ops":
            lines += _by_file(room)
        else:
            for name in sorted(set(names) - set(again), key=str.lower):
                lines += _entry(room, name)
        made[f"api/{room}.md"] = "\n".join(lines)
    return made


def _entry(room: str, name: str, **options: str | int) -> list[str]:
    """What makes mkdocstrings show one name."""
    if _is_enum(name):  # its members have no docstrings of their own
        options["show_if_no_docstring"] = "true"
    given = [f"      {key}: {value}" for key, value in options.items()]
    return [f"::: {room}.{name}", *(["    options:", *given] if given else []), ""]


def _by_file(room: str) -> list[str]:
    """Every file of a module as a section: its first sentence, its docstring, its names."""
    lines = []
    folder = SOURCE.joinpath(*room.split(".")[1:])
    for node in ast.parse((folder / "__init__.py").read_text()).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        tree = ast.parse((folder / f"{node.module}.py").read_text())
        first, _, rest = (ast.get_docstring(tree) or "").partition("\n")
        lines += [f"## {re.split(r'[.:]|, with ', first)[0]}\n"]
        if rest:
            hidden = {"members": "false", "show_root_heading": "false"}
            lines += _entry(room, node.module or "", **hidden, show_root_toc_entry="false")
        for name in sorted(x.name for x in node.names if x.name == x.asname):
            lines += _entry(room, name, heading_level=3)
    return lines


def _same(room: str, name: str) -> bool:
    """Whether the name in ``room`` is what ``instep`` has under it, and not another one."""
    short = room.rpartition(".")[2]
    text = (SOURCE / "__init__.py").read_text()
    tree = ast.parse(text)
    return any(
        isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] == short
        and any(x.name == name for x in node.names)
        for node in ast.walk(tree)
    )


@cache
def _enums() -> frozenset[str]:
    texts = (path.read_text() for path in SOURCE.rglob("*.py"))
    return frozenset(
        x for text in texts for x in re.findall(r"^class (\w+)\(\w*Enum\)", text, re.M)
    )


def _is_enum(name: str) -> bool:
    return name in _enums()
