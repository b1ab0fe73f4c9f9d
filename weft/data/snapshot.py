"""Whether NumPy's and Python's global generators moved, for a microsecond.

`random.getstate()` and `np.random.get_state()` build their states anew (8 and 31 µs), too dear for every batch. Here
the memory that holds a state is copied and compared instead. It is never interpreted and never written. Where this
interpreter lays its objects out in another way (found out once, on generators of our own), the states themselves are
compared.
"""

from __future__ import annotations

import _random
import ctypes
import random
from collections.abc import Callable
from typing import Any

import numpy as np

_HEADER = object.__basicsize__  # reference counts and the like, which change without a draw


def _body(value: object, base: type) -> bytes:
    return ctypes.string_at(id(value) + _HEADER, base.__basicsize__ - _HEADER)


def _python_memory(generator: random.Random) -> tuple[bytes, float | None]:
    return _body(generator, _random.Random), generator.gauss_next  # type: ignore[attr-defined]


def _python_state(generator: random.Random) -> Any:
    return generator.getstate()


_MT19937_BYTES = 4 * 624 + 4  # the key and the position in it


def _numpy_memory(generator: np.random.RandomState) -> tuple[bytes, bytes]:
    bits: Any = generator._bit_generator
    return ctypes.string_at(bits.ctypes.state_address, _MT19937_BYTES), _body(generator, np.random.RandomState)


def _numpy_state(generator: np.random.RandomState) -> Any:
    state: Any = generator.get_state(legacy=False)
    return repr({**state, "state": {name: bytes(np.asarray(part)) for name, part in state["state"].items()}})


def _notices(fingerprint: Callable[[Any], Any], generator: Any, draws: list[Callable[[], object]]) -> bool:
    """Whether a fingerprint stays while nothing is drawn and changes with every kind of draw."""
    for draw in draws:
        before = fingerprint(generator)
        if fingerprint(generator) != before:
            return False
        draw()
        if fingerprint(generator) == before:
            return False
    return True


def _python_memory_works() -> bool:
    own = random.Random(0)
    return _notices(_python_memory, own, [own.random, lambda: own.gauss(0, 1), lambda: own.gauss(0, 1), own.random])


def _numpy_memory_works() -> bool:
    own = np.random.RandomState(0)
    return _notices(_numpy_memory, own, [own.rand, own.randn, own.randn, lambda: own.permutation(9), own.rand])


_python_global: random.Random = random.random.__self__  # type: ignore[attr-defined]
_numpy_global: np.random.RandomState = np.random.random.__self__  # type: ignore[attr-defined]
_python_read = _python_memory if _python_memory_works() else _python_state
_numpy_read = _numpy_memory if _numpy_memory_works() else _numpy_state


def python_fingerprint() -> object:
    """A value that is equal as long as nothing is drawn from `random`'s global generator."""
    return _python_read(_python_global)


def numpy_fingerprint() -> object:
    """A value that is equal as long as nothing is drawn from NumPy's global generator."""
    if type(_numpy_global._bit_generator) is not np.random.MT19937:  # somebody called set_bit_generator
        return _numpy_state(_numpy_global)
    return _numpy_read(_numpy_global)
