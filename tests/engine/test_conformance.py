"""The contract of collectives, for every strategy: add yours to STRATEGIES and it is held to all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest

import pytest
import torch
from torch.nn import functional

from tests.engine.studies import Study, open_site, same, site_experiment
from weft.data import make_loader
from weft.engine import AverageGradients, Gradients, RunResult, Strategy, Sum, drive_alone
from weft.engine.collectives import combine
from weft.engine.drivers import Participant, Together
from weft.engine.seeding import random_state, seed_everything
from weft.engine.state import Position
from weft.errors import NotFiniteError, ProtocolError, Stopped
from weft.federated import (
    SCAFFOLD,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedBN,
    FedProx,
    FedYogi,
    Payload,
    PowerSGD,
    TopK,
    dSGD,
    rankDAD,
)


class TwoStages(Strategy):
    """A strategy with memory and two sums per step, as PowerSGD has: a replay that recomputes is off."""

    def __init__(self) -> None:
        self.memory: list[torch.Tensor] = []

    def average_gradients(self, gradients: Gradients) -> Iterator[Sum]:
        tensors = gradients.tensors()
        memory = self.memory or [torch.zeros_like(tensor) for tensor in tensors]
        weight = torch.tensor([gradients.weight], dtype=torch.float64)
        wanted = [tensor * gradients.weight + kept for tensor, kept in zip(tensors, memory, strict=True)]
        scales = torch.stack([tensor.abs().max() for tensor in wanted])
        (largest, total) = yield Sum("scales", [scales, weight])
        sent = [(tensor / scale.clamp_min(1e-12) * 64).round() for tensor, scale in zip(wanted, largest, strict=True)]
        sums = yield Sum("rounded", sent)
        self.memory = [
            tensor - rounded / 64 * scale for tensor, rounded, scale in zip(wanted, sent, largest, strict=True)
        ]
        for tensor, summed, scale in zip(tensors, sums, largest, strict=True):
            tensor.copy_(summed / 64 * scale / total.clamp_min(1))

    def state_dict(self) -> dict[str, object]:
        return {"memory": list(self.memory)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.memory = list(state["memory"])  # type: ignore[call-overload]


class AverageWeights(Strategy):
    """The mean of all weights after every fourth step."""

    steps_per_round = 4

    def end_of_round(self, model: torch.nn.Module) -> Iterator[Sum]:
        parameters = list(model.parameters())
        sums = yield Sum("weights", [parameter.detach() for parameter in parameters])
        count = yield Sum("participants", [torch.ones(1)])
        with torch.no_grad():
            for parameter, summed in zip(parameters, sums, strict=True):
                parameter.copy_(summed / float(count[0]))


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "average gradients": AverageGradients,
    "two stages with memory": TwoStages,
    "average weights": AverageWeights,
    "dSGD, median": lambda: dSGD("median"),
    "FedAvg": lambda: FedAvg(4),
    "FedProx": lambda: FedProx(0.1, 4),
    "FedAvgM": lambda: FedAvgM(steps_per_round=4),
    "FedAdam": lambda: FedAdam(steps_per_round=4),
    "FedYogi": lambda: FedYogi(aggregate="trimmed_mean"),
    "FedBN": lambda: FedBN(4),
    "SCAFFOLD": lambda: SCAFFOLD(4),
    "PowerSGD": lambda: PowerSGD(2, warmup_steps=3),
    "rankDAD": lambda: rankDAD(2),
    "dSGD, bf16": lambda: Payload(dSGD(), "bf16"),
    "dSGD, top-k": lambda: TopK(dSGD(), 0.1),
    "FedAvgM, Krum, fp16, top-k": lambda: TopK(Payload(FedAvgM(aggregate="krum"), "fp16"), 0.5),
}


KILLED_OFTEN = ["average gradients", "two stages with memory", "average weights", "SCAFFOLD"]


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> Callable[[], Strategy]:
    return STRATEGIES[request.param]


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "average weights"])
def test_participants_end_as_replicas(name: str) -> None:
    study = Study(STRATEGIES[name], dropout=0.3)
    results = study.together.run()
    first, *others = study.weights().values()
    assert all(same(first, other) for other in others)
    scores = [result.scores["validation"] for result in results.values()]
    assert scores[0] == scores[1] == scores[2]


def test_running_statistics_are_averaged_unless_private() -> None:
    class Private(AverageGradients):
        buffers = "private"

    settings = {"batch_norm": True, "drop_last": True}
    averaged, private = (Study(strategy, settings=settings) for strategy in (AverageGradients, Private))
    averaged.together.run()
    private.together.run()
    assert same(averaged.weights()["site-a"], averaged.weights()["site-b"])
    unlike = private.weights()["site-a"], private.weights()["site-b"]
    different = [name for name in unlike[0] if not torch.equal(unlike[0][name], unlike[1][name])]
    assert different == ["layers.1.running_mean", "layers.1.running_var", "layers.1.num_batches_tracked"]


def test_the_same_study_twice_is_the_same_to_the_bit(strategy: Callable[[], Strategy]) -> None:
    first, second = Study(strategy, dropout=0.3), Study(strategy, dropout=0.3)
    first.together.run()
    second.together.run()
    for name in first.runs:
        assert same(first.weights()[name], second.weights()[name])
    assert first.histories() == second.histories()


@pytest.mark.parametrize(
    "name", [name if name in KILLED_OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in STRATEGIES]
)
def test_a_participant_killed_between_any_two_yields_changes_nothing(name: str) -> None:
    strategy = STRATEGIES[name]
    undisturbed = Study(strategy, dropout=0.3)
    count = _turns(undisturbed)
    for killed_at in range(0, count, max(count // 12, 1)):
        study = Study(strategy, dropout=0.3)
        for turn in range(killed_at + 1):
            assert study.together.ask()
            if turn < killed_at:
                study.together.reply()
        study.together.restart("site-b")  # it had asked; what it asked is sent again from the journal
        study.together.reply()
        study.together.restart("site-a")  # it had its answer, and dies before it acts on it
        while study.together.turn():
            pass
        for name in study.runs:
            assert same(study.weights()[name], undisturbed.weights()[name]), f"killed at collective {killed_at}"
        assert study.histories() == undisturbed.histories()


def _turns(study: Study) -> int:
    count = 0
    while study.together.turn():
        count += 1
    return count


def test_averaged_gradients_equal_pooled_training() -> None:
    study = Study(AverageGradients, settings={"epochs": 3})
    study.together.run()
    pooled = _train_pooled(epochs=3)
    last = study.stores["site-a"].last
    assert last is not None
    for name, parameter in last["model"].items():
        assert (parameter - pooled[name]).abs().max() < 1e-12


def _train_pooled(epochs: int) -> dict[str, torch.Tensor]:
    """A plain loop on the union of the sites' batches."""
    loaders, start = [], 0
    for size in Study(AverageGradients).sizes.values():
        split = open_site(site_experiment(start, start + size)).splits["train"]
        loaders.append(make_loader(split, batch_size=8, seed=5, shuffle=True))
        start += size
    torch.manual_seed(5)
    model = site_experiment(0, 10).namespace().build(site_experiment(0, 10).model.component, "model")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(epochs):
        for batches in zip_longest(*(loader.epoch(epoch) for loader in loaders)):
            present = [batch for batch in batches if batch is not None]
            inputs, targets = torch.cat([b.inputs for b in present]), torch.cat([b.targets for b in present])
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    return model.state_dict()


def test_an_interruption_at_one_participant_stops_all_and_resumes_exactly(strategy: Callable[[], Strategy]) -> None:
    undisturbed = Study(strategy, dropout=0.3)
    undisturbed.together.run()
    study = Study(strategy, dropout=0.3)
    for _ in range(9):
        study.together.turn()
    study.runs["site-c"].interruption.request("SIGTERM")
    with pytest.raises(Stopped):
        study.together.run()
    resumed = study.resumed()
    for name in resumed.runs:
        assert same(resumed.weights()[name], undisturbed.weights()[name])
    assert resumed.histories() == undisturbed.histories()


def test_a_study_stopped_inside_validation_averages_its_buffers_once() -> None:
    settings = {"batch_norm": True, "drop_last": True}
    undisturbed = Study(AverageGradients, settings=settings)
    undisturbed.together.run()
    study = Study(AverageGradients, settings=settings)
    while "buffers" not in {entry.id.tag for entry in study.together.waiting.values()}:
        study.together.turn()
    study.runs["site-b"].interruption.request("SIGTERM")
    with pytest.raises(Stopped):
        study.together.run()
    resumed = study.resumed()
    for name in resumed.runs:
        assert same(resumed.weights()[name], undisturbed.weights()[name])


def test_a_loss_that_is_not_finite_stops_everybody_and_names_the_participant() -> None:
    study = Study(AverageGradients)
    for _ in range(4):
        study.together.turn()
    with torch.no_grad():
        study.runs["site-b"].state.model.layers[0].weight.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="participant 1"):
        study.together.run()


def test_the_outer_generators_are_left_alone(strategy: Callable[[], Strategy]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Study(strategy).together.run()
    assert torch.equal(before, torch.get_rng_state())


# --- what the drivers refuse ---------------------------------------------------------------------------------------


def _participant(name: str, steps: object) -> Participant:
    return Participant(name, lambda: steps, Position, random_state())  # type: ignore[arg-type, return-value]


def _result() -> RunResult:
    return RunResult("finished", 1, 1, 0.0)


def _asks(*tags: str) -> Iterator[Sum]:
    for tag in tags:
        yield Sum(tag, [torch.ones(2)])
    return _result()  # type: ignore[return-value]


def test_sums_are_answered_in_order_of_names() -> None:
    seen = {}

    def steps(name: str, value: float) -> Iterator[Sum]:
        (answer,) = yield Sum("x", [torch.tensor([value], dtype=torch.float32)])
        seen[name] = answer
        return _result()  # type: ignore[return-value]

    Together([_participant("b", steps("b", 1e8)), _participant("a", steps("a", 1.0))]).run()
    assert seen["a"].item() == seen["b"].item() == 100000000.0
    assert seen["a"].dtype == torch.float32


def test_sums_are_taken_in_float64() -> None:
    parts = [Sum("x", [torch.tensor([value])]) for value in (1e8, 1.0, -1e8)]
    assert combine(list(parts))[0].item() == 1.0  # in float32 the 1 would be lost


def test_an_answer_is_each_ones_own_unless_it_is_borrowed() -> None:
    seen: dict[tuple[str, bool], torch.Tensor] = {}

    def steps(name: str) -> Iterator[Sum]:
        for borrows in (False, True):
            (answer,) = yield Sum("x", [torch.ones(2)], borrows=borrows)
            seen[name, borrows] = answer
        return _result()  # type: ignore[return-value]

    Together([_participant("a", steps("a")), _participant("b", steps("b"))]).run()
    assert seen["a", False] is not seen["b", False]
    assert seen["a", False].data_ptr() != seen["b", False].data_ptr()
    assert seen["a", True] is seen["b", True]


def test_one_that_ends_alone_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="ended while"):
        Together([_participant("a", _asks("x")), _participant("b", _asks("x", "y"))]).run()


def test_different_questions_are_an_error() -> None:
    with pytest.raises(ProtocolError, match=r"'x'.*'y'"):
        Together([_participant("a", _asks("x")), _participant("b", _asks("y"))]).run()


def test_an_end_that_is_no_result_is_an_error() -> None:
    def steps() -> Iterator[Sum]:
        yield Sum("x", [torch.ones(1)])

    with pytest.raises(ProtocolError, match="RunResult"):
        drive_alone(steps())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
def test_asking_inside_a_context_that_changes_modes_is_an_error(context: object) -> None:
    def steps() -> Iterator[Sum]:
        with context():  # type: ignore[operator]
            yield Sum("x", [torch.ones(1)])

    with pytest.raises(ProtocolError, match="with"):
        drive_alone(steps())  # type: ignore[arg-type]


def test_an_error_is_handed_to_all_and_every_generator_is_closed() -> None:
    heard: list[str] = []

    def listener() -> Iterator[Sum]:
        try:
            while True:
                yield Sum("x", [torch.ones(1)])
        except ZeroDivisionError:
            heard.append("listener")
            raise

    def failing() -> Iterator[Sum]:
        yield Sum("x", [torch.ones(1)])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Together([_participant("a", listener()), _participant("b", failing())]).run()
    assert heard == ["listener"]


def test_participants_have_random_generators_of_their_own() -> None:
    drawn: dict[str, list[float]] = {"a": [], "b": []}

    def steps(name: str) -> Iterator[Sum]:
        for _ in range(3):
            drawn[name].append(torch.rand(1).item())
            yield Sum("x", [torch.ones(1)])
        return _result()  # type: ignore[return-value]

    seed_everything(11)
    Together([_participant("a", steps("a")), _participant("b", steps("b"))]).run()
    assert drawn["a"] == drawn["b"]
