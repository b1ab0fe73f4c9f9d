"""What an exchange between processes that fails says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from weft.errors import WorkerError


@contextmanager
def exchanging(what: str) -> Iterator[None]:
    """Turn the failure of an exchange into an error that says what to do.

    Args:
        what: what was being exchanged.

    Raises:
        WorkerError: another process died, or took too long.
    """
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        reason = (
            "it took too long" if "imed out" in first or "imeout" in first else "the connection to another was lost"
        )
        raise WorkerError(
            f"rank {dist.get_rank()} could not exchange {what} with the other processes: {reason}",
            f"another process died or hangs: see what it printed; then resume with the last checkpoint ({first[:160]})",
        ) from error
