"""The remote's sums: what all sites ask in one exchange, answered at once. It holds no model and no data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from weft.engine.collectives import Answer, Collective, combine, shapes_of
from weft.errors import MessageRefused, ProtocolError
from weft.federated.messages import Limits, Message, answer_to, collective_of, decode, encode

MESSAGE = "weft-message.bin"  # a site's to the remote
ANSWER = "weft-answer.bin"  # the remote's to all sites
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,150}")

Combine = Callable[[list[str], list[Collective]], Answer]


def summed(names: list[str], collectives: list[Collective]) -> Answer:
    """The answer to what the sites ask, given in order of their names."""
    return combine(collectives)


def exchange(messages: Mapping[str, bytes], *, study: str, number: int, combined: Combine = summed) -> bytes:
    """Answer what all sites ask.

    Args:
        messages: by the name of the site that each came from.
        study: the study's fingerprint.
        number: of the exchange.
        combined: makes the answer from names and collectives, in order of names.

    Returns:
        the answer for all, encoded.

    Raises:
        MessageRefused: a message is damaged, hostile, or not of this exchange; the site is named.
        ProtocolError: sites ask for different things.
    """
    names = sorted(messages)
    asked = {name: _taken(messages[name], name, study, number) for name in names}
    collectives = [collective_of(asked[name]) for name in names]
    first = asked[names[0]]
    for name, collective in zip(names, collectives, strict=True):
        if _question(asked[name], collective) != _question(first, collectives[0]):
            raise ProtocolError(
                f"{names[0]} asks for {_words(first)}, {name} for {_words(asked[name])}",
                "sites must run the same code with the same arguments; compare their inputspecs",
            )
    return encode(answer_to(first, combined(names, collectives)))


def read_file(folder: str | Path, name: object, sender: str) -> bytes:
    """A file that another node named and COINSTAC moved here.

    Args:
        folder: where it must lie.
        name: as the other node wrote it.
        sender: who that is.

    Raises:
        MessageRefused: the name is no plain file name, there is no such file, or it is too large.
    """
    path = Path(folder) / checked_name(name, sender)
    if path.is_symlink() or not path.is_file():
        raise MessageRefused(f"{sender} names the file {path.name}, which is not in {folder}", "was it moved there?")
    size, most = path.stat().st_size, Limits().memory
    if size > most:
        raise MessageRefused(f"{sender} sends {size} bytes; at most {most} are read", "send a smaller payload")
    return path.read_bytes()


def checked_name(name: object, sender: str) -> str:
    """A file name that another node sent, when it is no path.

    Raises:
        MessageRefused: it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise MessageRefused(f"{sender} names a file {name!r}, which is no plain file name", "nothing of it was used")
    return name


def _taken(data: bytes, name: str, study: str, number: int) -> Message:
    try:
        message = decode(data)
    except MessageRefused as error:
        raise MessageRefused(f"{name}: {error.message}", error.hint) from None
    for what, found, wanted in (
        ("kind", message.kind, "ask"), ("sender", message.sender, name), ("study", message.study, study),
        ("number", message.number, number),
    ):  # fmt: skip
        if found != wanted:
            raise MessageRefused(
                f"{name}: its message has {what} {found!r} instead of {wanted!r}",
                "it belongs to another exchange, site or study; nothing of it was used",
            )
    return message


def _question(message: Message, collective: Collective) -> tuple[object, ...]:
    dtypes = tuple(str(tensor.dtype) for tensor in message.tensors)
    where = (message.epoch, message.step, message.operation, message.tag, message.tolerated)
    return (*where, message.encoding, shapes_of(collective), dtypes)


def _words(message: Message) -> str:
    shapes = [list(tensor.shape) for tensor in message.tensors]
    place = f"in epoch {message.epoch + 1}, step {message.step}"
    return f"{message.operation} '{message.tag}' {place}, shapes {shapes}"
