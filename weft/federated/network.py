"""The network of a simulated study: what a scenario makes of the messages on their way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from weft.errors import MessageRefused, ProtocolError
from weft.federated.hub import is_update
from weft.federated.ledger import Ledger
from weft.federated.messages import Message, encode
from weft.federated.playing import Playing

Receive = Callable[[bytes], bool]  # takes a message, or refuses it; False where it was there already
_ATTEMPTS = 5


class Network:
    """Carries encoded messages, and does to them what a scenario says.

    Args:
        playing: the scenario of what goes wrong.
        ledger: where it is written what was refused or sent again.
    """

    def __init__(self, playing: Playing, ledger: Ledger) -> None:
        self.playing, self.scenario, self.ledger = playing, playing.scenario, ledger
        self._earlier: dict[str, bytes] = {}  # by receiver and sender: what went last

    def seconds(self, site: str, step: int, exchange: int) -> float:
        """How long a site's message takes."""
        events = list(self.scenario.happening(site, step, exchange, "slow"))
        for event in events:
            self.playing.happens(event)
        return sum(event.seconds for event in events)

    def deliver(self, message: Message, step: int, exchange: int, receive: Receive, *, to: str | None = None) -> None:
        """Bring a message to its receiver, again where it was damaged.

        Args:
            message: to be sent.
            step, exchange: when.
            receive: the receiver.
            to: the site that the hub answers; None for what a site asks.

        Raises:
            ProtocolError: it is refused however often it is sent.
        """
        site = message.sender if to is None else to
        data = encode(self._changed(message, site, step, exchange) if to is None else message)
        way = f"{message.sender} {to}"
        faults = self._faults(site, step, exchange, way, answers=to is not None)
        where = {"epoch": message.epoch, "step": message.step}
        copies = self._copies(data, faults, way)
        arrived = False
        for copy in copies:
            try:
                if not receive(copy):
                    self.ledger.note("ignored", site, **where, reason=f"a second copy of '{message.tag}'")
                arrived = True
            except MessageRefused as error:
                self.ledger.note("ignored", site, **where, reason=error.message)
        for _ in range(_ATTEMPTS):
            if arrived:
                break
            self.ledger.note("resent", site, **where, reason=f"'{message.tag}' did not arrive whole")
            arrived = receive(data)
        if not arrived:
            raise ProtocolError(f"'{message.tag}' of site {site} does not arrive", "look at the connection to it")
        self._earlier[way] = data

    def _faults(self, site: str, step: int, exchange: int, way: str, *, answers: bool) -> list[str]:
        """What becomes of a message now; nothing can be replayed before something went that way."""
        events = [
            event for event in self.scenario.of_messages(site, step, exchange, answers=answers)
            if event.event != "replayed" or way in self._earlier
        ]  # fmt: skip
        for event in events:
            self.playing.happens(event)
        return [event.event for event in events]

    def _copies(self, data: bytes, faults: Sequence[str], way: str) -> list[bytes]:
        """What arrives of it, in order."""
        copies = [data]
        if "truncated" in faults:
            copies = [data[: _place(data, 0)]]
        if "corrupted" in faults:
            place = _place(data, 1)
            copies = [data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]]
        if "duplicated" in faults:
            copies = [*copies, data]
        if "replayed" in faults:
            copies = [self._earlier[way], *copies, self._earlier[way]]
        return copies

    def _changed(self, message: Message, site: str, step: int, exchange: int) -> Message:
        """A message whose numbers are wrong, but well written."""
        for event in self.scenario.happening(site, step, exchange, "update"):
            if not is_update(message.tag) and event.exchange is None:
                continue
            self.playing.happens(event)
            factor = float("nan") if event.times is None else event.times
            message = replace(message, tensors=[_spoiled(tensor, factor) for tensor in message.tensors])
        return message


def _spoiled(tensor: Tensor, factor: float) -> Tensor:
    return tensor * factor if tensor.is_floating_point() and tensor.numel() > 1 else tensor


def _place(data: bytes, which: int) -> int:
    """A place in a message that depends on nothing but its content."""
    return hashlib.sha256(data).digest()[which] * len(data) // 256
