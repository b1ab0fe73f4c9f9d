"""What starting costs: `weft --help`, and importing the engine beside torch and beside others."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any

from benchmarks.pairs import Spread, spread

# Imports what the first argument names, then what the second names; tells CPU seconds of each and the peak of memory.
_IMPORT = """
import importlib, json, resource, sys, time
first, second = (names.split(",") for names in sys.argv[1:3])
start = time.process_time()
for name in filter(None, first): importlib.import_module(name)
middle = time.process_time()
for name in filter(None, second): importlib.import_module(name)
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps({"first": middle - start, "second": time.process_time() - middle,
                  "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}))
"""
_HELP = """
import sys
from weft.cli import main
sys.argv = ["weft", "--help"]
try:
    main()
except SystemExit:
    pass
print("torch" in sys.modules, file=sys.stderr)
"""
PACKAGES = {
    "weft.engine": "weft",
    "lightning.pytorch": "lightning",
    "ignite.engine": "ignite",
    "accelerate": "accelerate",
}


def run() -> subprocess.CompletedProcess[str]:
    """`weft --help` in a new process; the last line of standard error tells whether torch was imported."""
    return subprocess.run([sys.executable, "-c", _HELP], capture_output=True, text=True, check=True)


def measure(count: int) -> dict[str, Any]:
    """Wall seconds of `weft --help` (with the start of Python), CPU seconds and MiB of imports over torch."""
    helps, imports = [], {name: [] for name in PACKAGES if find_spec(PACKAGES[name]) is not None}
    torches: list[dict[str, float]] = []
    run()  # the first one reads the files from the disk
    imports_torch = False
    for _ in range(count):
        start = time.perf_counter()
        imports_torch |= run().stderr.split()[-1] == "True"
        helps.append(time.perf_counter() - start)
        torches.append(imported("torch", ""))
        for name, found in imports.items():
            found.append(imported("torch", name))
    plain = spread([one["memory"] for one in torches]).median
    return {
        "help_seconds": spread(helps),
        "help_imports_torch": imports_torch,
        "torch_seconds": spread([one["first"] for one in torches]),
        "torch_memory": plain,
        "imports": {
            name: (spread([one["second"] for one in found]), spread([one["memory"] for one in found]).median - plain)
            for name, found in imports.items()
        },
    }


def imported(first: str, second: str) -> dict[str, float]:
    """CPU seconds of importing `first`, then of importing `second`, and peak memory in MiB, in a new process."""
    command = [sys.executable, "-c", _IMPORT, first, second]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def report(count: int) -> list[str]:
    """The figures as lines of a Markdown table."""
    figures = measure(count)
    loaded = "imports torch" if figures["help_imports_torch"] else "no torch imported"
    lines = [
        "| start-up | median | 90 % interval | memory | goal |",
        "|---|---:|---|---:|---|",
        _line(f"`weft --help`, wall ({loaded})", figures["help_seconds"], "", "≤ 0.25 s"),
        _line("`import torch`, CPU", figures["torch_seconds"], f"{figures['torch_memory']:.0f} MiB", ""),
    ]
    for name, (seconds, memory) in figures["imports"].items():
        goal = "≤ 0.3 s" if name == "weft.engine" else ""
        lines.append(_line(f"`import {name}` after torch, CPU", seconds, f"+{memory:.0f} MiB", goal))
    return lines


def _line(what: str, found: Spread, memory: str, goal: str) -> str:
    return f"| {what} | {found.median:.2f} s | {found.low:.3f}–{found.high:.3f} | {memory} | {goal} |"
