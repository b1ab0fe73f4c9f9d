"""Hints of messages: the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 12


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that is most like the given one, whatever its case; None when none is."""
    by_lower = {candidate.lower(): candidate for candidate in valid}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """A hint that names the nearest valid name, or else the valid names."""
    names = [str(candidate) for candidate in valid]
    if (found := nearest(str(name), names)) is not None:
        return f"did you mean '{found}'?"
    return listing(names)


def listing(names: Iterable[str]) -> str:
    """A hint that lists valid names, the first dozen."""
    known = list(names)
    if not known:
        return ""
    return "valid: " + ", ".join(known[:_SHOWN]) + (f", and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")


def shown(value: object) -> str:
    """A value as it appears in a message."""
    text = (
        {None: "nothing", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    )
    text = text or repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
