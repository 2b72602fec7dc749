"""A step on a mesh is the step of one device; each group has a process of 8 devices."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sharded import CASES


@pytest.mark.parametrize("group", CASES)
def test_on_8_devices(group):
    script = Path(__file__).with_name("sharded.py")
    done = subprocess.run(
        [sys.executable, script, group], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    failed = json.loads(done.stdout.splitlines()[-1])
    assert failed.keys() == CASES[group].keys()
    wrong = {name: error for name, error in failed.items() if error}
    assert not wrong, "\n".join(f"{name}\n{error}" for name, error in wrong.items())
