"""The catalogue of mistakes, as docs/causes.md.

python benchmarks/causes_page.py            writes the page
python benchmarks/causes_page.py --check    exit 1 if it would write another one
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from instep.parity.diagnosis._mistake import Mistake
from instep.parity.diagnosis._ways import CATALOGUE


PAGE = Path(__file__).parent.parent / "docs" / "causes.md"
HEAD = """# What goes wrong in a port

When a walk is not in step, `instep parity` takes PyTorch's step apart: forward and backward,
clip, schedule, optimizer. It gives each part what JAX itself made before it, and makes the
mistakes below in it, one after the other, wherever they can be made. The one with which
PyTorch makes JAX's numbers, as strictly as the walk judges, is the cause; it is then kept, and
the next part is looked at. Mistakes that make the same numbers here are named together. If
none of them does, the report says so, and where the first number is missing: the PyTorch
module, and the line of the JAX source.

{count} mistakes are known.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD.format(count=len(CATALOGUE))]
    by_module: dict[str, list[Mistake]] = {}
    for mistake in CATALOGUE.values():
        by_module.setdefault(mistake.variants.__module__, []).append(mistake)
    for module, mistakes in by_module.items():
        title = (sys.modules[module].__doc__ or "").partition(".")[0].partition(":")[0]
        rows = [f"| `{m.name}` | {m.says} | {m.fix.replace('|', '/')} |" for m in mistakes]
        table = "\n".join(["| name | what happened | what to do |", "|---|---|---|", *rows])
        parts.append(f"\n## {' '.join(title.split())}\n\n{table}\n")
    return "".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return int(PAGE.read_text() != page())
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
