"""The garbage collector passes over imported packages, and over nothing else."""

import json
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import atexit, gc, json, sys, weakref
full, result = [], {}
gc.callbacks.append(lambda phase, info: full.append(phase) if info["generation"] == 2 and phase == "start" else None)
atexit.register(lambda: print(json.dumps({**result, "frozen": gc.get_freeze_count()})))  # the last one that is called
if sys.argv[1] == "spared":
    from gss.collector import spare_modules
    spare_modules()
import gss._compat, timm
result["full"] = len(full)

class Circle: pass

circle = Circle()
circle.itself = circle
gone = weakref.ref(circle)
del circle
lists = [[] for _ in range(20_000)]
result["young"] = gone() is None
"""


def ended(how: str) -> Any:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("how", ["spared", "as always"])
def test_full_passes_are_spared_and_young_objects_are_not(how: str) -> None:
    found = ended(how)
    spared = how == "spared"
    assert found["young"]
    assert (found["full"] == 0) == spared
    assert (found["frozen"] > 100_000) == spared
