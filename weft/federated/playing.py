"""A scenario while it is played: which of its events have come, and which never will.

Both are written into the study's ledger, so that a study that goes on knows them, and gives up with the ledger's later
lines what will happen again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from weft.engine.collectives import CollectiveId
from weft.federated.ledger import Ledger, read_ledger
from weft.federated.scenario import AT_JOINING, Scenario, ScenarioEvent

logger = logging.getLogger("weft")


class Playing:
    """Knows what of a scenario has happened.

    Args:
        scenario: what is to happen.
        ledger: of the study; where it goes on, back at the boundary where it does.
        state: what `state_dict` gave at that boundary.
    """

    def __init__(self, scenario: Scenario, ledger: Ledger, state: Mapping[str, Any] | None = None) -> None:
        self.scenario, self._ledger = scenario, ledger
        self._happened: set[int] = set()  # numbers of events, as those below
        self._missed: dict[int, str] = {}  # and why
        self._step, self._epoch = -1, 0
        self._tags: list[str] = []  # of the exchanges of this step so far
        self._there: set[str] = set()  # sites that took part in one of them
        for row in read_ledger(ledger.path) if ledger.path is not None else ():
            self._remember(row)
        if state is not None:
            self._step, self._epoch = state["step"], state["epoch"]
            self._tags, self._there = list(state["tags"]), set(state["there"])

    def state_dict(self) -> dict[str, Any]:
        """The step that is being played, for JSON: a boundary may lie between two of its exchanges."""
        there = sorted(self._there)
        return {"step": self._step, "epoch": self._epoch, "tags": list(self._tags), "there": there}

    def _remember(self, row: dict[str, Any]) -> None:
        for number, event in enumerate(self.scenario.events):
            if row["site"] == event.site and str(row["reason"]).startswith(f"{event.words()} ("):
                if row["event"] == "planned":
                    self._happened.add(number)
                elif row["event"] == "missed":
                    self._missed[number] = str(row["reason"]).partition(") ")[2]

    def exchange(self, asked: CollectiveId, members: Collection[str]) -> None:
        """Everybody has asked for the next exchange.

        Args:
            asked: which one.
            members: the sites that take part.
        """
        if asked.step != self._step:
            for number, event in self._open():
                if event.step < asked.step and event.event not in AT_JOINING:
                    self._miss(number, event, self._why(event), asked.epoch)
            self._tags, self._there = [], set()
        self._step, self._epoch = asked.step, asked.epoch
        self._tags.append(asked.tag)
        self._there.update(members)

    def happens(self, event: ScenarioEvent) -> None:
        """An event of the scenario comes now; of one that comes several times the first is noted."""
        number = next(number for number, one in enumerate(self.scenario.events) if one is event)
        if number not in self._happened:
            self._happened.add(number)
            where = {"epoch": self._epoch, "step": max(self._step, 0)}
            self._ledger.note("planned", event.site, **where, reason=f"{event.words()} ({self._place(number)})")

    def joins(self, site: str) -> None:
        """A site is about to join."""
        for event in self.scenario.at_joining(site):
            self.happens(event)

    def finish(self, steps: int, deadline: float | None, away: Collection[str]) -> list[dict[str, Any]]:
        """What became of each event, at the end; what never came, or changed nothing, is told.

        Args:
            steps: that the study took.
            deadline: seconds after which a site is late; None where there is no such thing.
            away: sites that are not there in the end.

        Returns:
            of each event, in order: site, what, where it is written, whether it happened, and why it changed nothing.
        """
        for number, event in self._open():
            why = f"the study took {steps} steps" if event.step > steps else self._why(event)
            self._miss(number, event, why, self._epoch)
        told = []
        for number, event in enumerate(self.scenario.events):
            why = self._missed.get(number) or _without_effect(event, deadline, away)
            if why and number not in self._missed:
                logger.warning("scenario: site %s: %s (%s) %s", event.site, event.words(), self._place(number), why)
            told.append({
                "site": event.site, "event": event.event, "step": event.step, "words": event.words(),
                "place": self._place(number), "happened": number in self._happened, "why": why,
            })  # fmt: skip
        return told

    def _open(self) -> Iterator[tuple[int, ScenarioEvent]]:
        for number, event in enumerate(self.scenario.events):
            if number not in self._happened and number not in self._missed:
                yield number, event

    def _miss(self, number: int, event: ScenarioEvent, why: str, epoch: int) -> None:
        self._missed[number] = f"never happened: {why}"
        reason = f"{event.words()} ({self._place(number)}) {self._missed[number]}"
        self._ledger.note("missed", event.site, epoch=epoch, step=event.step, reason=reason)

    def _why(self, event: ScenarioEvent) -> str:
        """Why an event of the last step has not come."""
        if event.step != self._step:
            return "it would have been while the study was not running"
        if event.site not in self._there:
            return f"{event.site} was not there"
        amount = len(self._tags)
        asked = f"the {amount} exchange{'s' * (amount > 1)} of that step: {', '.join(self._tags)}"
        if event.event == "update" and event.exchange is None:
            return f"nothing was sent that changes weights: {asked}"
        return asked

    def _place(self, number: int) -> str:
        return self.scenario.place(number)


def _without_effect(event: ScenarioEvent, deadline: float | None, away: Collection[str]) -> str:
    """Why an event that has come changed nothing, or less than was planned; empty where it did what it was to do."""
    if event.event == "slow" and (deadline is None or event.seconds <= deadline):
        limit = "federation.cohort has no deadline" if deadline is None else f"the deadline is {deadline:g} s"
        return f"changed nothing: {event.seconds:g} s, and {limit}"
    if event.returns is not None and event.site in away:
        return (
            f"was to be over after step {event.returns}, but the site never came back: sites come back at the "
            "beginning of a step at which all weights are equal, with FedAvg and its kin that of a round"
        )
    return ""
