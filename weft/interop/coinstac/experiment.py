"""A site's arguments as an experiment of Weft's, and those that all sites must be told alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import SequentialSampler

from weft.config import Component, Experiment
from weft.errors import ConfigError
from weft.interop.coinstac.devices import device_of, gpus_of
from weft.interop.coinstac.handle import COINNDataHandle
from weft.interop.coinstac.headers import monitored
from weft.interop.coinstac.items import SPLITS, SiteItems
from weft.interop.coinstac.loading import Loading
from weft.interop.coinstac.networks import COINNModel
from weft.interop.coinstac.task import COINNTask
from weft.interop.coinstac.trainer import COINNTrainer
from weft.interop.usercode import called
from weft.tasks import OwnOptimizer

# What all sites must be told alike: they are replicas of one model, and decide alike.
SHARED = (
    "mode", "agg_engine", "precision_bits", "epochs", "validation_epochs", "local_iterations", "learning_rate",
    "patience", "monitor_metric", "metric_direction", "score_delta", "log_header", "num_class", "seed",
    "minimum_cells",
)  # fmt: skip

# What is told where no site has items of a split.
WITHOUT = {
    "validation": "no site has items to validate on: the weights of the last epoch are kept",
    "test": "no site has items to test: there are no scores of the test",
}


def require_alike(sites: Sequence[str], told: Sequence[Mapping[str, Any]]) -> None:
    """Refuse arguments that differ where sites must decide alike.

    Raises:
        ConfigError: with names and values.
    """
    for name in SHARED:
        for site, said in zip(sites, told, strict=True):
            if said[name] != told[0][name]:
                raise ConfigError(
                    f"{name} is {told[0][name]!r} at site {sites[0]} and {said[name]!r} at {site}",
                    f"write the same {name} into the inputspec of every site",
                )


def told(value: Any) -> Any:
    """An argument as it can be compared: as JSON knows it, anything else as text."""
    return value if value is None or isinstance(value, bool | int | float | str | list) else str(value)


def as_experiment(
    cache: Mapping[str, Any],
    handle: COINNDataHandle,
    splits: Mapping[str, Any],
    loading: Mapping[str, Loading],
    *,
    seed: int,
    every_step: bool,
    own_learner: bool = False,
    own_iteration: bool = False,
) -> Experiment:
    """The experiment that a site's arguments describe; model and task are put in when they are made.

    `loading` says how the splits are loaded. A learner of the user's own takes the batches of a step apart itself; a
    `training_iteration_local` counts them.
    """
    arguments = {name: loading[name].arguments if name in loading else {} for name in SPLITS}
    train = arguments["train"]
    batch, scored = train.get("batch_size") or cache["batch_size"], cache["batch_size"]
    scored = next(
        (given["batch_size"] for name in ("validation", "test") if (given := arguments[name]).get("batch_size")), scored
    )
    scored = without_single(int(scored), [len(split) for split in splits.values()])
    if any(one.collate is not None and len(one.datasets) > 1 for one in loading.values()):
        scored = 1  # a batch of the user's making cannot be taken apart by files
    samplers: dict[str, Any] = {
        name: given["sampler"] for name, given in arguments.items() if given.get("sampler") is not None
    }
    if train.get("shuffle") is False and "train" in splits:
        samplers.setdefault("train", SequentialSampler(range(len(splits["train"]))))
    accumulate = int(cache["local_iterations"])
    batch = batch * accumulate if own_learner else batch
    accumulate = 1 if own_learner or own_iteration else accumulate
    device, items = device_of(gpus_of(cache, handle.site)), len(splits.get("train", ()))
    return Experiment.model_validate(
        {
            "name": str(cache["task_id"]),
            "seed": seed,
            "dataset": {"class": {"train": SiteItems}, "samplers": samplers},
            "model": COINNModel,
            "training": {
                "task": COINNTask,
                "epochs": cache["epochs"],
                "batch_size": batch,
                "evaluation_batch_size": scored,
                "drop_last": bool(train.get("drop_last", False)) and items >= batch,  # an only batch is not left out
                "accumulate": accumulate,
                "optimizer": OwnOptimizer,
                "evaluate_every": cache["validation_epochs"],
                "monitor": {
                    "metric": monitored(cache),
                    "mode": "max" if cache["metric_direction"] == "maximize" else "min",
                    "patience": cache["patience"],
                    "min_delta": float(cache["score_delta"]),
                },
            },
            "run": {
                "device": str(device),
                "num_workers": int(train.get("num_workers") or cache["num_workers"] or 0),
                "checkpoint_every": {"epochs": 1, **({"steps": 1} if every_step else {"minutes": 5})},
                "progress": False,
                "tensorboard": False,
                "score_train": "never",
            },
        }
    )


def made_of(experiment: Experiment, trainer: COINNTrainer, task: COINNTask) -> dict[str, Any]:
    """The sections of the experiment that a trainer and its task go into."""
    model = Component("COINNModel", {"trainer": trainer}, COINNModel)
    return {
        "model": experiment.model.model_copy(update={"component": model}),
        "training": experiment.training.model_copy(update={"task": Component("COINNTask", {}, task)}),
    }


def settle_monitor(trainer: COINNTrainer) -> None:
    """Have a trainer say what is monitored and what the log is headed by, in the way of early releases."""
    for name in ("_set_monitor_metric", "_set_log_headers", "set_monitor_metric", "set_log_headers"):
        if hasattr(trainer, name):
            called(trainer, name, getattr(trainer, name))
    told_pair = trainer.cache.get("monitor_metric")
    if isinstance(told_pair, list | tuple) and len(told_pair) == 2:
        trainer.cache["monitor_metric"], trainer.cache["metric_direction"] = told_pair


def without_single(size: int, lengths: Sequence[int]) -> int:
    """The size of batches that are scored, a little larger where a split would end with a batch of one item: networks
    that normalise over a batch also when they are asked need two.

    Args:
        size: as it was given.
        lengths: numbers of items of the splits.
    """
    if size < 2:
        return size
    return next(found for found in range(size, 2 * size + max(lengths, default=0) + 2) if _no_single(found, lengths))


def _no_single(size: int, lengths: Sequence[int]) -> bool:
    return all(length == 1 or length % size != 1 for length in lengths)
