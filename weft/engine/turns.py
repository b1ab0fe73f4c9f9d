"""The global random generators in turns: several participants in one process, each with streams of its own.

They are swapped at every message, so it must be quick. NumPy takes tens of microseconds to tell its state, and as many
to take one; most participants never draw from it. So the memory of its Mersenne Twister is looked at, and replaced, as
it is; only what was really drawn from is asked for its state.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

import numpy as np

from weft.engine.seeding import Snapshot, put_back, snapshot

_BYTES = 4 * (624 + 1)  # words of the Mersenne Twister; one more tells which of them is next


@dataclass(slots=True)
class Stream:
    """Where the generators of one participant are.

    Args:
        whole: all of them, as `snapshot` tells.
        memory: NumPy's, byte by byte; None where that does not tell all: a generator of another kind is in use, or a
            normal number is kept for the next call.
    """

    whole: Snapshot
    memory: bytes | None


# What the last turn left in NumPy's memory; None where that does not tell all.
_left: bytes | None = None


def begin_turn(stream: Stream) -> None:
    """Put a participant's generators in place."""
    memory, address = stream.memory, _address()
    if memory is None or address is None or _left is None or ctypes.string_at(address, _BYTES) != _left:
        put_back(stream.whole)
        return
    put_back(stream.whole, with_numpy=False)
    ctypes.memmove(address, memory, _BYTES)


def end_turn(before: Stream | None) -> Stream:
    """Where the generators are now.

    Args:
        before: where they were when the turn began, if that is known.
    """
    global _left
    memory, address = before.memory if before is not None else None, _address()
    if before is None or memory is None or address is None or ctypes.string_at(address, _BYTES) != memory:
        whole = snapshot()
        memory = _memory_of(whole, address)
    else:
        whole = snapshot(of_numpy=before.whole.of_numpy)
    _left = memory
    return Stream(whole, memory)


def _memory_of(whole: Snapshot, address: int | None) -> bytes | None:
    """NumPy's memory, if it is what the state tells: the same words, and nothing kept beside."""
    if address is None or whole.of_numpy["has_gauss"]:
        return None
    memory, state = ctypes.string_at(address, _BYTES), whole.of_numpy["state"]
    return memory if memory == np.append(state["key"], np.uint32(state["pos"])).tobytes() else None


def _address() -> int | None:
    """Of the state of NumPy's global generator, if it is a Mersenne Twister."""
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]  # numpy's stubs do not know it
    return _state_address(generator) if type(generator) is np.random.MT19937 else None


@functools.lru_cache(maxsize=1)
def _state_address(generator: np.random.MT19937) -> int:
    return int(generator.ctypes.state_address)
