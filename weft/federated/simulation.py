"""All sites of a study in one process, around one hub, and the network between them where a scenario disturbs it.

Without a scenario tensors are handed over as they are. With one, every message is encoded, goes through what the
scenario makes of it, and is decoded and checked by who receives it; what is lost is sent again, so that the study is
the same to the bit unless a site is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from weft.config import CohortConfig
from weft.engine import Participant
from weft.engine.collectives import Answer, CollectiveId
from weft.engine.drivers import JournalEntry, Steps
from weft.errors import CohortError
from weft.federated.failing import SitesTogether, at_site
from weft.federated.hub import BOUNDARIES, CONTROL, DIGESTS, SCORES, Hub
from weft.federated.joining import hello_of
from weft.federated.messages import Message, answer_in, answer_to, ask_of, decode, encode
from weft.federated.network import Network
from weft.federated.playing import Playing
from weft.federated.site import Site
from weft.federated.snapshots import flattened, shared_state, unflattened, weights_are_equal


class Sites(SitesTogether):
    """Drives the sites of a study.

    Args:
        sites: those that take part from the beginning, or are away at the moment.
        hub: has taken in those that are there.
        cohort: who must be there.
        playing: the scenario of what goes wrong; None for nothing.
        timed: wraps the clock of a site (by name) around what it does.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        hub: Hub,
        cohort: CohortConfig,
        playing: Playing | None,
        timed: Callable[[str, Callable[[], Steps]], Callable[[], Steps]],
    ) -> None:
        self.sites = {site.name: site for site in sites}
        self.hub, self.cohort, self.playing, self._timed = hub, cohort, playing, timed
        self.scenario = playing.scenario if playing is not None else None
        self.network = Network(playing, hub.ledger) if playing is not None else None
        self.back: set[str] = set()  # sites that wait for the next step at which they may come back
        self._step, self._exchange = -1, 0
        self._training = False  # until they train, sites cannot do without one another
        super().__init__([self._participant(self.sites[name], self.sites[name].steps) for name in hub.members])

    # --- one exchange -------------------------------------------------------------------------------------------------

    def ask(self) -> bool:
        """Advance everybody, and let those come back who may."""
        more = super().ask()
        if more:
            first = self._first().tag
            if not self._training and first.split()[0] in (CONTROL, DIGESTS, SCORES):
                self._training = True  # or has been over when the study was stopped, behind its last exchange
                self._step, self._exchange = self.hub.place
            self._count()
            if first == CONTROL:
                self._bring_back()
            if self._training:
                self._disturb()
        return more

    def reply(self) -> bool:
        """Let the hub take what was asked and answer it."""
        for name in self._in_order_of_arrival():
            self._send(name, self.waiting[name])
        entries = {participant.name: self.waiting[participant.name] for participant in self.participants}
        asked = {name: self._message(name, entry) for name, entry in entries.items()}
        answer = self.hub.answer()
        for participant in self.participants:
            name = participant.name
            participant.answer(entries[name], self._answered(name, asked[name], answer))
        for name in self.hub.astray:
            self._leave(name, "it takes the weights of the others", returns=True)
        self.hub.astray = []
        return True

    def _in_order_of_arrival(self) -> list[str]:
        names = [participant.name for participant in self.participants]
        if self.scenario is None:
            return names
        held_up = [
            n for n in names
            if any(
                event.event == "reordered"
                for event in self.scenario.of_messages(n, self._step, self._exchange, answers=False)
            )
        ]  # fmt: skip
        return [name for name in names if name not in held_up] + held_up

    def _first(self) -> CollectiveId:
        return self.waiting[self.participants[0].name].id

    def _count(self) -> None:
        """Exchanges are counted within a step, which begins with the agreement on it."""
        first = self._first()
        if first.tag == BOUNDARIES:
            return  # of no step: nothing that is planned happens to it
        if first.tag == CONTROL or first.step != self._step:
            self._exchange = 0
        self._step = first.step
        self._exchange += 1
        if self._training:
            self.hub.place = self._step, self._exchange
        if self.playing is not None:
            self.playing.exchange(first, self.hub.members)

    def _message(self, name: str, entry: JournalEntry) -> Message:
        return ask_of(
            entry.asked, study=self.hub.study, sender=name, epoch=entry.id.epoch, step=entry.id.step,
            number=self.hub.number,
        )  # fmt: skip

    def _send(self, name: str, entry: JournalEntry) -> None:
        message = self._message(name, entry)
        if self.network is None:
            self.hub.take(message, name)
            return
        seconds = self.network.seconds(name, self._step, self._exchange)
        if self._training and self.cohort.deadline is not None and seconds > self.cohort.deadline:
            reason = f"{seconds:g} s for '{message.tag}', the deadline is {self.cohort.deadline:g} s"
            self._leave(name, reason, returns=True, late=True)
            return
        self.network.deliver(message, self._step, self._exchange, lambda data: self._received(name, data))

    def _received(self, name: str, data: bytes) -> bool:
        return self.hub.take(decode(data), name)

    def _answered(self, name: str, asked: Message, answer: Answer) -> Answer:
        if self.network is None:
            return answer
        message = answer_to(asked, answer)
        found: list[Answer] = []

        def received(data: bytes) -> bool:
            told = answer_in(data, asked)
            if found:
                return False
            found.append(told)
            return True

        self.network.deliver(message, self._step, self._exchange, received, to=name)
        return found[0]

    # --- who is there -------------------------------------------------------------------------------------------------

    def _participant(self, site: Site, start: Callable[[], Steps]) -> Participant:
        return Participant(site.name, self._timed(site.name, start), site.position, site.first_randomness())

    def _disturb(self) -> None:
        """What the scenario has for this moment."""
        if self.scenario is None or self.playing is None:
            return
        for participant in list(self.participants):
            name = participant.name
            for event in self.scenario.happening(name, self._step, self._exchange, "leaves", "weights"):
                if event.event == "weights":
                    self.playing.happens(event)
                    self.sites[name].change_weights()
                elif name in self.waiting:
                    self.playing.happens(event)
                    self._leave(name, "its process died")

    def _leave(self, name: str, reason: str, *, returns: bool = False, late: bool = False) -> None:
        participant = next(one for one in self.participants if one.name == name)
        entry = self.waiting.pop(name)
        self.participants.remove(participant)
        participant.die()
        self.sites[name].leave()
        if returns:
            self.back.add(name)
        self.hub.leave(name, epoch=entry.id.epoch, step=entry.id.step, reason=reason, late=late)

    def _bring_back(self) -> None:
        """Sites that are back take the state of the first live one and go on with the others.

        Only at the beginning of a step at which all weights are equal: there is nothing else that all share.
        """
        first = self.sites[self.participants[0].name]
        position = first.position()
        if self.scenario is not None:
            absent = set(self.sites) - set(self.hub.members)
            self.back |= absent & self.scenario.returning(position.step)
        if not self.back or not weights_are_equal(first.built):
            return
        snapshot = Message(
            "snapshot", self.hub.study, "hub", position.epoch, position.step, self.hub.number,
            tensors=flattened(shared_state(first.built)),
        )  # fmt: skip
        data = encode(snapshot)
        for name in sorted(self.back):
            site = self.sites[name]
            self.hub.join(
                hello_of(
                    name, self.hub.study, self.hub.settings, self.scenario, epoch=position.epoch, step=position.step
                ),
                event="returned",
            )
            self._rejoin(site, data)
        self.back.clear()

    def _rejoin(self, site: Site, data: bytes) -> None:
        shared = unflattened(decode(data).tensors)
        participant = self._participant(site, lambda: site.rejoin(shared))
        try:
            entry = participant.advance(None)
        except Exception as error:
            at_site(site.name, error)
            raise
        if entry is None or entry.asked.tag != CONTROL:
            raise CohortError(f"site {site.name} came back, but did not go on with the others", "resume the study")
        self.participants = sorted([*self.participants, participant], key=lambda one: one.name)
        self.waiting[site.name] = entry
