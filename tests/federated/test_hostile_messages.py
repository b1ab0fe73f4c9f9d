"""Messages that nobody should send: each is refused, or is a message; nothing else happens."""

from __future__ import annotations

import random
import resource
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.federated.hostile import CORPUS, TOUCHED, corpus, enumerated, examples, mutated
from weft.errors import MessageRefused
from weft.federated.messages import Message, decode, encode

MUTATIONS = 10_000
_MEBI = 1 << 20
_WATCHED = ("exec", "compile", "import", "open", "os.system", "subprocess.Popen", "socket.connect")
_watcher: tuple[int, list[str]] | None = None


def _audited(event: str, arguments: tuple[object, ...]) -> None:
    if _watcher is not None and event in _WATCHED and threading.get_ident() == _watcher[0]:
        _watcher[1].append(f"{event} {arguments[:1]}")


sys.addaudithook(_audited)  # it cannot be taken away again, so it does nothing outside of `nothing_happens`


@contextmanager
def nothing_happens() -> Iterator[None]:
    """Nothing is executed, imported or opened inside."""
    global _watcher
    seen: list[str] = []
    _watcher = threading.get_ident(), seen
    try:
        yield
    finally:
        _watcher = None
    assert seen == []


@contextmanager
def little_memory(more: int) -> Iterator[None]:
    """The process may take so many bytes more than it has, where the system can see to it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def few_objects(more: int) -> Iterator[None]:
    """Python's objects, and NumPy's arrays, take at most so many bytes inside."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < more
    finally:
        tracemalloc.stop()


def told(data: bytes) -> Message | None:
    """The message, None where it is refused with a reason and with what to do; anything else is a failure."""
    try:
        message = decode(data)
    except MessageRefused as error:
        refused = error
    else:
        again = decode(encode(message))  # what is taken could have been sent
        assert [tensor.shape for tensor in again.tensors] == [tensor.shape for tensor in message.tensors]
        assert again.content == message.content
        return message
    assert refused.message
    assert refused.hint
    assert "fit into memory" not in refused.message
    return None


def test_the_corpus_is_what_makes_it() -> None:
    files = {file.name: file.read_bytes() for file in CORPUS.glob("*.bin")}
    assert files == corpus(), "run `python -m tests.federated.hostile`"


@pytest.mark.parametrize("name", sorted(corpus()))
def test_of_the_corpus_only_the_good_ones_are_taken(name: str) -> None:
    data = (CORPUS / name).read_bytes()
    told(encode(examples()["hello"]))  # what is imported with the first message is no deed of this one
    with little_memory(64 * _MEBI), few_objects(_MEBI), nothing_happens():
        assert (told(data) is not None) == name.startswith("good")
    assert not TOUCHED.exists()


def test_each_field_cut_and_part_changed_is_refused_or_is_a_message() -> None:
    seen = taken = 0
    told(encode(examples()["hello"]))
    with nothing_happens():
        for message in examples().values():
            for _, data in enumerated(message):
                seen += 1
                taken += told(data) is not None
    assert seen > MUTATIONS
    assert 0 < taken < seen / 10  # other names, numbers and tags are messages, too
    assert not TOUCHED.exists()


@pytest.mark.slow
def test_ten_thousand_mutations_by_chance_are_refused_or_are_messages() -> None:
    generator = random.Random(20)
    messages = list(examples().values())
    taken = 0
    told(encode(messages[0]))
    with little_memory(64 * _MEBI), nothing_happens():
        for _ in range(MUTATIONS):
            _, data = mutated(generator.choice(messages), generator)
            taken += told(data) is not None
    assert 0 < taken < MUTATIONS / 10


def test_every_single_bit_counts() -> None:
    data = encode(examples()["leave"])
    for place in range(len(data) * 8):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << (place % 8)
        with pytest.raises(MessageRefused):
            decode(bytes(changed))


def test_what_is_declared_is_looked_at_before_it_is_made() -> None:
    names = [name for name in corpus() if name.startswith(("field-", "payload-huge", "payload-overrun"))]
    made: list[object] = []
    originals = torch.empty, torch.zeros
    torch.empty = torch.zeros = lambda *args, **kwargs: made.append(args)  # type: ignore[assignment]
    try:
        for name in names:
            assert told(corpus()[name]) is None
    finally:
        torch.empty, torch.zeros = originals
    assert made == []
