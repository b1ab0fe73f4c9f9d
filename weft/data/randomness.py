"""Randomness that belongs to the sample: seeded from (seed, epoch, row, occurrence), whoever loads it and when.

An item that draws from torch, NumPy, `random`, from generators that the dataset or its transforms hold, or through
objects with MONAI's `set_random_state`, looks the same with any number of workers, in any batch and after a restart.
"""

from __future__ import annotations

import functools
import hashlib
import random
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.data.snapshot import numpy_fingerprint, python_fingerprint

_MASK64 = (1 << 64) - 1
_DATA_SIZE = 10_000  # a list or dict that is longer holds data, not transforms
_LEAVES = (str, bytes, int, float, complex, bool, type(None), Tensor, np.ndarray, np.generic, type, types.ModuleType)
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def item_seed(seed: int, epoch: int, index: int, occurrence: int = 0) -> int:
    """Seed of everything random in one sample.

    Args:
        seed: the experiment's seed, any integer.
        epoch: number of the epoch, counted from 0.
        index: row number of the item in its split.
        occurrence: how often the row was visited before in this epoch (samplers that draw with replacement).

    Returns:
        An integer in [0, 2**64).
    """
    text = b"weft item %d %d %d %d" % (seed, epoch, index, occurrence)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _mix(value: int) -> int:
    """SplitMix64's output function (Steele, Lea, Flood 2014): neighbouring numbers become unrelated ones."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def _words(key: int) -> list[int]:
    """The key as NumPy takes it: its seeds have 32 bits."""
    return [key & 0xFFFFFFFF, key >> 32]


class GlobalRandomness:
    """The global generators of torch, NumPy and `random`: notices draws from them, and puts them back.

    Noticing costs a few microseconds because the memory of the states is compared; the states themselves (40 µs) are
    only fetched when they are not those of the last time.
    """

    def __init__(self) -> None:
        self._generator = torch.default_generator
        self._marks: tuple[bytes, Any, Any] = (b"", None, None)
        self._torch_state = self._generator.get_state()
        self._numpy_state: Any = None
        self._python_state: Any = None

    def mark(self) -> None:
        """Remember the states as they are now."""
        self._torch_state = self._generator.get_state()
        marks = (self._torch_state.numpy().tobytes(), numpy_fingerprint(), python_fingerprint())
        if marks[1] != self._marks[1]:
            self._numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - the legacy generator is the one that is shared
        if marks[2] != self._marks[2]:
            self._python_state = random.getstate()
        self._marks = marks

    def moved(self) -> bool:
        """Whether any of the three differs from the mark."""
        torch_mark, numpy_mark, python_mark = self._marks
        return (
            python_fingerprint() != python_mark
            or numpy_fingerprint() != numpy_mark
            or self._generator.get_state().numpy().tobytes() != torch_mark
        )

    def restore(self) -> None:
        """Put the three back to the mark."""
        self._generator.set_state(self._torch_state)
        np.random.set_state(self._numpy_state)  # noqa: NPY002 - the legacy generator is the one that is shared
        random.setstate(self._python_state)

    def seed(self, key: int) -> None:
        """Seed the three with a key of 64 bits."""
        self._generator.manual_seed(key)  # torch.manual_seed would seed the GPUs, too: theirs is the model's randomness
        np.random.seed(_words(key))  # noqa: NPY002 - the legacy generator is the one that is shared
        random.seed(key)


class ItemGenerators:
    """Generators and `set_random_state` objects that a dataset and its transforms hold.

    Args:
        dataset: any object; looked through recursively: attributes, lists, tuples, dicts, partial functions, bound
            methods, closures, and global names that its functions use. A method `generators()` may name further ones.
    """

    def __init__(self, dataset: object) -> None:
        self.found = list(_walk(dataset))

    def __bool__(self) -> bool:
        return bool(self.found)

    def seed(self, key: int) -> None:
        """Seed each of them with a number of its own made from the key."""
        for place, generator in enumerate(self.found, start=1):
            _seed(generator, _mix(key + place))


@contextmanager
def seeded(owner: object, key: int) -> Iterator[None]:
    """Inside, the global generators and those of an object follow from the key; the global ones are put back."""
    randomness = GlobalRandomness()
    randomness.mark()
    try:
        randomness.seed(key)
        ItemGenerators(owner).seed(key)
        yield
    finally:
        randomness.restore()


def _seed(generator: Any, key: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(key)
    elif isinstance(generator, np.random.Generator):
        bits: Any = generator.bit_generator
        bits.state = type(bits)(np.random.SeedSequence(key)).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed(_words(key))
    elif isinstance(generator, random.Random):
        generator.seed(key)
    else:
        generator.set_random_state(seed=key & 0xFFFFFFFF)


def _walk(root: object) -> Iterator[Any]:
    """Depth first, in the order of attributes: the same in every process, so that each generator gets the same seed."""
    seen: set[int] = set()
    keep: list[object] = []  # ids are only unique among living objects
    stack = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, _LEAVES) or id(value) in seen:
            continue
        seen.add(id(value))
        keep.append(value)
        if isinstance(value, _GENERATORS):
            yield value
            continue
        if callable(getattr(value, "set_random_state", None)):
            yield value
        stack.extend(reversed(list(_parts(value))))


def _parts(value: Any) -> Iterator[object]:
    if isinstance(value, list | tuple):
        yield from value if len(value) <= _DATA_SIZE else ()
    elif isinstance(value, Mapping):
        yield from value.values() if len(value) <= _DATA_SIZE else ()
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    else:
        yield from _object_parts(value)


def _function_parts(function: types.FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, _GENERATORS):  # other global names would lead through whole libraries
            yield value


def _object_parts(value: Any) -> Iterator[object]:
    registered = getattr(value, "generators", None)
    if callable(registered) and isinstance(registered, types.MethodType):
        yield from registered()
    keyed_by_itself = callable(getattr(value, "set_random_state", None))
    for part in list(getattr(value, "__dict__", {}).values()):
        if not (keyed_by_itself and isinstance(part, np.random.RandomState)):  # set_random_state replaces it
            yield part
    for slot in _slots(type(value)):
        if hasattr(value, slot):
            yield getattr(value, slot)
    for name in ("__getitem__", "__getitems__", "__call__"):
        method: Callable[..., object] | None = getattr(type(value), name, None)
        if isinstance(method, types.FunctionType):
            yield method


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots
