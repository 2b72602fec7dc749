"""A step on 8 simulated devices beside the same step on one: ``sharded.py GROUP`` in float64.

Prints one JSON object: the error of each case of the group, null where there is none.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings

import jax

import sharded_calls
import sharded_lowered
import sharded_replicas
import sharded_same
from conftest import strict_float64
from sharded_walk import CASES, REPLICAS


FILES = (sharded_same, sharded_replicas, sharded_calls, sharded_lowered)  # each adds its cases


def main(group: str) -> None:
    warnings.simplefilter("error")
    failed = {}
    for name, fn in CASES[group].items():
        try:
            with strict_float64():
                fn()
            failed[name] = None
        except Exception:
            failed[name] = traceback.format_exc()
    print(json.dumps(failed))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", REPLICAS)
    main(sys.argv[1])
