"""Packages that only some observers need."""

from __future__ import annotations

from importlib.util import find_spec

from weft.errors import UsageError


def require_extra(package: str, extra: str, asked_by: str) -> None:
    """Raise when a package is not installed, before anything is trained.

    Args:
        package: its import name.
        extra: the extra of Weft that brings it.
        asked_by: the setting that needs it.

    Raises:
        UsageError: it is not installed; the hint is the command that installs it.
    """
    if find_spec(package) is None:
        raise UsageError(f"{asked_by} needs {package}, which is not installed", f"pip install 'weft[{extra}]'")
