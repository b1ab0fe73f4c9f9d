"""How processes of one run answer a collective: exchanges over `torch.distributed`, which take place only where all
processes ask for the same.

gloo ends a process that is sent more than it waits for. So the first message of every collective has a length that all
processes know before they ask: it follows from what they have asked for so far.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from weft.engine.collectives import Answer, Collective, shapes_of
from weft.engine.exchange import IN_ONE_MESSAGE, exchanging
from weft.errors import ProtocolError

if TYPE_CHECKING:
    from weft.engine.state import Position

BEGINNING = "state"  # tag of the first exchange of a run; those of others that belong to it begin so
# What is asked for: kind, tag, shapes, types. It must be equal in all processes.
_Question = tuple[str, str, tuple[tuple[int, ...], ...], tuple[torch.dtype, ...]]


class Agreement:
    """What the processes of a group have asked one another so far: the same in each of them.

    The first message of a collective holds its signature, and room for as many numbers as came most often after the one
    before. In the steps of a run that is what is asked for; else, once all are seen to ask for the same, a second
    message follows.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A new group begins."""
        self._followed: dict[_Question | None, Counter[int]] = {}
        self._last: _Question | None = None
        self._digests: dict[_Question, str] = {}

    def answer(self, collective: Collective, position: Position) -> Answer:
        """Exchange a collective with all other processes.

        Args:
            collective: what this process asks for.
            position: where the run is, so that processes that lost one another notice.

        Raises:
            ProtocolError: not all ask for the same, or for something that they cannot compute.
            ExchangeError: another process died, or it took too long.
        """
        if collective.kind not in ("sum", "gather"):
            raise ProtocolError(
                f"'{collective.tag}' asks for a {collective.kind}, which processes of one run cannot compute",
                "they trust one another: use a strategy that sums; `aggregate: sum`",
            )
        with exchanging(collective.tag):
            words = _words(collective)
            received = self._agree_on(collective, position, words)
            if collective.kind == "gather":
                return [_gathered(tensor) for tensor in collective.tensors]
            if words is None:
                return [_reduced(tensor) for tensor in collective.tensors]
            return _in_order(collective.tensors, _all(torch.cat(words)) if received is None else received)

    def _agree_on(self, collective: Collective, position: Position, words: list[Tensor] | None) -> Tensor | None:
        """Everybody's words, [world, words], where the first message had room for them."""
        question: _Question = (
            collective.kind, collective.tag, shapes_of(collective), tuple([one.dtype for one in collective.tensors]),
        )  # fmt: skip
        room = self._room()
        signature = self._signature(question, position)
        length = sum(map(len, words or ()))
        parts = [torch.tensor([signature])]
        if words is not None and length <= room:
            parts += words
        if spare := room - (length if len(parts) > 1 else 0):
            parts.append(torch.zeros(spare, dtype=torch.int64))
        messages = _all(torch.cat(parts))
        if any(other != signature for other in messages[:, 0].tolist()):
            raise _disagreement(question, position)
        self._followed.setdefault(self._last, Counter())[length] += 1
        self._last = question
        return messages[:, 1 : 1 + length] if length <= room else None

    def _room(self) -> int:
        followed = self._followed.get(self._last)
        return 0 if followed is None else max(followed, key=followed.__getitem__)

    def _signature(self, question: _Question, position: Position) -> int:
        if question not in self._digests:
            self._digests[question] = hashlib.blake2b(repr(question).encode(), digest_size=16).hexdigest()
        text = f"{_where(question, position)}|{self._digests[question]}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())


def _where(question: _Question, position: Position) -> str:
    # When they begin, the first process may have resumed already: the others are told where it is.
    if question[1].startswith(BEGINNING):
        return "at the beginning"
    return f"in epoch {position.epoch + 1} after step {position.step}"


def _all(vector: Tensor) -> Tensor:
    """Everybody's vector of one length, [world, length]."""
    received = [torch.empty_like(vector) for _ in range(dist.get_world_size())]
    dist.all_gather(received, vector)
    return torch.stack(received)


def _words(collective: Collective) -> list[Tensor] | None:
    """The numbers of a sum as 64-bit words, floating ones first, where they are few enough for one message."""
    tensors = collective.tensors
    if collective.kind != "sum" or sum([tensor.numel() for tensor in tensors]) > IN_ONE_MESSAGE:
        return None
    floating: list[Tensor] = []
    whole: list[Tensor] = []
    for tensor in tensors:
        (floating if tensor.is_floating_point() else whole).append(tensor.detach().cpu().reshape(-1))
    words = [torch.cat(floating).to(torch.float64).view(torch.int64)] if floating else []
    return [*words, torch.cat([flat.to(torch.int64) for flat in whole])] if whole else words


def _in_order(tensors: list[Tensor], rows: Tensor) -> Answer:
    """Sums over everybody's words, in order of ranks."""
    floating = [tensor.numel() for tensor in tensors if tensor.is_floating_point()]
    whole = [tensor.numel() for tensor in tensors if not tensor.is_floating_point()]
    middle = sum(floating)
    sums = iter(torch.split(_total(rows[:, :middle].contiguous().view(torch.float64)), floating))
    whole_sums = iter(torch.split(_total(rows[:, middle:]), whole))
    return [
        next(sums if like.is_floating_point() else whole_sums)
        .reshape(like.shape)
        .to(like.device, like.dtype, copy=True)
        for like in tensors
    ]


def _total(rows: Tensor) -> Tensor:
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total


def _reduced(tensor: Tensor) -> Tensor:
    total = tensor.detach().to(torch.float64 if tensor.is_floating_point() else torch.int64, copy=True)
    dist.all_reduce(total)
    return total.to(tensor.dtype)


def _gathered(tensor: Tensor) -> Tensor:
    """Everybody's tensor, one after the other along the first dimension, whatever its length with each."""
    local = tensor.detach().cpu().contiguous()
    return torch.cat(_rows(local)).to(tensor.device)


def _rows(local: Tensor) -> list[Tensor]:
    lengths = _all(torch.tensor([len(local)]))[:, 0].tolist()
    padded = local.new_zeros((max(lengths), *local.shape[1:]))
    padded[: len(local)] = local
    return [row[:length] for row, length in zip(_all(padded), lengths, strict=True)]


# --- where they do not agree ------------------------------------------------------------------------------------------


def _disagreement(question: _Question, position: Position) -> ProtocolError:
    """Says who asks for what; all processes have noticed at the same message."""
    kind, tag, shapes, types = question
    tensors = [_described(shape, dtype) for shape, dtype in zip(shapes, types, strict=True)]
    what = f"a {kind} '{tag}' {_where(question, position)}"
    told = _told([what, *tensors])
    asked = [lines[0] for lines in told]
    if len(set(asked)) == 1:
        words = f"{what}, of which {different([lines[1:] for lines in told], 'tensor')}"
    else:
        words = by_process(asked)
    return ProtocolError(
        f"processes ask one another for different things: {words}",
        "processes must decide alike, and what they exchange must have the same shape in all: look for sizes and "
        "decisions that come from local data, in a task, metric or strategy",
    )


def unlike(lines: Sequence[str]) -> list[list[str]] | None:
    """Everybody's lines, by rank, where they are not the same in all processes; for use outside of a run's generator.

    Raises:
        ExchangeError: another process died, or it took too long.
    """
    own = int.from_bytes(hashlib.blake2b("\n".join(lines).encode(), digest_size=7).digest())
    with exchanging("what must be alike"):
        alike = bool((_all(torch.tensor([own])) == own).all())
        return None if alike else _told(lines)


def _told(lines: Sequence[str]) -> list[list[str]]:
    packed = torch.frombuffer(bytearray(json.dumps(list(lines)).encode()), dtype=torch.uint8)
    return [json.loads(row.numpy().tobytes()) for row in _rows(packed)]


def different(lists: Sequence[Sequence[str]], each: str) -> str:
    """Words for the first row that is not the same in all lists.

    Args:
        lists: one of each process.
        each: what a row stands for.
    """
    length = max(map(len, lists))
    padded = [[*rows, *["nothing"] * (length - len(rows))] for rows in lists]
    number = next(number for number in range(length) if len({rows[number] for rows in padded}) > 1)
    return f"{each} {number + 1} of {length} is {by_process([rows[number] for rows in padded])}"


def by_process(texts: Sequence[str]) -> str:
    """Words for which process says what, by rank; each text once."""
    ranks: dict[str, list[str]] = {}
    for rank, text in enumerate(texts):
        ranks.setdefault(text, []).append(str(rank))
    parts = [f"{text} in process {', '.join(names[:8])}{' …' * (len(names) > 8)}" for text, names in ranks.items()]
    return "; ".join(parts)


def lines_of(tensors: Mapping[str, Tensor]) -> list[str]:
    """What each tensor is like, for `unlike` and `different`."""
    return [f"{name} {_described(list(tensor.shape), tensor.dtype)}" for name, tensor in tensors.items()]


def _described(shape: Sequence[int], dtype: torch.dtype) -> str:
    return f"{list(shape)} {str(dtype).removeprefix('torch.')}"


def different_networks(told: Sequence[Sequence[str]]) -> ProtocolError:
    """The error for networks that differ; `told` are everybody's `lines_of`."""
    return ProtocolError(
        f"processes have made different networks: {different(told, 'part')}",
        "make it from what the experiment file says: look for sizes that come from local files or the rank",
    )
