"""Loaders of the splits, and what they are scored with."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from weft.config import Component, Experiment, Namespace, TrainingConfig
from weft.data import Data, Loader, SplitData, auto_workers, build_sampler, make_loader
from weft.engine.membership import ALONE, Membership
from weft.engine.processes import processes_here
from weft.engine.run import ScoredSplit
from weft.errors import ConfigError, DataError, Problem
from weft.metrics import ScoreBook
from weft.tasks import Task

# Batches of training that are scored at once, and the most input numbers that these may have together.
_SCORED_TOGETHER = 8
_SCORED_NUMBERS = 65_536


def train_loader(experiment: Experiment, data: Data, namespace: Namespace, membership: Membership) -> Loader | None:
    """The loader of the training split; None where there is none.

    Args:
        experiment, data, namespace: what is trained.
        membership: which part of each batch this participant takes, and how many batches its epoch has.

    Raises:
        ConfigError: an epoch would have no step.
        DataError: the split is empty.
    """
    if "train" not in data.splits:
        return None
    train = _loader(experiment, data, "train", namespace, membership, training=True)
    if len(train) == 0:
        raise ConfigError(
            Problem(
                f"{train.visits} items are fewer than a batch of {train.batch_size}, and such a batch is left out",
                "lower training.batch_size, or set training.drop_last: false",
                ("training", "drop_last"),
            )
        )
    return train


def score_splits(
    experiment: Experiment, data: Data, task: Task, namespace: Namespace, membership: Membership
) -> dict[str, ScoredSplit]:
    """Loaders and score books of the splits that can be scored, in the order train, validation, test.

    Args:
        experiment, data, task, namespace: what is scored.
        membership: which part this participant takes, what may leave it, and the splits that others have; these are
            empty here where the data lack them.
    """
    names = [name for name in ("train", "validation", "test") if name in data.splits or name in membership.splits]
    splits: dict[str, ScoredSplit] = {}
    for name in names:
        if name in data.splits:
            loader = _loader(experiment, data, name, namespace, membership, training=False)
        else:
            loader = make_loader(SplitData(name, [], []), batch_size=1, seed=experiment.seed, shuffle=False)
        book = build_book(experiment, task, namespace, gather=membership.gather)
        if membership.minimum_cells > 1:
            book.keep_cells(membership.minimum_cells)
        splits[name] = ScoredSplit(loader, book, list(loader.split.cases))
    return splits


def batches_of_epoch(experiment: Experiment, data: Data) -> int:
    """Number of batches that an epoch of training has with these data; 0 where there is nothing to train on."""
    if "train" not in data.splits:
        return 0
    return len(_loader(experiment, data, "train", experiment.namespace(), ALONE, training=True))


def build_book(experiment: Experiment, task: Task, namespace: Namespace, *, gather: bool = True) -> ScoreBook:
    """The score book of the experiment's metrics."""
    chosen = experiment.training.metrics
    metrics = None if chosen is None else [_metric(component, namespace) for component in chosen]
    return task.build_scores(metrics) if gather else task.build_scores(metrics, gather=False)


def _metric(component: Component, namespace: Namespace) -> Any:
    found = namespace.find(component, "metric")
    if isinstance(found, str):
        return (found, component.arguments) if component.arguments else found
    if component.is_finished or (inspect.isroutine(found) and not component.arguments):
        return found
    return namespace.build(component, "metric")


def _loader(
    experiment: Experiment, data: Data, name: str, namespace: Namespace, membership: Membership, *, training: bool
) -> Loader:
    split = data.splits[name]
    if len(split) == 0:
        raise DataError(f"the {name} split is empty", "check the table and the ratios of dataset.split")
    settings, workers = experiment.training, experiment.run.num_workers
    component = experiment.dataset.samplers.get(name) if training or name != "train" else None  # type: ignore[call-overload]
    batches = settings.train_batches if training else settings.evaluation_batches
    together = settings.items_per_batch if training else settings.evaluation_batch_size or settings.items_per_batch
    return make_loader(
        split,
        batch_size=settings.items_per_batch if training else evaluation_batch_size(settings, split),
        seed=experiment.seed,
        shuffle=training,
        drop_last=settings.drop_last and training,
        num_workers=_auto_workers(split, settings, membership) if workers == "auto" else int(workers),
        sampler=build_sampler(component, namespace, split) if component is not None else None,
        augment=training,
        share=membership.share,
        pin_memory=torch.cuda.is_available(),
        limit=None if batches is None else batches * together,
        batches=membership.batches if training else None,
    )


def _auto_workers(split: SplitData, settings: TrainingConfig, membership: Membership) -> int:
    here = processes_here(membership.participants) if membership.shares_directory else 1
    return auto_workers(split, settings.items_per_batch, here)


def evaluation_batch_size(settings: TrainingConfig, split: SplitData) -> int:
    """Number of items that are scored at once: what the experiment says, or `batch_size`.

    Small rows that lie in memory go several batches at a time: without gradients these need no more memory than one
    batch in training, and the costs of a call are shared.
    """
    size = settings.items_per_batch
    if settings.evaluation_batch_size is not None or split.arrays is None:
        return settings.evaluation_batch_size or size
    inputs = split.arrays[0] if isinstance(split.arrays[0], tuple) else (split.arrays[0],)
    row: int = sum(part[0].numel() for part in inputs)
    return max(size, min(size * _SCORED_TOGETHER, _SCORED_NUMBERS // max(row, 1)))
