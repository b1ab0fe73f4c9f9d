"""Processes that are not alike: all end with an error that says who has what, none is taken down by the exchange."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.faults.nursery import Nursery
from tests.faults.runs import result_of, write_experiment
from tests.processes.children import start
from tests.processes.launch import free_port, train
from weft.engine import RunResult
from weft.engine.agreeing import different
from weft.engine.collectives import Answer, Collective, Gather, Sum
from weft.engine.exchange import IN_ONE_MESSAGE
from weft.engine.processes import drive_among_processes, find_place, joined
from weft.engine.state import Position
from weft.errors import ProtocolError

# --- collectives ------------------------------------------------------------------------------------------------------

SIZES = [0, 1, 3, 40, 5000, IN_ONE_MESSAGE, IN_ONE_MESSAGE + 1]


def together(nursery: Nursery, function: str, world: int = 2) -> list[Any]:
    """What `function` of this file printed as JSON in each of several processes that have joined."""
    variables = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        nursery.start(json.dumps(variables | {"RANK": str(rank)}), function, call=f"{__name__}:call")
        for rank in range(world)
    ]
    ended = [process.wait() for process in started]
    assert [one.code for one in ended] == [0] * world, "\n".join(one.text for one in ended)
    return [json.loads(one.out) for one in ended]


def call(variables: str, function: str) -> None:
    """Be one of these processes, in a child of the nursery."""
    os.environ.update(json.loads(variables))
    place = find_place()
    assert place is not None
    with joined(place, timeout=30):
        print(json.dumps(globals()[function](place.rank, place.world)))


def answers_to(*asked: Collective, step: int = 0) -> list[Answer]:
    """What this process is answered."""
    answers: list[Answer] = []

    def steps() -> Generator[Collective, Answer, RunResult]:
        for collective in asked:
            answers.append((yield collective))
        return RunResult("finished", 0, 0, 0.0)

    place = find_place()
    assert place is not None
    drive_among_processes(steps(), place, lambda: Position(step=step))
    return answers


def words_of_error(*asked: Collective, step: int = 0) -> str:
    try:
        answers_to(*asked, step=step)
    except ProtocolError as error:
        return error.message
    return "no error"


def any_collectives(rank: int, world: int) -> bool:
    """Whether sums and gathers of any sizes, one after the other, are answered with what they should be."""
    draw = random.Random(5)  # the same in all processes
    for number in range(150):
        kind, size = draw.choice("ggss"), draw.choice(SIZES)
        dtype = draw.choice([torch.float32, torch.float64, torch.int64, torch.uint8])
        own = torch.arange(size).remainder(7).to(dtype)
        if kind == "s":
            half = torch.tensor(0.5, dtype=torch.float16)
            ((ranks, total, halves),) = answers_to(Sum(f"sum {number % 3}", [torch.tensor([rank]), own, half]))
            assert torch.equal(total, own * world)
            assert (int(ranks), float(halves), halves.dtype) == (sum(range(world)), 0.5 * world, torch.float16)
        else:
            ((gathered,),) = answers_to(Gather("rows", [own[: size - rank]]))
            assert torch.equal(gathered, torch.cat([own[: size - other] for other in range(world)]))
    return True


def messages_of_steps(rank: int, world: int) -> list[int]:
    """How many messages each step of a few epochs takes."""
    counts: list[int] = []
    exchange = dist.all_gather

    def counted(*arguments: Any, **others: Any) -> Any:
        counts[-1] += 1
        return exchange(*arguments, **others)

    dist.all_gather = counted
    for epoch in range(3):
        for step in range(6):
            counts.append(0)
            answers_to(Sum("gradients", [torch.ones(300), torch.ones(2, dtype=torch.float64)]), step=6 * epoch + step)
        counts.append(0)  # for what follows
        answers_to(Sum("epoch", [torch.ones(3)]), Sum("scores", [torch.ones(1000)]), step=6 * epoch + 6)
        del counts[-1]
    return counts


def unlike_questions(rank: int, world: int) -> list[str]:
    """What is said where processes do not ask for the same; they can go on afterwards."""
    said = []
    for room in (0, 500):  # what they expect to be asked for
        answers_to(*[Sum("room", [torch.ones(room)])] * 5)
        said += [
            words_of_error(Sum("few or many", [torch.ones(2), torch.ones(3 + 400 * rank)])),
            words_of_error(Sum("too many", [torch.ones(3 + rank * IN_ONE_MESSAGE)])),
            words_of_error(Sum("types", [torch.ones(3, dtype=torch.float64 if rank else torch.float32)])),
            words_of_error(Gather("columns", [torch.ones(2, 3 + rank)])),
            words_of_error(Sum("one", [torch.ones(3)]) if rank else Gather("other", [torch.ones(700)])),
            words_of_error(Sum("steps", [torch.ones(3)]), step=4 + rank),
            words_of_error(Sum("list", [torch.ones(3)] * (1 + rank))),
        ]
    return said


def test_collectives_of_any_size_and_order_are_answered(nursery: Nursery) -> None:
    assert together(nursery, "any_collectives", 3) == [True, True, True]


def test_a_step_takes_one_message_once_the_sizes_are_known(nursery: Nursery) -> None:
    for counts in together(nursery, "messages_of_steps"):
        assert counts == [*[2, 2, 1, 1, 1, 1], *[2, 1, 1, 1, 1, 1], *[1, 1, 1, 1, 1, 1]]  # three epochs


def test_unlike_questions_are_an_error_that_says_who_asks_for_what(nursery: Nursery) -> None:
    first, second = together(nursery, "unlike_questions")
    assert first == second
    assert first[:7] == first[7:]
    expected = [
        (
            "a sum 'few or many' in epoch 1 after step 0, of which tensor 2 of 2 is [3] float32 in process 0; "
            "[403] float32 in process 1"
        ),
        (
            f"a sum 'too many' in epoch 1 after step 0, of which tensor 1 of 1 is [3] float32 in process 0; "
            f"[{3 + IN_ONE_MESSAGE}] float32 in process 1"
        ),
        (
            "a sum 'types' in epoch 1 after step 0, of which tensor 1 of 1 is [3] float32 in process 0; "
            "[3] float64 in process 1"
        ),
        (
            "a gather 'columns' in epoch 1 after step 0, of which tensor 1 of 1 is [3] float32 in process 0; "
            "[4] float32 in process 1"
        ),
        "a gather 'other' in epoch 1 after step 0 in process 0; a sum 'one' in epoch 1 after step 0 in process 1",
        "a sum 'steps' in epoch 1 after step 4 in process 0; a sum 'steps' in epoch 1 after step 5 in process 1",
        (
            "a sum 'list' in epoch 1 after step 0, of which tensor 2 of 2 is nothing in process 0; "
            "[3] float32 in process 1"
        ),
    ]
    assert first[:7] == [f"processes ask one another for different things: {words}" for words in expected]


def test_many_processes_that_say_the_same_are_told_in_few_words() -> None:
    lists = [["a", "b"]] * 20 + [["a", "c"]]
    assert different(lists, "row") == "row 2 of 2 is b in process 0, 1, 2, 3, 4, 5, 6, 7 …; c in process 20"


# --- runs -------------------------------------------------------------------------------------------------------------


def write_odd(folder: Path, changes: dict[str, Any]) -> Path:
    """An experiment of two processes that are not alike."""
    file = write_experiment(
        folder,
        {
            "dataset": {"arrays": {"some_points": {}}, "split": {"ratio": [0.7, 0.3]}},
            "model": {"OddNet": {}},
            "training.optimizer": {"SGD": {"lr": 0.05}},
            "training.scheduler": None,
            "run.observers": None,
            "run.timeout": 60,
            "patches": ["odd.py"],
            **changes,
        },
    )
    shutil.copy(Path(__file__).with_name("odd.py"), folder / "odd.py")
    return file


UNLIKE: dict[str, tuple[dict[str, Any], str]] = {
    "small networks": (
        {"model": {"OddNet": {"wider": 1}}},
        (
            "processes have made different networks: part 1 of 5 is body.0.weight [8, 12] float32 in process 0; "
            "body.0.weight [9, 12] float32 in process 1"
        ),
    ),
    "large networks": (
        {"model": {"OddNet": {"wider": 1, "hidden": 9000}}},
        "processes have made different networks: part 1 of 5 is body.0.weight [9000, 12] float32",
    ),
    "sharded networks": (
        {"model": {"OddNet": {"wider": 1}}, "run.sharding": "fsdp"},
        "processes have made different networks: part 1 of 4 is body.0.weight [8, 12] float32",
    ),
    "data": (
        {"dataset.arrays": {"some_points": {"more": 10}}},
        "processes see different data: split 1 of 2 is train with 42 items",
    ),
    "what is trained": (
        {"training.task": "Eager"},
        (
            "a sum 'gradients main' in epoch 1 after step 4, of which tensor 1 of 5 is [3, 8] float32 in process 0; "
            "[8, 12] float32 in process 1"
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", UNLIKE)
def test_processes_that_are_not_alike_end_with_an_error_that_says_in_what(
    case: str, nursery: Nursery, tmp_path: Path
) -> None:
    changes, words = UNLIKE[case]
    run = tmp_path / "run"
    command = ["train", write_odd(tmp_path, changes), "--out", run, "--processes", "2", "--restarts", "2"]
    ended = start(nursery, *command).wait()
    assert ended.code == 1, ended.text
    (error,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert words in error
    assert "starting all again" not in ended.err  # it would happen again
    assert "Enforce" not in ended.err
    if run.exists():
        assert words in result_of(run)["error"]


@pytest.mark.slow
def test_what_a_forward_pass_keeps_beside_the_saved_weights_makes_no_other_network(
    nursery: Nursery, tmp_path: Path
) -> None:
    """The first process alone tries the network out before they begin."""
    file = write_odd(tmp_path, {"model": {"RememberingNet": {}}})
    ended = start(nursery, "train", file, "--out", tmp_path / "run", "--processes", "2").wait()
    assert ended.code == 0, ended.text


@pytest.mark.slow
@pytest.mark.parametrize("case", ["small networks", "data"])
def test_a_run_that_goes_on_with_processes_that_are_not_alike_says_the_same(
    case: str, nursery: Nursery, tmp_path: Path
) -> None:
    """The first process has gone on already when it hears of the others."""
    changes, words = UNLIKE[case]
    file = write_odd(tmp_path, {**changes, "patches": ["odd.py", "patch.py"], "run.observers": ["Trap"]})
    run = tmp_path / "run"
    assert nursery.weft("train", file, "--out", run, trap={"at": "step", "count": 5}).code == -signal.SIGKILL
    ended = start(nursery, "train", "--resume", run, "--processes", "2").wait()
    assert ended.code == 1, ended.text
    assert words in ended.err


@pytest.mark.parametrize("decay", [None, 0.5])
def test_networks_that_nobody_has_seeded_begin_with_the_weights_of_the_first_process(
    decay: float | None, tmp_path: Path
) -> None:
    """Their average too."""
    ema = None if decay is None else {"decay": decay}
    settings = {"model": {"unseeded": True}, "training": {"epochs": 1, "ema": ema}, "count": 60}
    first, second = train(settings, 2, tmp_path)
    assert first["weights"] == second["weights"]
    assert first["model_sha256"] == second["model_sha256"]
    assert first["weights"] != train(settings, 2, tmp_path)[0]["weights"]


@pytest.mark.slow
def test_where_gloo_ends_a_process_in_a_backward_pass_the_hint_says_what_that_may_be(
    nursery: Nursery, tmp_path: Path
) -> None:
    changes = {"training.task": "Eager", "model": {"OddNet": {"hidden": 9000}}}
    command = ["train", write_odd(tmp_path, changes), "--out", tmp_path / "run", "--processes", "2"]
    ended = start(nursery, *command).wait()
    assert ended.code == 1, ended.text
    assert "was killed by SIGABRT after step 4 (epoch 1)" in ended.err
    assert "hint: look at what it printed; gloo ends a process that is sent more numbers than it waits for" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("model", [{}, {"hidden": 300, "depth": 4}])
def test_a_task_may_freeze_a_layer_in_one_process_which_then_counts_as_not_reached(
    model: dict[str, Any], tmp_path: Path
) -> None:
    """Also where gradients travel in buckets, whose sizes must be the same in all."""
    settings = {"model": model, "training": {"epochs": 1, "task": "tests.processes.job.FickleByItself"}}
    first, second = train(settings, 2, tmp_path)
    assert first["weights"] == second["weights"]
