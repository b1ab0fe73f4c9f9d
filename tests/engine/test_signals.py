"""Signals whose handlers Python did not set: it runs inside of another program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOST = """
#include <signal.h>
#include <unistd.h>
static void heard(int number) { _exit(77); }
__attribute__((constructor)) static void begin(void) { signal(SIGTERM, heard); }
"""

GUEST = """
import os, signal
from weft.actions.launching import _handed_on
from weft.actions.stopping import stoppable
from weft.engine.signals import Interruption

assert signal.getsignal(signal.SIGTERM) is None
for entered in (Interruption(), stoppable(), _handed_on()):
    with entered:
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
def test_what_the_program_around_python_has_set_stays(tmp_path: Path) -> None:
    source, library = tmp_path / "host.c", tmp_path / "host.so"
    source.write_text(HOST, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    ended = subprocess.run(
        [sys.executable, "-c", GUEST],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 77, ended.stderr
