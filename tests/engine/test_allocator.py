"""Memory that a step frees is there for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_STEPS = """
import resource, sys, torch
from weft.engine.determinism import reproducible

def faults():
    for _ in range(30):
        kept = [torch.ones(1_200_000) for _ in range(8)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "inside":
    with reproducible(threads=1, deterministic=True, device=torch.device("cpu")):
        before = faults()
        print(faults() - before)
else:
    before = faults()
    print(faults() - before)
"""


def faults(where: str, **variables: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", _STEPS, where], env=environment | variables, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told anything")
def test_pages_are_not_asked_for_anew_in_each_step_unless_the_environment_says_so() -> None:
    """A system that reclaims memory by itself may take some pages at any time."""
    anew = faults("outside")
    if anew == 0:
        pytest.skip("this system counts no page faults")
    assert anew > 30 * 1_000  # one step touches 9,375 pages
    assert faults("inside") < anew / 3
    assert faults("inside", MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > 30 * 1_000
