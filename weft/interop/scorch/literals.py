"""`--model-args` and `--dataset-args`: the inside of a dict of literals, which are read and never evaluated."""

from __future__ import annotations

import ast
from typing import Any

from weft.errors import UsageError

_LONGEST = 100_000  # characters; what is longer belongs into a file of its own


def parse_arguments(text: str, flag: str) -> dict[str, Any]:
    """Keyword arguments from a text as `'hidden': 20, 'names': ['a', 'b']`.

    Args:
        text: names and values as they stand between the braces of a dict.
        flag: where the text was given, for messages.

    Raises:
        UsageError: it is something else than names and literals.
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"{len(text)} characters")
        found = ast.literal_eval("{" + text + "}")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _not_literals(text, flag) from error
    if not isinstance(found, dict):  # {1, 2} is a set, and }, { makes a tuple
        raise _not_literals(text, flag)
    wrong = [name for name in found if not (isinstance(name, str) and name.isidentifier())]
    if wrong:
        raise UsageError(f"{flag} names an argument {wrong[0]!r}", "names are text, e.g. 'hidden': 20")
    return found


def _not_literals(text: str, flag: str) -> UsageError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return UsageError(
        f"{flag} is {shown!r}, which is not a list of names and literal values",
        "write names and values as in a dict without its braces: \"'hidden': 20, 'names': ['a', 'b']\"; "
        "values are numbers, text, True, False, None, and lists, tuples, sets and dicts of these; nothing is evaluated",
    )
