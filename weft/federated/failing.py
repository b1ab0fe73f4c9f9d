"""Where sites of one process fail: whose error is told, and that it was that site's."""

from __future__ import annotations

from dataclasses import replace

from weft.engine import Together
from weft.errors import ConfigError, Stopped, WeftError


class SitesTogether(Together):
    """Drives sites in one process; the error of one says at which site it happened."""

    def failure(self, errors: dict[str, Exception]) -> Exception:
        """The error of the first site that failed, with its name unless all sites failed alike."""
        name, error = next(iter(errors.items()))
        alike = len(errors) == len(self.participants) > 1 and len({repr(one) for one in errors.values()}) == 1
        return error if alike else at_site(name, error)


def at_site(name: str, error: Exception) -> Exception:
    """The same error, which says at which site it happened."""
    if isinstance(error, Stopped):
        return error  # it was asked for
    if not isinstance(error, WeftError):  # of a user's program
        error.add_note(f"at site {name}")
        return error
    if isinstance(error, ConfigError):
        error.problems = [replace(problem, message=f"site {name}: {problem.message}") for problem in error.problems]
        error.message = "\n".join(str(problem) for problem in error.problems)
    else:
        error.message = f"site {name}: {error.message}"
    error.args = (error.message, error.hint)
    return error
