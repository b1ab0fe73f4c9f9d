"""The hub of a study: sums what the sites send. It holds no model, no optimizer and no data.

Messages are taken one by one, in any order. One that does not belong here is refused with a reason and changes nothing;
numbers that would spoil the sum of all are left out, and the site that sent them is named in the ledger.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Literal

import torch

from weft.config import CohortConfig
from weft.engine.collectives import Answer, combine, shapes_of
from weft.errors import CohortError, MessageRefused, ProtocolError
from weft.federated.joining import require_same
from weft.federated.ledger import Ledger
from weft.federated.messages import Message, collective_of

CONTROL = "control"  # tag of the exchange that begins a step
DIGESTS = "digests"
BOUNDARIES = "boundaries"  # where sites that go on have saved: no part of what goes on
SCORES = "scores"  # first word of those that ask for counts of predictions
ROUND = "round"  # begins the tag of what sites send at the end of a round
_UPDATES = ("gradients", ROUND, "left factors", "right factors", "factors")


class Hub:
    """Takes what sites ask, and answers all of them at once.

    Args:
        study: the study's fingerprint, which every message must bear.
        names: of the sites that may take part.
        cohort: who must be there.
        ledger: where it is written who was refused, left or came back.
        settings: of the study's experiment by key, to tell a site what differs (see `joining.settings_of`).
        screened: whether gradients that are not finite are left out; not where losses are scaled, since they tell all
            sites to lower the scale. What sites send at the end of a round always is.

    Attributes:
        members: sites that take part, in order of names.
        number: counts the exchanges; what is sent for another one is refused.
        place: step of the running exchange, and which one of that step it is, as scenarios count them.
        astray: members whose weights were last found to differ from those of most.
    """

    def __init__(
        self,
        study: str,
        names: Sequence[str],
        cohort: CohortConfig,
        ledger: Ledger,
        *,
        settings: Mapping[str, str] | None = None,
        screened: bool = True,
    ) -> None:
        self.settings = dict(settings or {})
        self.study, self.names, self.cohort, self.ledger, self.screened = study, sorted(names), cohort, ledger, screened
        self.members: list[str] = []
        self.number = 0
        self.place = (-1, 0)
        self._asked: dict[str, Message] = {}
        self.astray: list[str] = []
        self._opening = True
        self._left_out: set[str] = set()  # whose updates are not taken until the next step begins
        self._lost: set[str] = set()  # who asked for something else than the others in this step
        self._usual: dict[str, float] = {}  # by tag: the size of what was taken last

    # --- who takes part -----------------------------------------------------------------------------------------------

    def join(self, hello: Message, *, event: Literal["joined", "returned"] | None = "joined") -> None:
        """Take a site in.

        Args:
            hello: what it says of itself.
            event: how it is noted; None where that was done before.

        Raises:
            MessageRefused: it is not of this study, has another version or another experiment, or is here already.
        """
        site = hello.sender
        if site not in self.names:
            raise MessageRefused(f"{site} is no site of this study", f"its sites are {', '.join(self.names)}")
        if site in self.members:
            raise MessageRefused(f"{site} takes part already", "stop the other process that bears its name")
        if hello.kind != "hello":
            raise MessageRefused(f"{site} begins with '{hello.kind}' instead of 'hello'", "join the study first")
        require_same(hello, self.study, self.settings)
        self.members = sorted([*self.members, site])
        if event is not None:
            self.ledger.note(event, site, epoch=hello.epoch, step=hello.step)

    def leave(self, site: str, *, epoch: int, step: int, reason: str, late: bool = False) -> None:
        """Go on without a site.

        Raises:
            CohortError: too few are left.
        """
        self.members = [name for name in self.members if name != site]
        self._asked.pop(site, None)
        self.ledger.note("late" if late else "left", site, epoch=epoch, step=step, reason=reason)
        self.require_enough(epoch=epoch, step=step)

    def require_enough(self, *, epoch: int, step: int, without: Sequence[str] = ()) -> None:
        """Refuse to go on with fewer sites than the study wants.

        Raises:
            CohortError: they are too few.
        """
        there = [name for name in self.members if name not in without]
        if len(there) >= self.cohort.minimum_sites:
            return
        missing = ", ".join(name for name in self.names if name not in there)
        count = "1 site is" if len(there) == 1 else f"{len(there)} sites are"
        self.ledger.note("stopped", "", epoch=epoch, step=step, reason=f"without {missing}")
        raise CohortError(
            f"{count} left in epoch {epoch + 1} after step {step}, without {missing}; "
            f"federation.cohort.minimum_sites is {self.cohort.minimum_sites}",
            "resume the study when they are back",
        )

    # --- what it remembers --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What an exchange depends on beside what is asked in it, for JSON: a study that goes on goes on with it."""
        known = {"usual": dict(self._usual), "left_out": sorted(self._left_out), "lost": sorted(self._lost)}
        return known | {"place": list(self.place)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._usual = {tag: float(size) for tag, size in state["usual"].items()}
        self._left_out, self._lost = set(state["left_out"]), set(state["lost"])
        step, exchange = state["place"]
        self.place = int(step), int(exchange)

    # --- an exchange --------------------------------------------------------------------------------------------------

    def take(self, message: Message, sender: str) -> bool:
        """Take what a site asks; False for a second copy, which is left alone.

        Args:
            message: decoded.
            sender: the site that the transport knows it comes from.

        Raises:
            MessageRefused: it does not belong to this exchange.
        """
        if message.sender != sender:
            raise MessageRefused(f"{sender} sends in the name of {message.sender!r}", "look at who writes there")
        if sender not in self.members:
            raise MessageRefused(f"{sender} does not take part", "it must join first")
        if message.study != self.study:
            raise MessageRefused(f"{sender} sends for another study: {message.study[:16]!r}", "look at its file")
        if message.kind != "ask":
            raise MessageRefused(f"{sender} sends '{message.kind}', but the hub only answers what is asked", "ask")
        if message.number == self.number and sender in self._asked:
            return False
        if message.number != self.number:
            word = "is over" if message.number < self.number else "has not begun"
            raise MessageRefused(
                f"exchange {message.number} of {sender} {word}; this is {self.number}", "it is not taken again"
            )
        self._asked[sender] = message
        return True

    def missing(self) -> list[str]:
        """Members that have not asked."""
        return [name for name in self.members if name not in self._asked]

    def answer(self) -> Answer:
        """The answer for all, once everybody who takes part has asked.

        Raises:
            ProtocolError: they ask for different things, and no majority is right.
            CohortError: too few sent what can be taken.
        """
        asked = {name: self._asked[name] for name in self.members}
        first, strangers = self._agreed(asked)
        agreed = {name: message for name, message in asked.items() if name not in strangers}
        if first.tag == CONTROL:
            self._left_out, self._lost = set(), set()
            self._note_failures(first, agreed)
            self._opening = False
        self._lost |= strangers
        spoiling = self._spoiling(first, asked)
        for name, reason in spoiling.items():
            self._refuse(name, first, f"'{first.tag}': {reason}")
        out = self._lost | spoiling.keys()
        if is_update(first.tag):  # later sums of an update belong to what was not taken; scores that follow do not
            out = self._left_out = self._left_out | out
        taken = [message for name, message in asked.items() if name not in out]
        self.require_enough(epoch=first.epoch, step=first.step, without=tuple(out))
        if first.tag == DIGESTS:
            self._compare(first, agreed)
        self.number += 1
        self._asked = {}
        return combine([collective_of(message) for message in taken])

    def _agreed(self, asked: dict[str, Message]) -> tuple[Message, set[str]]:
        """What most ask for, and who asks for something else."""
        questions = {name: _question(message) for name, message in asked.items()}
        question, count = Counter(questions.values()).most_common(1)[0]
        right = next(message for name, message in asked.items() if questions[name] == question)
        strangers = {name for name in asked if questions[name] != question}
        if 2 * count <= len(asked):
            names = ", ".join(f"{name} asks for {_words(message)}" for name, message in asked.items())
            raise ProtocolError(names, "participants must yield the same collectives in the same order")
        for name in sorted(strangers):
            self._refuse(name, right, f"asks for {_words(asked[name])} instead of {_words(right)}")
        return right, strangers

    def _refuse(self, site: str, asked: Message, reason: str) -> None:
        self.ledger.note("refused", site, epoch=asked.epoch, step=asked.step, reason=reason)
        if self._opening:
            hint = "mend what that site holds; sites cannot be left out before training begins"
            raise ProtocolError(f"what site {site} sends cannot be used: {reason}", hint)

    def _compare(self, first: Message, asked: dict[str, Message]) -> None:
        """Find sites whose weights are not those of most."""
        digests = {name: bytes(message.tensors[0].tolist()) for name, message in asked.items()}
        digest, count = Counter(digests.values()).most_common(1)[0]
        where = {"epoch": first.epoch, "step": first.step}
        if 2 * count <= len(digests):
            told = ", ".join(f"{name} has {digest.hex()[:16]}" for name, digest in digests.items())
            raise ProtocolError(
                f"the weights of the sites differ in epoch {first.epoch + 1} after step {first.step}: {told}",
                "resume from the last checkpoint; look for what is not deterministic at a site",
            )
        self.astray = sorted(name for name, other in digests.items() if other != digest)
        for name in self.astray:
            self.ledger.note("differs", name, **where, reason="its weights are not those of the others")
        if not self.astray:
            self.ledger.note("digests", "", **where, reason=digest.hex())

    def _note_failures(self, first: Message, asked: dict[str, Message]) -> None:
        """Sites say themselves when their loss or gradients were not finite; they counted nothing in that step."""
        failed = [
            name for name, message in asked.items() if len(message.tensors) > 1 and bool(message.tensors[1].any())
        ]
        for name in failed:
            reason = "its loss or gradients were not finite, and it counted nothing"
            self.ledger.note("failed", name, epoch=first.epoch, step=first.step, reason=reason)
        self.require_enough(epoch=first.epoch, step=first.step, without=failed)

    def _spoiling(self, first: Message, asked: dict[str, Message]) -> dict[str, str]:
        """Sites whose numbers must not be summed, and why."""
        updates = is_update(first.tag)
        if first.tag.split()[0] == SCORES:  # an infinite loss is that of all items; without them it would be made up
            return {}
        scaled = updates and not first.tag.startswith(ROUND) and not self.screened
        if first.operation not in ("sum", "gather") or scaled:
            return {}
        left_out = self._lost | self._left_out if updates else self._lost
        sizes = {name: _size(message) for name, message in asked.items() if name not in left_out}
        found = {name: "numbers that are not finite" for name, size in sizes.items() if not math.isfinite(size)}
        sound = {name: size for name, size in sizes.items() if name not in found}
        if updates and self.cohort.largest_update is not None:
            for name, size in sound.items():
                others = [other for peer, other in sound.items() if peer != name and other > 0]
                usual = max(median(others) if others else 0.0, self._usual.get(first.tag, 0.0))
                if usual > 0 and size > self.cohort.largest_update * usual:
                    found[name] = f"an update {size / usual:.1e} times as large as is usual"
            taken = [size for name, size in sound.items() if name not in found and size > 0]
            if taken:
                self._usual[first.tag] = median(taken)
        return found


def _question(message: Message) -> tuple[object, ...]:
    """What must be the same in what all members ask."""
    shapes = shapes_of(collective_of(message))
    kinds = tuple([tensor.dtype for tensor in message.tensors])
    return message.epoch, message.step, message.operation, message.tag, message.tolerated, shapes, kinds


def is_update(tag: str) -> bool:
    """Whether what is asked changes weights."""
    return tag.startswith(_UPDATES)


def _words(message: Message) -> str:
    return f"{message.operation} '{message.tag}' in epoch {message.epoch + 1}, step {message.step}"


def _size(message: Message) -> float:
    """The norm of all numbers with a fraction; one that is too large for their type is infinite only where they are."""
    tensors = [tensor for tensor in message.tensors if tensor.is_floating_point() and tensor.numel()]
    if not tensors:
        return 0.0
    size = math.hypot(*(float(norm) for norm in torch._foreach_norm(tensors)))
    if math.isfinite(size):
        return size
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        return math.inf
    return max(float(tensor.abs().max()) for tensor in tensors)
