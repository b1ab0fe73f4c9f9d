"""Randomness that belongs to the sample: seeded from (seed, epoch, row, occurrence), whoever loads it and when.

An item that draws from torch, NumPy, `random`, from generators that the dataset or its transforms hold, or through
objects with MONAI's `set_random_state`, looks the same with any number of workers, in any batch and after a restart.
Out of reach are only sources that nobody can seed from outside: `os.urandom`, or an unseeded generator that is made
anew inside the item.
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

from weft.data.snapshot import numpy_fingerprint, python_fingerprint, tensor_bytes

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


class _Torch:
    """torch's global CPU generator."""

    def __init__(self) -> None:
        self.generator = torch.default_generator
        self.state = self.generator.get_state()
        self.mark_of_state = b""

    def mark(self) -> None:
        self.state = self.generator.get_state()
        self.mark_of_state = tensor_bytes(self.state)

    def moved(self) -> bool:
        return tensor_bytes(self.generator.get_state()) != self.mark_of_state

    def restore(self) -> None:
        self.generator.set_state(self.state)

    def seed(self, key: int) -> None:
        self.generator.manual_seed(key)  # torch.manual_seed would seed the GPUs, too: theirs is the model's randomness


class _NumPy:
    """NumPy's global generator."""

    def __init__(self) -> None:
        self.state: Any = None
        self.mark_of_state: object = None

    def mark(self) -> None:
        mark = numpy_fingerprint()
        if mark != self.mark_of_state:  # fetching the state is dear, and nobody may have drawn since the last time
            self.state = np.random.get_state(legacy=False)  # noqa: NPY002 - the legacy generator is the shared one
            self.mark_of_state = mark

    def moved(self) -> bool:
        return numpy_fingerprint() != self.mark_of_state

    def restore(self) -> None:
        np.random.set_state(self.state)  # noqa: NPY002 - as above

    def seed(self, key: int) -> None:
        np.random.seed(_words(key))  # noqa: NPY002 - as above


class _Python:
    """The global generator of `random`."""

    def __init__(self) -> None:
        self.state: Any = None
        self.mark_of_state: object = None

    def mark(self) -> None:
        mark = python_fingerprint()
        if mark != self.mark_of_state:
            self.state = random.getstate()
            self.mark_of_state = mark

    def moved(self) -> bool:
        return python_fingerprint() != self.mark_of_state

    def restore(self) -> None:
        random.setstate(self.state)

    def seed(self, key: int) -> None:
        random.seed(key)


class GlobalRandomness:
    """The global generators of torch, NumPy and `random`: tells which of them are drawn from, and puts them back.

    Seeding and putting back all three takes 180 µs, noticing a draw 8 µs: so each is seeded for items only once a draw
    from it was noticed.
    """

    def __init__(self) -> None:
        self._all = (_Python(), _NumPy(), _Torch())
        self.drawn: list[_Python | _NumPy | _Torch] = []

    def mark(self) -> None:
        """Remember the states as they are now."""
        for generator in self._all:
            generator.mark()

    def notice(self) -> bool:
        """Whether something was drawn since the mark from a generator that was not drawn from before; remembers it."""
        found = [generator for generator in self._all if generator not in self.drawn and generator.moved()]
        if found:
            self.drawn = [generator for generator in self._all if generator in found or generator in self.drawn]
        return bool(found)

    def restore(self) -> None:
        """Put those that were drawn from back to the mark."""
        for generator in self.drawn:
            generator.restore()

    def seed(self, key: int) -> None:
        """Seed those that were drawn from with a key of 64 bits."""
        for generator in self.drawn:
            generator.seed(key)


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


class DrawWatch:
    """Tells whether anything random was drawn: from the global generators, or from those that an object holds.

    Args:
        owner: looked through as a dataset is (see `ItemGenerators`).
    """

    def __init__(self, owner: object) -> None:
        self._globals = (_Python(), _NumPy(), _Torch())
        self._held = ItemGenerators(owner)
        self._states: list[object] = []

    def mark(self) -> None:
        """Watch from now on."""
        for generator in self._globals:
            generator.mark()
        self._states = [_state(generator) for generator in self._held.found]

    def drawn(self) -> bool:
        """Whether something was drawn since the mark."""
        moved = any(generator.moved() for generator in self._globals)
        return moved or [_state(generator) for generator in self._held.found] != self._states

    def restore(self) -> None:
        """Put the global generators back to the mark."""
        for generator in self._globals:
            generator.restore()


@contextmanager
def seeded(owner: object, key: int) -> Iterator[None]:
    """Inside, the global generators and those of an object follow from the key; the global ones are put back."""
    generators = (_Python(), _NumPy(), _Torch())
    for generator in generators:
        generator.mark()
    try:
        for generator in generators:
            generator.seed(key)
        ItemGenerators(owner).seed(key)
        yield
    finally:
        for generator in generators:
            generator.restore()


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


def _state(generator: Any) -> object:
    """The state of a generator, to be compared; of a `set_random_state` object, that of its `R`."""
    if isinstance(generator, torch.Generator):
        return tensor_bytes(generator.get_state())
    if isinstance(generator, np.random.Generator):
        return repr(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        _, key, position, *gauss = generator.get_state(legacy=True)
        return np.asarray(key).tobytes(), position, gauss
    if isinstance(generator, random.Random):
        return generator.getstate()
    own = getattr(generator, "R", None)
    return _state(own) if isinstance(own, np.random.RandomState) else None


def _walk(root: object) -> Iterator[Any]:
    """Depth first, in the order of attributes: the same in every process, so that each generator gets the same seed."""
    seen: set[int] = set()
    keep: list[object] = []  # ids are only unique among living objects
    stack = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, (*_LEAVES, DrawWatch)) or id(value) in seen:
            continue
        seen.add(id(value))
        keep.append(value)
        if isinstance(value, _GENERATORS):
            yield value
            continue
        if _is_randomizable(value):
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
    registered = getattr(type(value), "generators", None)
    if isinstance(registered, types.FunctionType) and registered.__code__.co_argcount == 1:
        yield from registered(value)
    keyed_by_itself = _is_randomizable(value)
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


def _is_randomizable(value: object) -> bool:
    # Asked of the class: an object may make up attributes, or do work, when asked for one.
    return callable(getattr(type(value), "set_random_state", None))


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots
