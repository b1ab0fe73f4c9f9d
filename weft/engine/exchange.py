"""What an exchange between processes that fails says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from weft.errors import ExchangeError, ExchangeTimeout

# Up to so many numbers everybody sends its own to all and sums them in order of ranks; more are reduced on the way.
IN_ONE_MESSAGE = 65_536
_HINT = "look at what the other processes printed; then resume with the last checkpoint"


@contextmanager
def exchanging(what: str) -> Iterator[None]:
    """Turn the failure of an exchange into an error that says what to do.

    Args:
        what: what was being exchanged.

    Raises:
        ExchangeTimeout: it took too long.
        ExchangeError: another process died, or the connection to it broke.
    """
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        told = f"rank {dist.get_rank()} could not exchange {what} with the other processes"
        if "imed out" in first or "imeout" in first:
            raise ExchangeTimeout(f"{told}: it took too long ({first[:160]})", _HINT) from error
        raise ExchangeError(f"{told}: the connection to another was lost ({first[:160]})", _HINT) from error
