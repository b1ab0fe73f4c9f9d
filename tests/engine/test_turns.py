"""Generators in turns: each participant draws what it would draw alone, whatever the others do in between."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from weft.engine.seeding import outer_randomness_kept, seed_everything
from weft.engine.turns import Stream, begin_turn, end_turn

DRAWS = {
    "nothing": lambda: None,
    "uniform": lambda: float(np.random.rand()),
    "normal": lambda: float(np.random.randn()),  # of two, one is kept for the next call
    "torch": lambda: float(torch.rand(())),
    "python": lambda: (random.random(), random.gauss(0, 1)),
    "a whole block": lambda: float(np.random.rand(312).sum()),  # 624 words: the position is the same again
}


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    with outer_randomness_kept():
        yield


def alone(seed: int, plan: list[str]) -> list[object]:
    seed_everything(seed)
    return [DRAWS[name]() for name in plan]


def in_turns(plans: list[list[str]]) -> list[list[object]]:
    streams: list[Stream] = []
    for seed in range(len(plans)):
        seed_everything(seed)
        streams.append(end_turn(None))
    drawn: list[list[object]] = [[] for _ in plans]
    for turn in range(len(plans[0])):
        for number, plan in enumerate(plans):
            begin_turn(streams[number])
            drawn[number].append(DRAWS[plan[turn]]())
            streams[number] = end_turn(streams[number])
    return drawn


def plans_of(seed: int) -> list[list[str]]:
    generator = random.Random(seed)
    return [[generator.choice([*DRAWS, "nothing", "nothing"]) for _ in range(40)] for _ in range(3)]


@pytest.mark.parametrize("seed", range(20))
def test_participants_draw_what_they_would_draw_alone(seed: int) -> None:
    plans = plans_of(seed)
    assert in_turns(plans) == [alone(number, plan) for number, plan in enumerate(plans)]


def test_who_draws_between_two_turns_changes_nothing() -> None:
    plan = ["uniform", "normal", "nothing", "normal", "normal", "uniform"]
    seed_everything(3)
    stream, drawn = end_turn(None), []
    for number, name in enumerate(plan):
        np.random.seed(number)
        np.random.randn()  # leaves a number behind for the next call
        begin_turn(stream)
        drawn.append(DRAWS[name]())
        stream = end_turn(stream)
    assert drawn == alone(3, plan)


def test_a_generator_of_another_kind_keeps_its_place() -> None:
    before = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(5))
        expected = [float(np.random.rand()) for _ in range(4)]
        np.random.set_bit_generator(np.random.PCG64(5))
        stream, drawn = end_turn(None), []
        for _ in range(4):
            np.random.rand()
            begin_turn(stream)
            drawn.append(float(np.random.rand()))
            stream = end_turn(stream)
        assert drawn == expected
    finally:
        np.random.set_bit_generator(before)


def test_numpy_is_asked_only_where_it_was_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    get_state = np.random.get_state
    monkeypatch.setattr(np.random, "get_state", lambda **options: asked.append(options) or get_state(**options))
    stream = end_turn(None)
    for name in ("nothing", "torch", "python", "uniform", "nothing"):
        asked.clear()
        begin_turn(stream)
        DRAWS[name]()
        stream = end_turn(stream)
        assert bool(asked) == (name == "uniform"), name
