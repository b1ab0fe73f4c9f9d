"""One site's part of a fold, one exchange a call; between two calls its process may end.

What the site asked and was told since its last saved boundary lies on the disk. A new process starts at that boundary
and is fed the answers it had: to the bit what a process does that lives on. What waits for an answer is sent again as
it was, not computed anew.

    FOLDER/journal/BASE/begins              the number of the first exchange that follows
    FOLDER/journal/BASE/00000007.asked      what was asked in exchange 7, encoded
    FOLDER/journal/BASE/00000007.answer     the answer

BASE names the saved state that these exchanges follow. An answer is written before it is used, and the journal is
changed after a state was saved, so a process may be killed at any moment.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from weft.engine.collectives import CollectiveId, shapes_of
from weft.engine.drivers import JournalEntry, Participant
from weft.errors import MessageRefused, ProtocolError
from weft.federated.messages import Message, ask_of, collective_of, decode, encode, expected_of
from weft.interop.coinstac.storing import write


class Turns:
    """Drives a site's generator, one exchange a call.

    Args:
        participant: the site's generator, not yet begun in this process.
        folder: where the journal lies; the site's checkpoints lie below it too.
        study: the study's fingerprint.
        site: its name.

    Attributes:
        waiting: the number of the exchange that waits for an answer; None before the first one, and when the fold is
            over.
        repeating: whether what another process did is done again, up to where it ended.
    """

    def __init__(self, participant: Participant, folder: Path, *, study: str, site: str) -> None:
        self.participant, self.folder, self.study, self.site = participant, folder, study, site
        self.waiting: int | None = None
        self.repeating = False
        self._next = 0
        self._entry: JournalEntry | None = None
        self._begun = False
        self._sent: bytes | None = None

    def begin(self) -> bytes | None:
        """Ask for the first time, or ask again what waited when the last process ended; None when the fold is over."""
        self._begun = True
        self._take_journal()
        self.repeating = bool(self.participant.journal.entries)
        try:
            return self._asked(self.participant.revive())
        finally:
            self.repeating = False

    def answer(self, data: bytes, number: int) -> bytes | None:
        """Take the answer to an exchange, and go on to the next one.

        Args:
            data: the hub's message.
            number: which exchange it answers.

        Returns:
            what is asked next, encoded; None when the fold is over.

        Raises:
            MessageRefused: the message is damaged, or is not the hub's answer to what was asked.
            ProtocolError: it answers another exchange than the one that waits.
        """
        if not self._begun:
            self.begin()
            if self.waiting is None:
                return None
        if self.waiting == number + 1:
            return self._sent  # the answer was taken, by this process or one that has ended, and only this was not told
        if self.waiting != number or self._entry is None:
            self._refuse_number(number)
        assert self._entry is not None
        entry = self._entry
        message = decode(data, expected=expected_of(entry.asked))
        require_answer(message, self._ask(entry, number))
        journal = self._journal()
        journal.mkdir(parents=True, exist_ok=True)
        write(journal / f"{number:08d}.answer", data)
        entry.asked = replace(entry.asked, tensors=[])  # the disk has it
        return self._asked(self.participant.advance(message.tensors))

    def saved(self) -> None:
        """A boundary was saved: what came before need not be replayed."""
        self.participant.saved()
        journal = self._journal()
        journal.mkdir(parents=True, exist_ok=True)
        write(journal / "begins", str(self._next).encode())
        for other in journal.parent.iterdir():
            if other != journal:
                shutil.rmtree(other)

    # --- messages -----------------------------------------------------------------------------------------------------

    def _ask(self, entry: JournalEntry, number: int) -> Message:
        where = {"epoch": entry.id.epoch, "step": entry.id.step, "number": number}
        return ask_of(entry.asked, study=self.study, sender=self.site, **where)

    def _asked(self, entry: JournalEntry | None) -> bytes | None:
        """Note what is asked, and encode it."""
        self._entry = entry
        if entry is None:
            self.waiting = None
            return None
        self.waiting, self._next = self._next, self._next + 1
        file = self._journal() / f"{self.waiting:08d}.asked"
        if file.exists():  # as it was asked before
            self._sent = file.read_bytes()
            return self._sent
        self._sent = encode(self._ask(entry, self.waiting))
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, self._sent)
        return self._sent

    def _refuse_number(self, number: int) -> None:
        raise ProtocolError(
            f"{self.site} waits for the answer to exchange {self.waiting}, but was given that to {number}",
            "its directories and the pipeline's state do not belong together; begin again, without --resume",
        )

    # --- the journal --------------------------------------------------------------------------------------------------

    def _journal(self) -> Path:
        """The folder of what follows the newest saved state."""
        states = _states(self.folder)
        return self.folder / "journal" / (states[-1].stem if states else "start")

    def _take_journal(self) -> None:
        """Give the participant what it asked and was told since its newest state."""
        self._remove_older_twin()
        journal = self._journal()
        if not journal.is_dir():  # where there are others, it died between saving a state and saying so
            before = [int(file.stem) for file in self.folder.glob("journal/*/*.asked")]
            self._next = max(before, default=-1) + 1
            return
        begins = journal / "begins"
        self._next = int(begins.read_text()) if begins.exists() else 0
        entries = self.participant.journal.entries
        for file in sorted(journal.glob("*.asked")):
            message = decode(file.read_bytes())
            collective = collective_of(message)
            place = CollectiveId(
                message.epoch, message.step, len(entries), collective.kind, collective.tag, shapes_of(collective)
            )
            entry = JournalEntry(place, collective)
            answer = file.with_suffix(".answer")
            if answer.exists():
                entry.answer = decode(answer.read_bytes(), expected=expected_of(collective)).tensors
            entries.append(entry)
            self._next = message.number + int(entry.answer is not None)

    def _remove_older_twin(self) -> None:
        """A state may be written again at its step; where a process ended before the older file went, it goes now."""
        states = _states(self.folder)
        for state in states:
            twins = [other for other in states if other != state and _step(other) == _step(state)]
            if twins and (self.folder / "journal" / state.stem).is_dir():
                state.unlink()
                return


def require_answer(message: Message, ask: Message) -> None:
    """Refuse a message that is not the hub's answer to what was asked.

    Raises:
        MessageRefused: it is another one.
    """
    expected = replace(ask, kind="answer", sender="hub")
    for name in ("kind", "sender", "study", "number", "epoch", "step", "operation", "tag"):
        found, wanted = getattr(message, name), getattr(expected, name)
        if found != wanted:
            raise MessageRefused(
                f"the hub's message has {name} {found!r}, but {ask.sender} waits for {wanted!r}",
                "it belongs to another exchange or study; nothing of it was used",
            )


def _states(folder: Path) -> list[Path]:
    """Saved states below a folder, the newest last."""
    return sorted(folder.rglob("last-*.pt"), key=lambda file: (_step(file), file.stat().st_mtime_ns))


def _step(file: Path) -> int:
    return int(file.stem.split("-")[1])
