"""Build the wheel, install it where there is no PyTorch, and run the README's first snippet.

python parity_tests/wheel.py
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path


ROOT = Path(__file__).parent.parent
AFTER = """
import importlib.util, pathlib, sys
assert importlib.util.find_spec("torch") is None, "PyTorch is there"
assert pathlib.Path(instep.__file__).is_relative_to(sys.prefix), instep.__file__
assert float(metrics.loss) < 0.5, metrics.loss
print("instep", instep.__version__, "with jax", jax.__version__)
"""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def main() -> None:
    snippet = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    with tempfile.TemporaryDirectory() as name:
        there = Path(name)
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", there, ROOT)
        run(sys.executable, "-m", "venv", there / "env")
        (wheel,) = there.glob("*.whl")
        python = there / "env" / "bin" / "python"
        pins = ROOT / "constraints.txt"
        run(python, "-m", "pip", "install", "-q", "--constraint", pins, wheel)
        run(python, "-I", "-c", snippet + AFTER, cwd=there)


if __name__ == "__main__":
    main()
