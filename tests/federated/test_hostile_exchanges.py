"""A hub and sites among messages that nobody should send: no crash, no weight changed, and the study goes on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.federated.hostile import STUDY, VALUES, corpus, enumerated, mutated, parted, texts, written
from tests.federated.lab import outcome, study
from weft import __version__
from weft.config import CohortConfig
from weft.engine.collectives import Collective, Gather, Robust, Sum, combine
from weft.errors import MessageRefused, ProtocolError
from weft.federated.hub import Hub
from weft.federated.ledger import Ledger
from weft.federated.messages import Message, answer_in, answer_to, ask_of, collective_of, decode, encode
from weft.federated.network import Network
from weft.federated.snapshots import flattened, unflattened
from weft.federated.study import simulate

SITES = ("north", "south", "west")
Question = Callable[[int], Collective]


def control(site: int = 0) -> Collective:
    return Sum("control", [torch.tensor([1, 0, 0, 0]), torch.tensor([0.0, 0.0])])


def gradients(site: int) -> Collective:
    numbers = torch.linspace(-1, 1, 12).reshape(3, 4) * (site + 1)
    return Sum("gradients main", [numbers, torch.tensor([8.0, 0.0], dtype=torch.float64)])


def factors(site: int) -> Collective:
    return Gather("factors main", [torch.ones(site + 1, 4) * site, torch.tensor([site + 1])])


def digests(site: int) -> Collective:
    return Gather("digests", [torch.arange(32, dtype=torch.uint8)])


def robust(site: int) -> Collective:
    return Robust("round main", [torch.arange(5.0) + site, torch.ones(1, dtype=torch.float64)], "median", 1)


QUESTIONS: list[Question] = [control, gradients, factors, digests, robust]


def opened(ledger: Ledger) -> Hub:
    """A hub in whose study training has begun."""
    hub = Hub(STUDY, SITES, CohortConfig(), ledger)
    for site in SITES:
        hub.join(Message("hello", STUDY, site, content={"weft": __version__}))
    answered(hub, *(asked(control, site, hub.number) for site in range(3)))
    return hub


def asked(question: Question, site: int, number: int) -> Message:
    return ask_of(question(site), study=STUDY, sender=SITES[site], epoch=1, step=12, number=number)


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    pairs = zip(one, other, strict=True)
    return len(one) == len(other) and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def variants(message: Message, count: int, seed: int) -> Iterator[bytes]:
    """Every field, cut and part, and as many mutations by chance as there are left."""
    generator = random.Random(seed)
    every = [data for _, data in enumerated(message)]
    generator.shuffle(every)
    yield from every[:count]
    yield from (mutated(message, generator)[1] for _ in range(count - len(every)))


@pytest.mark.parametrize("question", QUESTIONS)
def test_two_thousand_messages_to_the_hub_change_nothing_that_the_others_sent(question: Question) -> None:
    number = opened(Ledger()).number
    good = asked(question, 0, number)
    others = [asked(question, site, number) for site in (1, 2)]
    whole, rest = (combine([collective_of(m) for m in part]) for part in ([good, *others], others))
    hub, refused, left_out = opened(Ledger()), 0, 0
    for data in variants(good, 2000, seed=1):
        try:
            message = decode(data)
            hub.take(message, "north")
        except MessageRefused:
            refused += 1
            assert (hub.missing(), hub.number, hub.members) == (list(SITES), number, list(SITES))
            continue
        answer = answered(hub, *others)
        named = {row["site"] for row in hub.ledger.events if row["event"] == "refused"}
        if named:
            left_out += 1
            assert named == {"north"}
            assert same(answer, rest)
        else:
            assert same(answer, combine([collective_of(m) for m in (message, *others)]))
        hub = opened(Ledger())
    assert same(answered(hub, good, *others), whole)
    assert refused > 1600
    assert left_out > 20


NAN = float("nan")
STRANGE: list[list[Tensor]] = [
    [], [torch.zeros(())], [torch.zeros(0)], [torch.zeros(3, 4)] * 2, [torch.tensor([NAN, 1.0])], [torch.zeros(32)],
    [torch.zeros(5, dtype=torch.uint8)], [torch.zeros(2, 2, dtype=torch.uint8)], [torch.full((3, 4), 1e38)] * 3,
    [torch.tensor([True]), torch.tensor([-1])], [torch.zeros(1, 1, 1, 1, 1, 1, 1, 1)],
]  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_site_that_asks_for_something_strange_is_left_out_of_the_step_and_named(question: Question) -> None:
    number = opened(Ledger()).number
    good, *others = (asked(question, site, number) for site in range(3))
    whole, rest = (combine([collective_of(m) for m in part]) for part in ([good, *others], others))
    tags = [good.tag, "control", "digests", "gradients other", "left factors main"]
    for operation, tag, tensors in product(["sum", "gather", "median", "krum"], tags, STRANGE):
        try:
            strange = decode(encode(replace(good, operation=operation, tag=tag, tensors=tensors)))
        except ProtocolError:  # no single number can be gathered
            continue
        hub = opened(Ledger())
        answer = answered(hub, strange, *others)
        events = [row for row in hub.ledger.events if row["event"] in ("refused", "differs")]
        assert {row["site"] for row in events} == {"north"}
        if events[0]["event"] == "refused":
            assert same(answer, rest)
        answered(hub, *(asked(control, site, hub.number) for site in range(3)))
        assert same(answered(hub, *(asked(question, site, hub.number) for site in range(3))), whole)


def answered(hub: Hub, *messages: Message) -> list[Tensor]:
    for message in messages:
        hub.take(message, message.sender)
    return hub.answer()


@pytest.mark.parametrize("question", QUESTIONS)
def test_two_thousand_answers_are_the_right_one_or_none(question: Question) -> None:
    ask = asked(question, 0, 40)
    numbers = combine([question(site) for site in range(3)])
    answer = answer_to(ask, numbers)
    good, taken = encode(answer), 0
    for data in variants(answer, 2000, seed=2):
        try:
            told = answer_in(data, ask)
        except MessageRefused:
            continue
        if data[: -len(numbers_of(good))] != good[: -len(numbers_of(good))]:  # more was changed than numbers
            taken += 1
            assert same(told, numbers)
    assert taken < 30  # content is not looked at


def numbers_of(data: bytes) -> bytes:
    """The safetensors part of a message, and its digest."""
    return parted(data)[1] + data[-32:]


def test_two_thousand_hellos_let_nobody_in_but_who_says_the_right_thing() -> None:
    hub = Hub(STUDY, SITES, CohortConfig(), Ledger(), settings={"seed": "5"})
    settings: dict[str, Any] = {"seed": "5", "training.epochs": "3"}
    hello = Message("hello", STUDY, "north", 0, 0, content={"weft": __version__, "settings": settings})
    joined = 0
    for data in variants(hello, 2000, seed=3):
        try:
            message = decode(data)
            hub.join(message)
        except MessageRefused:
            assert hub.members == []
            continue
        assert (message.kind, message.study, message.content["weft"]) == ("hello", STUDY, __version__)
        assert hub.members == [message.sender]
        hub.members = []
        joined += 1
    assert joined < 200
    hub.join(hello)
    assert hub.members == ["north"]


def test_a_snapshot_of_anything_is_a_state_or_refused() -> None:
    state = {"position": {"epoch": 1, "loss": float("nan")}, "names": ("a", None), 3: [torch.ones(2), True]}
    tensors = flattened(state)
    text = bytes(tensors[0].tolist())
    generator = random.Random(4)
    texts_seen = [*texts().values(), *(written({"entries": [["a", value]]}) for value in VALUES)]
    texts_seen += [written(value) for value in VALUES]
    for _ in range(2000):
        changed = bytearray(text)
        for _ in range(generator.randint(1, 4)):
            changed[generator.randrange(len(changed))] = ord(generator.choice('0123456789-.,:"[]{}eEntl\\'))
        texts_seen.append(bytes(changed))
    others = [torch.frombuffer(bytearray(other), dtype=torch.uint8) for other in texts_seen if other]
    firsts = [*others, tensors[0].reshape(1, -1), tensors[0].long(), torch.zeros((), dtype=torch.uint8)]
    for first in firsts:
        try:
            assert isinstance(unflattened([first, *tensors[1:]]), dict)
        except MessageRefused:
            continue
    with pytest.raises(MessageRefused):
        unflattened([])
    assert unflattened(tensors)["names"] == ("a", None)


def test_the_corpus_does_nothing_to_hub_and_site() -> None:
    hub = opened(Ledger())
    ask = asked(gradients, 0, hub.number)
    for data in corpus().values():
        with pytest.raises(MessageRefused):
            answer_in(data, ask)
        with pytest.raises(MessageRefused):
            hub.take(decode(data), "north")
    assert hub.missing() == list(SITES)


class Disturbed(Network):
    """Before each message come some that nobody should send; nothing of them may be taken.

    Left out are those that are well written, by the right sender at the right time: who may write in the name of a site
    is for the transport to know.
    """

    injected = 0

    def _copies(self, data: bytes, faults: list[Any], way: str) -> list[bytes]:
        good = decode(data)
        generator = random.Random(data[-32:])
        bad = (mutated(good, generator)[1] for _ in range(10_000))
        found = list(islice((other for other in bad if not _may_be(other, good)), 30))
        Disturbed.injected += len(found)
        return [*found, data]


def _may_be(data: bytes, good: Message) -> bool:
    try:
        other = decode(data)
    except MessageRefused:
        return False
    fields = ("kind", "study", "sender", "number")
    return all(getattr(other, field) == getattr(good, field) for field in fields)


@pytest.mark.slow
def test_a_study_goes_on_to_the_same_bits_among_ten_thousand_hostile_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    simulate(study(), out=tmp_path / "quiet")
    monkeypatch.setattr("weft.federated.simulation.Network", Disturbed)
    Disturbed.injected = 0
    simulate(study(), out=tmp_path / "disturbed", scenario={"events": []})
    assert Disturbed.injected > 10_000
    assert outcome(tmp_path / "disturbed") == outcome(tmp_path / "quiet")


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [
        {"Payload": {"strategy": {"component": {"rankDAD": {"rank": 3}}}, "numbers": "fp16"}},
        {"Payload": {"strategy": {"component": {"TopK": {"strategy": {"component": "dSGD"}, "share": 0.3}}}}},
        {"TopK": {"strategy": {"component": {"Payload": {"strategy": {"component": "dSGD"}, "numbers": "fp16"}}}}},
    ],
)
def test_encoded_a_study_is_the_same_to_the_bit_with_numbers_of_16_bits(strategy: Any, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    settings = {"federation__strategy": strategy, "training__epochs": 1}
    simulate(study(**settings), out=tmp_path / "handed-over")
    simulate(study(**settings), out=tmp_path / "encoded", scenario={"events": []})
    assert outcome(tmp_path / "encoded") == outcome(tmp_path / "handed-over")
