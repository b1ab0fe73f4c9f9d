"""A real terminal that nobody sees: progress bars behave as they do for a person."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Iterator

ROWS, COLUMNS = 24, 120


@contextlib.contextmanager
def hidden_terminal() -> Iterator[None]:
    """Standard output and error go to a pseudo-terminal that another process (so another CPU clock) reads empty."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    reader = subprocess.Popen(["cat"], stdin=master, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(master)
    before = {name: os.environ.get(name) for name in ("TERM", "COLUMNS")}
    os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS))
    try:
        with (
            open(slave, "w", buffering=1, encoding="utf-8") as screen,
            contextlib.redirect_stdout(screen),
            contextlib.redirect_stderr(screen),
        ):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        reader.terminate()
        reader.wait()
