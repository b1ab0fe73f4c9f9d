"""What each site of a study would send: measured on a few steps of one site, with the strategy of the study."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from weft.actions.checking.estimates import epochs_of, steps_of
from weft.config import Experiment
from weft.engine.collectives import Answer, Collective, Sum, combine
from weft.engine.freezing import prepare_modules
from weft.engine.loop import Clock, agree, average_buffers, end_epoch
from weft.engine.run import Run
from weft.engine.stepping import take_step
from weft.federated.agreeing import same_weights, told_by_all
from weft.federated.sizes import encoded_bytes
from weft.federated.snapshots import has_rounds
from weft.federated.traffic import Counts, counted, summary
from weft.federated.wrapping import innermost

_DIGEST = 32  # bytes of SHA-256


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes that a site sends and receives, without headers."""

    sent: int = 0
    received: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(self.sent + other.sent, self.received + other.received)

    def __mul__(self, times: int) -> Moved:
        return Moved(self.sent * times, self.received * times)

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return {"sent": self.sent, "received": self.received}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a site sends and receives.

    Args:
        step: in each step, what is agreed on in each included.
        warmup_step: in each of the first `warmup_steps`, where the strategy has such.
        warmup_steps: how many.
        round: at the end of each round, where the strategy has rounds.
        rounds: how many, in all epochs.
        epoch: in an epoch: its steps after warm-up, its rounds, and what is told at its end, scores included.
        study: in all: opening, all epochs, final scores.
        steps, epochs: of the study, unless it stops early.
    """

    step: Moved
    warmup_step: Moved
    warmup_steps: int
    round: Moved
    rounds: int
    epoch: Moved
    study: Moved
    steps: int
    epochs: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "step": self.step.as_dict(),
            **(
                {"warmup_step": self.warmup_step.as_dict(), "warmup_steps": self.warmup_steps}
                if self.warmup_steps
                else {}
            ),
            **({"round": self.round.as_dict(), "rounds": self.rounds} if self.rounds else {}),
            "epoch": self.epoch.as_dict(),
            "study": self.study.as_dict(),
            "steps": self.steps,
            "epochs": self.epochs,
        }


def measure_traffic(run: Run, study: Experiment, steps_per_epoch: int, seconds: float) -> Traffic | None:
    """Take a few steps, a round and the end of an epoch as the study would, and add up what a site tells.

    What other sites would say is taken to be as long as what this one says.

    Args:
        run: of one site, with the study's strategy, to be thrown away.
        study: with its section `federation`.
        steps_per_epoch: of the study.
        seconds: how long the steps of a warm-up may take.

    Returns:
        the bytes; None where the warm-up takes longer.

    Raises:
        WeftError: the strategy cannot work so, for instance with so few sites.
    """
    assert study.federation is not None
    assert run.state.strategy is not None
    strategy, model = run.state.strategy, run.state.model
    opening = _moved(run, same_weights(run, run.participant))
    if study.federation.pretraining is not None:
        opening = opening * 2 + _moved(run, told_by_all("pretraining", len(run.cases)))
    strategy.takes_part(run.participant, run.participants)
    strategy.watch(model)
    prepare_modules(run)
    control = _moved(run, agree(run, more=True, failed=False)) if not run.agrees_with_gradients else Moved()
    all_steps = steps_of(study, steps_per_epoch)
    warmup = min(int(getattr(innermost(strategy), "warmup_steps", 0)), all_steps)
    windows = list(islice(run.windows(), 8))
    end, steps = time.monotonic() + seconds, []
    for number in range(min(warmup + 2, all_steps)):
        if number > 2 and time.monotonic() > end:
            return None
        steps.append(control + _moved(run, take_step(run, windows[number % len(windows)])))
        run.state.position.step += 1
    run.state.sums.items = max(run.plan.batch_size, 1)
    has = has_rounds(strategy)
    a_round = _moved(run, strategy.end_of_round(model))
    buffers = _moved(run, average_buffers(run))
    clock = Clock()
    clock.lap("seconds_train")
    closing = _moved(run, end_epoch(run, scored=False, clock=clock))
    parts = _Parts(opening, control, steps[0], steps[-1], warmup, a_round if has else Moved(), buffers + closing)
    return parts.added_up(run, study, steps_per_epoch)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What was measured of each part of a study."""

    opening: Moved
    control: Moved
    first: Moved
    step: Moved
    warmup: int
    round: Moved
    closing: Moved

    def added_up(self, run: Run, study: Experiment, per_epoch: int) -> Traffic:
        """All of it, as often as it comes."""
        assert study.federation is not None
        assert run.state.strategy is not None
        training, strategy, plan = study.training, run.state.strategy, run.plan
        epochs, steps, warmup = epochs_of(study, per_epoch), steps_of(study, per_epoch), self.warmup
        rounds = _rounds(epochs, per_epoch, steps, strategy.steps_per_round) if has_rounds(strategy) else 0
        scored = ["validation", *(["train"] if plan.score_train == "epochs" else [])]
        scores = sum((_scores(run, name, curves=False) for name in scored if name in run.splits), Moved())
        scores = scores if "validation" in run.splits else Moved()
        final = [name for name in run.splits if name != "train" or plan.score_train != "never"]
        every = study.federation.cohort.compare_weights
        compared = 0 if every is None else (steps - 1) // every
        ends = epochs if steps == epochs * per_epoch and steps != training.steps else epochs - 1
        total = [
            self.opening, self.step * (steps - warmup), self.first * warmup, self.round * rounds,
            self.control * ends, self.closing * epochs, scores * -(-epochs // training.evaluate_every),
            Moved(_DIGEST, _DIGEST * run.participants) * compared,
            *(_scores(run, name, curves=True) for name in final),
        ]  # fmt: skip
        epoch = [self.step * per_epoch, self.control, self.closing, scores, self.round * -(-rounds // max(epochs, 1))]
        return Traffic(
            self.step, self.first, warmup, self.round, rounds, sum(epoch, Moved()), sum(total, Moved()), steps, epochs
        )


def _rounds(epochs: int, per_epoch: int, steps: int, per_round: int | None) -> int:
    """How many rounds end: after so many steps, and at the end of an epoch."""
    if per_round is None:
        return epochs
    ends = {min(epoch * per_epoch, steps) for epoch in range(1, epochs + 1)}
    return len(ends | set(range(per_round, steps + 1, per_round)))


def _scores(run: Run, name: str, *, curves: bool) -> Moved:
    """The counts that scores of a split follow from."""
    book = run.splits[name].book
    book.reset()
    if curves:
        book.add_curves()
    size = encoded_bytes([*book.states(), torch.tensor([1])])
    return Moved(size, size)


def _moved(run: Run, steps: Generator[Collective, Answer, Any]) -> Moved:
    """Bytes of all that is asked and answered."""
    counts: Counts = {}
    asking = counted(steps, counts, "all")
    try:
        asked = next(asking)
        while True:
            # A sum over several is as long as one of them.
            asked = asking.send(combine([asked] if isinstance(asked, Sum) else [asked] * run.participants))
    except StopIteration:
        moved = summary(counts)
        return Moved(moved["sent"], moved["received"])


def opening_of(counts: Mapping[str, Counts]) -> dict[str, Moved]:
    """What each site tells before training begins, without the weights."""
    found = {name: summary(own) for name, own in counts.items()}
    return {name: Moved(moved["sent"], moved["received"]) for name, moved in found.items()}
