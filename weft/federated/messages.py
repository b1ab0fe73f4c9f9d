"""Every message between a site and the hub, as bytes.

A message is `WEFT`, the version of the format, the length of the header, the header (JSON, ASCII), the tensors
(safetensors) and the SHA-256 of all that. The digest tells damage; who a message comes from is for the transport to
tell. Everything is checked before it is used: nothing in a message can make its receiver do more than look at it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from weft.engine.collectives import WHOLE, Collective, Encoding, Gather, Robust, Sum
from weft.errors import MessageRefused, ProtocolError
from weft.federated import envelope
from weft.federated.wire import DTYPES, Form, Wrong, pack, size_of, unpack

FORMAT = 1
_HEAD = struct.Struct("<4sHHI")  # mark, version of the format, nothing yet, length of the header
_MARK = b"WEFT"
_DIGEST = 32
_IDENTITY = ("kind", "study", "sender", "epoch", "step", "number", "operation", "tag", "tolerated")

Kind = Literal["hello", "welcome", "ask", "answer", "refused", "snapshot", "leave"]
Expected = Sequence[tuple[tuple[int, ...], torch.dtype]]


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """What a site tells the hub, or the hub a site.

    Args:
        kind: "hello" and "welcome" when a site joins, "ask" and "answer" for a collective, "refused" with a reason,
            "snapshot" of the state of a live replica, "leave".
        study: fingerprint of the study, 1 to 64 hexadecimal digits.
        sender: the name of a site, or "hub".
        epoch, step, number: where in the run; `number` counts the exchanges of the study's session.
        operation: kind of the collective ("sum", "gather", ...), of asks and answers only.
        tag: what is asked.
        tolerated: of robust collectives: so many sites may send anything.
        encoding: how numbers are written. Of asks they have been rounded so already; an answer is rounded here, but
            what was gathered is left as it came.
        tensors: of any device; a decoded message has them in memory of its own.
        content: other facts: texts, finite numbers, lists and dicts of them.
    """

    kind: Kind
    study: str
    sender: str
    epoch: int = 0
    step: int = 0
    number: int = 0
    operation: str = ""
    tag: str = ""
    tolerated: int = 0
    encoding: Encoding = WHOLE
    tensors: list[Tensor] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a receiver takes.

    Args:
        header: bytes of the header; a snapshot tells more in it than other messages.
        memory: bytes that the tensors take once they are decoded.
        tensors: how many there may be.
    """

    header: int = 4 << 20
    memory: int = 4 << 30
    tensors: int = 10_000


def encode(message: Message) -> bytes:
    """A message as bytes.

    Raises:
        ProtocolError: it holds something that no receiver would take.
    """
    try:
        if message.tensors and (other := {tensor.dtype for tensor in message.tensors} - set(DTYPES.values())):
            raise Wrong(f"tensors of {', '.join(map(str, other))} cannot travel")
        as_it_came = message.kind == "answer" and message.operation == "gather"
        forms, parts = pack(message.tensors, message.encoding, lossless=as_it_came)
        header = envelope.written(_fields(message), message.encoding, forms, Limits().header)
    except Wrong as error:
        raise ProtocolError(f"the message '{message.kind}' of {message.sender} cannot be sent: {error}") from error
    start = _HEAD.size + len(header)
    header += b" " * (-start % 16)  # numbers lie where their dtypes may
    head = _HEAD.pack(_MARK, FORMAT, 0, len(header))
    digest = hashlib.sha256(head)
    for part in (header, *parts):
        digest.update(part)
    return b"".join([head, header, *parts, digest.digest()])


def decode(data: bytes, limits: Limits = Limits(), expected: Expected | None = None) -> Message:
    """The message in `data`.

    Args:
        data: all of it.
        limits: what is taken.
        expected: shapes and dtypes of the tensors, where they are known (`expected_of`); others are refused before
            they are read. Of an unknown size, -1, the message may have any.

    Raises:
        MessageRefused: it is damaged, or anything in it is not as it must be.
    """
    try:
        return _decoded(memoryview(data).cast("B"), limits, expected)
    except Wrong as error:
        raise MessageRefused(f"a message of {len(data)} bytes is refused: {error}", _hint(error)) from None


def ask_of(collective: Collective, *, study: str, sender: str, epoch: int, step: int, number: int) -> Message:
    """What a site sends to ask for a collective."""
    return Message(
        "ask", study, sender, epoch, step, number, collective.kind, collective.tag,
        collective.tolerated if isinstance(collective, Robust) else 0, collective.encoding, collective.tensors,
    )  # fmt: skip


def answer_to(ask: Message, tensors: list[Tensor]) -> Message:
    """What the hub sends back."""
    return replace(ask, kind="answer", sender="hub", tensors=tensors, content={})


def collective_of(message: Message) -> Collective:
    """The collective that a message asks for."""
    if message.operation == "sum":
        return Sum(message.tag, message.tensors, encoding=message.encoding)
    if message.operation == "gather":
        return Gather(message.tag, message.tensors, encoding=message.encoding)
    kind: Any = message.operation
    return Robust(message.tag, message.tensors, kind, message.tolerated, message.encoding)


def expected_of(collective: Collective) -> Expected:
    """Shapes and dtypes of the answer to a collective, and of what the others ask with; -1 for a size that is free."""
    free = 1 if collective.kind == "gather" else 0
    return [((-1,) * free + tuple(tensor.shape[free:]), tensor.dtype) for tensor in collective.tensors]


def answer_in(data: bytes, asked: Message) -> list[Tensor]:
    """The answer that `data` holds to what a site asked.

    Raises:
        MessageRefused: it holds something else, or the answer to another question.
    """
    told = decode(data, Limits(), expected_of(collective_of(asked)))
    wanted = answer_to(asked, [])
    other = [name for name in _IDENTITY if getattr(told, name) != getattr(wanted, name)]
    if other:
        name = other[0]
        raise MessageRefused(
            f"{asked.sender} waits for the answer to exchange {asked.number}, '{asked.tag}'; what came has "
            f"{name} {getattr(told, name)!r} instead of {getattr(wanted, name)!r}",
            "it is not taken",
        )
    return told.tensors


def _fields(message: Message) -> dict[str, Any]:
    return {name: getattr(message, name) for name in (*_IDENTITY, "content")}


def _decoded(data: memoryview, limits: Limits, expected: Expected | None) -> Message:
    if len(data) < _HEAD.size + _DIGEST:
        raise Wrong("it is cut short")
    mark, version, nothing, length = _HEAD.unpack_from(data)
    if mark != _MARK or nothing:
        raise Wrong("it is no message of Weft")
    if version != FORMAT:
        raise Wrong(f"it is in format {version}, this Weft reads {FORMAT}")
    if length > limits.header:
        raise Wrong(f"its header of {length} bytes is longer than {limits.header}")
    start, end = _HEAD.size + length, len(data) - _DIGEST
    if start > end:
        raise Wrong("it is cut short")
    if hashlib.sha256(data[:end]).digest() != data[end:]:
        raise Wrong("it is damaged: its digest is another one")
    fields, encoding, forms = envelope.read(bytes(data[_HEAD.size : start]), limits.tensors, limits.memory)
    if expected is not None:
        _require(expected, forms)
    try:
        tensors = unpack(data[start:end], forms)
    except (MemoryError, RuntimeError) as error:  # torch's, where memory is short
        raise Wrong(f"its tensors of {size_of(forms)} bytes do not fit into memory") from error
    return Message(**fields, encoding=encoding, tensors=tensors)


def _require(expected: Expected, forms: Sequence[Form]) -> None:
    fits = len(expected) == len(forms) and all(
        form.dtype == dtype
        and len(form.shape) == len(shape)
        and all(size in (-1, found) for size, found in zip(shape, form.shape, strict=True))
        for (shape, dtype), form in zip(expected, forms, strict=True)
    )
    if not fits:
        raise Wrong("its tensors have other shapes or dtypes than were expected")


def _hint(error: Wrong) -> str:
    if "in format" in str(error):
        return "install the same version of Weft everywhere"
    return "the connection damaged it, or its sender does not follow the protocol; nothing of it was used"
