"""Whether NumPy's and Python's global generators moved, within a microsecond.

`random.getstate()` and `np.random.get_state()` build their states anew (8 and 31 µs), too dear for every batch. Here
the memory that holds a state is copied and compared instead. It is never interpreted and never written. Where this
interpreter lays its objects out in another way (found out once, on generators of our own), the states themselves are
compared.
"""

from __future__ import annotations

import _random
import ctypes
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Fingerprint = Callable[[], object]
_HEADER = object.__basicsize__  # reference counts and the like, which change without a draw
_MT19937_BYTES = 4 * 624 + 4  # the key, and the position in it


def _memory(address: int, size: int) -> Any:
    """A window on memory; its attribute `raw` copies what is there now."""
    return (ctypes.c_char * size).from_address(address)


def _body(value: object, base: type) -> Any:
    return _memory(id(value) + _HEADER, base.__basicsize__ - _HEADER)


def _python_reader(generator: random.Random) -> Fingerprint:
    body = _body(generator, _random.Random)

    def read() -> object:
        return body.raw, generator.gauss_next  # type: ignore[attr-defined]

    return read


def _numpy_reader(generator: np.random.RandomState) -> Fingerprint:
    bits: Any = generator._bit_generator
    key = _memory(bits.ctypes.state_address, _MT19937_BYTES)
    body = _body(generator, np.random.RandomState)  # holds the second number of a pair of normal ones

    def read() -> object:
        if generator._bit_generator is not bits:  # somebody called set_bit_generator
            return _numpy_state(generator)
        return key.raw, body.raw

    return read


def _numpy_state(generator: np.random.RandomState) -> object:
    state: Any = generator.get_state(legacy=False)
    inner = {name: part.tobytes() if isinstance(part, np.ndarray) else part for name, part in state["state"].items()}
    return repr({**state, "state": inner})


def _notices(read: Fingerprint, draws: Sequence[Callable[[], object]]) -> bool:
    """Whether a fingerprint stays while nothing is drawn and changes with every kind of draw."""
    for draw in draws:
        before = read()
        if read() != before:
            return False
        draw()
        if read() == before:
            return False
    return True


def _python_memory_works() -> bool:
    own = random.Random(0)
    draws = [own.random, lambda: own.gauss(0, 1), lambda: own.gauss(0, 1), lambda: own.getrandbits(1)]
    return _notices(_python_reader(own), draws)


def _numpy_memory_works() -> bool:
    own = np.random.RandomState(0)
    return _notices(_numpy_reader(own), [own.rand, own.randn, own.randn, lambda: own.permutation(9), own.rand])


_python_global: random.Random = random.random.__self__  # type: ignore[attr-defined]
_numpy_global: np.random.RandomState = np.random.random.__self__  # type: ignore[attr-defined]

python_fingerprint: Fingerprint = (
    _python_reader(_python_global) if _python_memory_works() else lambda: _python_global.getstate()
)
"""A value that is equal as long as nothing is drawn from the global generator of `random`."""

numpy_fingerprint: Fingerprint = (
    _numpy_reader(_numpy_global) if _numpy_memory_works() else lambda: _numpy_state(_numpy_global)
)
"""A value that is equal as long as nothing is drawn from NumPy's global generator."""


def tensor_bytes(state: Any) -> bytes:
    """The bytes of a state of torch's generator, faster than by way of NumPy."""
    copied: bytes = _memory(state.data_ptr(), state.nbytes).raw
    return copied
