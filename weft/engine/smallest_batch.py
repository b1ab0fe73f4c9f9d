"""Whether the model can train on the smallest batch of an epoch: batch normalisation needs more than one item."""

from __future__ import annotations

import copy

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from weft.data import Loader, make_loader
from weft.engine.run import Run
from weft.engine.seeding import outer_randomness_kept
from weft.errors import ConfigError, Problem

_WHERE = ("training", "batch_size")


def check_smallest_batch(run: Run) -> None:
    """Try a batch of one item on a copy of the model, where an epoch has such a batch and the model normalises over
    batches: else the error would come with the last step of the first epoch. Nothing of the run is moved.

    Args:
        run: before its first step, its modules prepared for training.

    Raises:
        ConfigError: the model cannot train on it.
    """
    loader, batch_norm = run.train, False
    if loader is not None and run.alone and _items_in_last_batch(loader) == 1:
        batch_norm = any(isinstance(module, _BatchNorm) and module.training for module in run.state.model.modules())
    if loader is None or not batch_norm or not _fails_on_one_item(run, loader):
        return
    name = type(run.state.model).__name__
    if loader.batch_size == 1:
        message = f"training.batch_size is 1, but {name} normalises over a batch, for which one item is too few"
        hint = "use a batch size of at least 2, or another normalisation (instance, group, layer)"
    else:
        message = (
            f"the last batch of an epoch has one item ({loader.visits} items in batches of {loader.batch_size}), but "
            f"{name} normalises over a batch, for which one is too few"
        )
        hint = "set training.drop_last: true, or choose another training.batch_size"
    raise ConfigError(Problem(message, hint, _WHERE))


def _items_in_last_batch(loader: Loader) -> int:
    visits, size = loader.visits, loader.batch_size
    rest = visits % size
    return size if rest == 0 or (loader.drop_last and visits >= size) else rest


def _fails_on_one_item(run: Run, loader: Loader) -> bool:
    try:
        with outer_randomness_kept(), torch.no_grad(), run.plan.precision.autocast():
            single = make_loader(loader.split, batch_size=1, seed=run.plan.seed, shuffle=False)
            run.task.forward(copy.deepcopy(run.state.model), run.place(next(iter(single.epoch(0)))))
    except ConfigError:
        return True
    except Exception:  # models that cannot be copied, items that cannot be loaded: training will tell, in its own words
        return False
    return False
