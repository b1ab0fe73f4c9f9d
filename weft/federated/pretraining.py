"""Pretraining: the site with most items to train on begins alone, and all others begin with its weights."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from weft.config import Experiment, PretrainingConfig
from weft.data import Data
from weft.engine import Run, build_run, drive_alone, training
from weft.engine.collectives import Answer, Collective
from weft.engine.seeding import outer_randomness_kept
from weft.errors import DataError
from weft.federated.agreeing import same_weights, told_by_all


def pretrained(
    run: Run, experiment: Experiment, data: Data, settings: PretrainingConfig
) -> Generator[Collective, Answer, dict[str, int]]:
    """Let the site with most training items train alone, and begin with its weights.

    Of sites with as many items it is the first by name. It trains as in a run of its own, from the weights that all
    have: with validation data of its own these decide which epoch is kept. Everything is a function of the seeds, so a
    study that was killed meanwhile does it again, to the same bits.

    Args:
        run: of this site, at its beginning, with the weights that all have.
        experiment: what this site trains.
        data: this site's.
        settings: how it is done.

    Returns:
        number of the site among those that take part, its items, and the epochs.

    Raises:
        CohortError: the site has left meanwhile.
        DataError: nobody has anything to train on.
        Stopped: a signal came; the study can be resumed.
        NotFiniteError: it diverged.
    """
    own = len(data.splits["train"]) if "train" in data.splits else 0
    items: list[int] = yield from told_by_all("pretraining", own, run.participants)
    if not any(items):
        raise DataError("no site has anything to train on", "look at the sites' training splits")
    largest = items.index(max(items))
    if run.participant == largest:
        train_alone(run, experiment, data, settings)
    yield from same_weights(run, largest)
    return {"site": largest, "items": items[largest], "epochs": settings.epochs}


def train_alone(run: Run, experiment: Experiment, data: Data, settings: PretrainingConfig) -> None:
    """Leave in `run` the weights that training alone ends with; nothing else of it changes, and no random generator."""
    changes: dict[str, Any] = {"epochs": settings.epochs, "steps": None}
    if settings.batch_size is not None:
        changes["batch_size"] = settings.batch_size
    if settings.optimizer is not None:
        changes |= {"optimizer": settings.optimizer, "optimizers": {}}
    alone = experiment.model_copy(
        update={
            "training": experiment.training.model_copy(update=changes),
            "run": experiment.run.model_copy(update={"score_train": "never"}),
        }
    )
    splits = {name: split for name, split in data.splits.items() if name != "test"}
    with outer_randomness_kept():
        first = build_run(
            alone, Data(splits, data.classes, data.statistics), path=run.path, interruption=run.interruption
        )
        try:
            first.state.model.load_state_dict(run.state.model.state_dict())
            if first.state.average is not None:
                first.state.average.module.load_state_dict(run.state.model.state_dict())
            drive_alone(training(first))
        finally:
            first.close()
    run.state.model.load_state_dict(first.state.scored_weights)
