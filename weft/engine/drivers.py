"""Drivers: who resumes a run's generator, and what a collective means to them.

`drive_alone` serves one participant; `Together` runs several in one process, in turns. Both hold the contract: a
collective is never asked inside a context that changes grad mode, autocast, inference mode or default dtype; the end
is a typed result; a failure is handed to everybody and every generator is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import torch

from weft.engine.collectives import Answer, Collective, CollectiveId, Sum, combine, shapes_of
from weft.engine.events import RunResult
from weft.engine.seeding import outer_randomness_kept, set_random_state
from weft.engine.state import Position
from weft.engine.turns import Stream, begin_turn, end_turn
from weft.errors import ProtocolError

Steps = Generator[Collective, Answer, RunResult]


def drive_alone(steps: Steps) -> RunResult:
    """Run a single participant: every collective is answered with its own tensors.

    Args:
        steps: the generator to drive, as `training` makes it.

    Raises:
        ProtocolError: it yielded inside a changed mode, or did not end with a `RunResult`.
    """
    modes = current_modes()
    try:
        collective = next(steps)
        while True:
            check_modes(modes, collective)
            collective = steps.send(combine([collective]))
    except StopIteration as end:
        return typed_result(end.value, "the run")
    finally:
        steps.close()


@dataclass(slots=True)
class JournalEntry:
    """One collective: what was asked, and the answer once it came."""

    id: CollectiveId
    asked: Collective
    answer: Answer | None = None


@dataclass(slots=True)
class Journal:
    """All collectives since the participant's last saved boundary: enough to bring it back to where it died.

    Replaying feeds the recorded answers to a generator that starts at the boundary; what had been asked but not
    answered is asked again from here, not recomputed.
    """

    entries: list[JournalEntry] = field(default_factory=list)

    def clear(self) -> None:
        """The boundary moved: a newer state was saved."""
        self.entries.clear()


class Participant:
    """One participant of a run that is driven together with others in one process.

    Args:
        name: participants are summed in order of their names.
        start: makes the generator from the participant's last saved state; called again after a failure.
        position: tells where the run is, for the ids of collectives.
        random: state of the random generators that this participant starts with.
    """

    def __init__(
        self, name: str, start: Callable[[], Steps], position: Callable[[], Position], random: dict[str, Any]
    ) -> None:
        self.name = name
        self.journal = Journal()
        self._start = start
        self._position = position
        self._first_random = random
        self._random: Stream | None = None  # None: where it begins
        self.steps: Steps | None = None
        self.result: RunResult | None = None

    def saved(self) -> None:
        """Called by the run when a boundary was saved: what came before need not be replayed."""
        self.journal.clear()

    def advance(self, answer: Answer | None) -> JournalEntry | None:
        """Go on to the next collective; None when the run is over."""
        modes = current_modes()
        if self._random is None:
            set_random_state(self._first_random)
        else:
            begin_turn(self._random)
        try:
            if self.steps is None:
                self.steps = self._start()
                collective = next(self.steps)
            elif answer is None:
                collective = next(self.steps)
            else:
                collective = self.steps.send(answer)
        except StopIteration as end:
            self.result = typed_result(end.value, f"participant '{self.name}'")
            return None
        finally:
            self._random = end_turn(self._random)
        check_modes(modes, collective)
        entry = JournalEntry(self._id_of(collective), collective)
        self.journal.entries.append(entry)
        return entry

    def answer(self, entry: JournalEntry, answer: Answer) -> None:
        """Record the answer before it is delivered, so that a death while it is used loses nothing."""
        lent = isinstance(entry.asked, Sum) and entry.asked.borrows
        entry.answer = answer if lent else [tensor.clone() for tensor in answer]

    def die(self) -> None:
        """End the generator as a crash would: nothing of it survives but the saved state and the journal."""
        if self.steps is not None:
            self.steps.close()
        self.steps = None

    def revive(self) -> JournalEntry | None:
        """Start again at the saved boundary and replay the journal.

        Returns:
            the collective that waits for an answer, None when the run is over.

        Raises:
            ProtocolError: the replay asks for something else than the journal holds.
        """
        recorded, self.journal.entries = self.journal.entries, []
        self._random = None  # where it began; the saved state, where there is one, brings its own
        answer: Answer | None = None
        for old in recorded:
            entry = self.advance(answer)
            if entry is None or entry.id != old.id:
                asked = "the end" if entry is None else entry.id.describe()
                raise ProtocolError(
                    f"replaying '{self.name}': expected {old.id.describe()}, but it asked for {asked}",
                    "the run is not deterministic, or its saved state and journal do not belong together",
                )
            entry.asked = old.asked
            if old.answer is None:
                return entry
            entry.answer = answer = old.answer
        return self.advance(answer)

    def _id_of(self, collective: Collective) -> CollectiveId:
        position = self._position()
        return CollectiveId(
            position.epoch,
            position.step,
            len(self.journal.entries),
            collective.kind,
            collective.tag,
            shapes_of(collective),
        )


class Together:
    """Several participants in one process, in turns, each with random generators of its own.

    Args:
        participants: at least one; their names are distinct.
    """

    def __init__(self, participants: list[Participant]) -> None:
        self.participants = sorted(participants, key=lambda participant: participant.name)
        if len({participant.name for participant in participants}) != len(participants):
            raise ProtocolError("participants must have distinct names", "rename one of them")
        self.waiting: dict[str, JournalEntry] = {}

    def run(self, after_turn: Callable[[], None] = lambda: None) -> dict[str, RunResult]:
        """Drive all participants to their end; results by name.

        Args:
            after_turn: called when everybody has been answered.

        Raises:
            ProtocolError: they disagree about where they are, or one ends alone.
        """
        with outer_randomness_kept():
            try:
                while self.turn():
                    after_turn()
                return {p.name: p.result for p in self.participants if p.result is not None}
            except BaseException as error:
                self._fail(error)
                raise

    def turn(self) -> bool:
        """Everybody asks, everybody is answered; False when all have ended."""
        return self.ask() and self.reply()

    def ask(self) -> bool:
        """Advance everybody to the next collective (also when one has ended: all must end together)."""
        errors: dict[str, Exception] = {}
        for participant in self.participants:
            pending = self.waiting.get(participant.name)
            if pending is not None and pending.answer is None:
                continue  # it was brought back and is asking already
            try:
                self._note(participant.name, participant.advance(pending.answer if pending is not None else None))
            except Exception as error:
                errors[participant.name] = error
        if errors:
            raise self.failure(errors)
        ended = [p.name for p in self.participants if p.result is not None]
        if ended and len(ended) < len(self.participants):
            others = [name for name in self.waiting if name not in ended]
            raise ProtocolError(
                f"{', '.join(ended)} ended while {', '.join(others)} still asks for "
                f"{self.waiting[others[0]].id.describe()}",
                "participants must decide alike: look for decisions from local data in a strategy or task",
            )
        return not ended

    def failure(self, errors: dict[str, Exception]) -> Exception:
        """What is raised when participants (by name) failed: the error of the first one."""
        return next(iter(errors.values()))

    def reply(self) -> bool:
        """Combine what was asked and record the answer with everybody."""
        entries = [self.waiting[participant.name] for participant in self.participants]
        first = entries[0].id
        for participant, entry in zip(self.participants, entries, strict=True):
            mine = (entry.id.epoch, entry.id.step, entry.id.kind, entry.id.tag, entry.id.shapes)
            if mine != (first.epoch, first.step, first.kind, first.tag, first.shapes):
                raise ProtocolError(
                    f"'{self.participants[0].name}' asks for {first.describe()}, "
                    f"'{participant.name}' for {entry.id.describe()}",
                    "participants must yield the same collectives in the same order",
                )
        answer = combine([entry.asked for entry in entries])
        for participant, entry in zip(self.participants, entries, strict=True):
            participant.answer(entry, answer)
        return True

    def restart(self, name: str) -> None:
        """Bring back a participant that died: from its saved boundary, fed the answers of its journal."""
        participant = next(p for p in self.participants if p.name == name)
        participant.die()
        self._note(name, participant.revive())

    def _note(self, name: str, entry: JournalEntry | None) -> None:
        if entry is None:
            self.waiting.pop(name, None)
        else:
            self.waiting[name] = entry

    def _fail(self, error: BaseException) -> None:
        """Hand the error to every generator, so that each can report and clean up, and close them all."""
        for participant in self.participants:
            steps, participant.steps = participant.steps, None
            if steps is None:
                continue
            try:
                steps.throw(error)
            except BaseException as answer:
                if answer is not error and not isinstance(answer, StopIteration) and answer.__context__ is None:
                    error.add_note(f"participant '{participant.name}' also failed: {answer!r}")
            finally:
                steps.close()


def current_modes() -> tuple[object, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )


def check_modes(before: tuple[object, ...], collective: Collective) -> None:
    if current_modes() != before:
        raise ProtocolError(
            f"the collective '{collective.tag}' was asked inside a context that changes grad mode, autocast, "
            "inference mode, default dtype or determinism",
            "leave the `with` block before yielding: another participant would inherit it",
        )


def typed_result(value: object, who: str) -> RunResult:
    if not isinstance(value, RunResult):
        raise ProtocolError(
            f"{who} ended with a {type(value).__name__} instead of a RunResult", "return RunResult(...)"
        )
    return value
