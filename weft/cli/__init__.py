"""The command line: one file per command; each parses, calls a function of `weft.actions`, and prints.

Results go to standard output, everything else to standard error. No command imports torch before it needs it.
"""

from weft.cli.app import app, main

__all__ = ["app", "main"]
