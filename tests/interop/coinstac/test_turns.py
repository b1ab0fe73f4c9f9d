"""A site's exchanges, one a call: a process that ends anywhere is followed by one that goes on to the same bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from weft.engine import Participant, RunResult
from weft.engine.collectives import Answer, Collective, Gather, Sum
from weft.engine.seeding import random_state
from weft.engine.state import Position
from weft.errors import MessageRefused, ProtocolError
from weft.federated.messages import decode, encode
from weft.interop.coinstac.hub import exchange
from weft.interop.coinstac.turns import Turns

STUDY = "ab" * 32
STEPS = 3


class Site:
    """Takes steps of two sums each and saves its state after each, as a run does.

    Args:
        name: the site's.
        folder: where its states lie.
        at: called with the name of each moment, where a process may end.
    """

    def __init__(self, name: str, folder: Path, at: Callable[[str], None] = lambda moment: None) -> None:
        self.name, self.folder, self.at = name, folder, at
        self.position_ = Position()
        self.value = torch.tensor([float(len(name))], dtype=torch.float64)
        self.saved: Callable[[], None] = lambda: None

    def position(self) -> Position:
        return self.position_

    def steps(self) -> Generator[Collective, Answer, RunResult]:
        files = sorted(self.folder.glob("last-*.pt"))
        if files:
            step, self.value, generator = torch.load(files[-1], weights_only=True)
            torch.manual_seed(generator)
            self.position_ = Position(step=step)
            if step == STEPS and files[-1].stem.endswith("f"):
                (self.value,) = yield Sum("validation", [self.value / 2])
                self._save("0" * 16)
        else:
            yield Gather("opening", [torch.arange(len(self.name))])
        while self.position_.step < STEPS:
            (p,) = yield Sum("left", [self.value * 1.1])
            self.at("between the sums")
            (q,) = yield Sum("right", [p / 3 + self.value])
            self.at("after the sums")
            self.value = torch.sin(q) + torch.rand(1, dtype=torch.float64)
            self.position_.step += 1
            self._save("f" * 16)
            if self.position_.step == STEPS:
                (self.value,) = yield Sum("validation", [self.value / 2])
                self._save("0" * 16)  # the end of the epoch: another state of the same step
        (total,) = yield Sum("end", [self.value])
        self.at("after the last sum")
        return RunResult("finished", 1, STEPS, 0.0, {"test": {"value": float(total)}})

    def _save(self, digest: str) -> None:
        generator = int(torch.randint(1 << 30, (1,)))  # a state holds its generators: what follows depends on it alone
        torch.manual_seed(generator)
        step = self.position_.step
        file = self.folder / f"last-{step:09d}-{digest}.pt"
        torch.save((step, self.value, generator), file)
        for twin in self.folder.glob(f"last-{step:09d}-*.pt"):
            if twin != file:
                self.at("two states of one step")
                twin.unlink()
        self.at("saved, and not said")
        self.saved()
        self.at("saved")


class Ended(BaseException):
    """The process ends here."""


class Ending:
    """Ends the process at the nth moment of a kind, once.

    Args:
        moment: which.
        count: n; 0 for never.
    """

    def __init__(self, moment: str, count: int) -> None:
        self.moment, self.left = moment, count

    def __call__(self, moment: str) -> None:
        if moment == self.moment and self.left:
            self.left -= 1
            if self.left == 0:
                raise Ended


def play(folder: Path, ending: Callable[[str], None], *, per_call: bool) -> tuple[list[bytes], dict[str, float]]:
    """Two sites to their end; what was asked, exchange by exchange, and the results."""

    def made(name: str) -> Turns:
        own = folder / name
        own.mkdir(parents=True, exist_ok=True)
        site = Site(name, own, ending if name == "b" else lambda moment: None)
        torch.manual_seed(7)
        participant = Participant(name, site.steps, site.position, random_state())
        turns = Turns(participant, own, study=STUDY, site=name)
        site.saved = turns.saved
        return turns

    sites = {name: made(name) for name in ("a", "b")}
    asked: dict[str, bytes | None] = {name: turns.begin() for name, turns in sites.items()}
    seen: list[bytes] = []
    for number in itertools.count():
        if None in asked.values():
            break
        messages = {name: data for name, data in asked.items() if data is not None}
        seen += messages.values()
        answer = exchange(messages, study=STUDY, number=number)
        for name in sites:
            if per_call:
                sites[name] = made(name)
            try:
                asked[name] = sites[name].answer(answer, number)
            except Ended:
                sites[name] = made(name)
                asked[name] = sites[name].answer(answer, number)
    assert set(asked.values()) == {None}
    results = {name: turns.participant.result for name, turns in sites.items()}
    return seen, {name: result.scores["test"]["value"] for name, result in results.items() if result is not None}


MOMENTS = [
    "between the sums", "after the sums", "saved, and not said", "saved",
    "two states of one step", "after the last sum",
]  # fmt: skip
ONCE = MOMENTS[-2:]  # these come once


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], dict[str, float]]:
    return play(tmp_path_factory.mktemp("undisturbed"), Ending("", 0), per_call=False)


def test_a_process_per_call_asks_and_ends_as_one_that_lives_on(
    undisturbed: tuple[list[bytes], dict[str, float]], tmp_path: Path
) -> None:
    assert play(tmp_path, Ending("", 0), per_call=True) == undisturbed
    assert len(undisturbed[0]) == 2 * (1 + 2 * STEPS + 2)


@pytest.mark.parametrize("per_call", [False, True])
@pytest.mark.parametrize(
    ("moment", "count"), [(moment, count) for moment in MOMENTS for count in (1, 2) if count == 1 or moment not in ONCE]
)
def test_a_process_that_ends_anywhere_is_followed_by_one_that_goes_on_to_the_same_bits(
    moment: str, count: int, per_call: bool, undisturbed: tuple[list[bytes], dict[str, float]], tmp_path: Path
) -> None:
    ending = Ending(moment, count)
    assert play(tmp_path, ending, per_call=per_call) == undisturbed
    assert ending.left == 0


def begun(folder: Path) -> tuple[Turns, bytes]:
    site = Site("a", folder)
    turns = Turns(Participant("a", site.steps, site.position, random_state()), folder, study=STUDY, site="a")
    asked = turns.begin()
    assert asked is not None
    return turns, asked


def test_an_answer_to_another_exchange_or_study_or_from_a_site_is_refused(tmp_path: Path) -> None:
    turns, asked = begun(tmp_path)
    answer = exchange({"a": asked}, study=STUDY, number=0)
    with pytest.raises(ProtocolError, match="waits for the answer to exchange 0, but was given that to 3"):
        turns.answer(answer, 3)
    message = decode(answer)
    for change in ({"study": "cd" * 32}, {"number": 1}, {"sender": "b"}, {"tag": "closing"}):
        other = encode(replace(message, **change))
        with pytest.raises(MessageRefused, match=next(iter(change))):
            turns.answer(other, 0)
    assert turns.answer(answer, 0) is not None


def test_a_damaged_answer_is_refused_and_leaves_the_site_as_it_was(tmp_path: Path) -> None:
    turns, asked = begun(tmp_path)
    answer = exchange({"a": asked}, study=STUDY, number=0)
    for damaged in (answer[:-5], answer[:40] + b"\0" + answer[41:], b"", b"\x80\x04pickle"):
        with pytest.raises(MessageRefused):
            turns.answer(damaged, 0)
    assert not list(tmp_path.rglob("*.answer"))
    assert turns.answer(answer, 0) is not None


def test_an_answer_that_is_given_again_is_not_taken_again(tmp_path: Path) -> None:
    """As when the host did not hear what was asked next."""
    turns, asked = begun(tmp_path)
    answer = exchange({"a": asked}, study=STUDY, number=0)
    first = turns.answer(answer, 0)
    assert first is not None
    assert turns.answer(answer, 0) == first
    assert turns.answer(exchange({"a": first}, study=STUDY, number=1), 1) is not None
    with pytest.raises(ProtocolError, match="exchange 2, but was given that to 0"):
        turns.answer(answer, 0)
