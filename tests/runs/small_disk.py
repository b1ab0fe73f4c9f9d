"""Run a piece of Python where a small or read-only disk is mounted, in a mount namespace of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def run_on_disk(folder: Path, options: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` with a tmpfs mounted on `folder`; skips visibly where the system allows no mounts.

    Args:
        folder: an existing empty folder; `code` gets its path as `sys.argv[1]`.
        options: mount options of the tmpfs, e.g. "size=64k".
        code: Python source.
    """
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("needs mount namespaces (Linux, unshare) for a small disk")
    script = 'mount -t tmpfs -o "$1" tmpfs "$2" && exec "$3" -c "$4" "$2"'
    command = [*namespace, "sh", "-c", script, "sh", options, str(folder), sys.executable, code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)
