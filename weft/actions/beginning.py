"""How a run begins: a directory, a first look at whether everything fits, and what is known before training."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from weft.actions.opening import digest_experiment_data
from weft.actions.stopping import Asked
from weft.config import Experiment, dump_yaml, fingerprint
from weft.data import Data, Manifest, make_loader
from weft.engine import pick_device
from weft.engine.processes import find_place
from weft.engine.run import Run
from weft.errors import DataError
from weft.runs import (
    RunDirectory,
    collect_provenance,
    is_run,
    new_run_path,
    snapshot_code,
    write_atomically,
    write_requirements,
)

logger = logging.getLogger("weft")


@contextmanager
def begun(experiment: Experiment, out: Path | str | None) -> Iterator[RunDirectory]:
    """A new run directory, locked; it is gone again when the run fails before its training begins.

    So a mistake that shows at once leaves nothing behind, and the command can be given again as it was.

    Args:
        experiment: `run.output` is where the directory is made when `out` names none.
        out: the directory; new or empty.
    """
    path = Path(out) if out is not None else new_run_path(experiment.path(experiment.run.output), experiment.name)
    was_there = out is not None and path.is_dir()
    with RunDirectory.create(path) as directory:
        try:
            yield directory
        except BaseException as error:
            if not directory.provenance_file.exists() and not directory.folds():
                _discard(directory, folder_too=not was_there)
            elif isinstance(error, Asked):
                error.run = directory.path
            raise


def begun_already(path: Path | str) -> bool:
    """Whether there is a run to go on with. What a run left that was killed before its training began is removed, so
    that the same command can begin it.

    Raises:
        RunDirectoryError: another process is about to begin it.
    """
    directory = RunDirectory(Path(path))
    trained = any(directory.checkpoints.glob("*.pt"))  # then nothing is removed, whatever else is missing
    if trained or directory.provenance_file.exists() or directory.summary_file.exists():
        return True
    place = find_place()
    if is_run(directory.path) and (place is None or place.first):
        with RunDirectory.open(directory.path, writing=True) as directory:
            _discard(directory, folder_too=False)
    return False


def _discard(directory: RunDirectory, *, folder_too: bool) -> None:
    """Remove what a run writes before it begins, and nothing else."""
    for entry in (
        directory.code, directory.tensorboard, directory.checkpoints, directory.scores, directory.predictions,
        directory.sites,
    ):  # fmt: skip
        shutil.rmtree(entry, ignore_errors=True)
    for file in (
        directory.experiment_file, directory.requirements, directory.data_file, directory.splits_file,
        directory.statistics_file, directory.history_file, directory.steps_file, directory.log_file,
        directory.summary_file, directory.result_file, directory.agreed_file, directory.scenario_file,
        directory.ledger_file, directory.hub_file, directory.sites_profile_file, directory.own_history_file,
    ):  # fmt: skip
        file.unlink(missing_ok=True)
    if folder_too:
        with contextlib.suppress(OSError):  # what somebody else put there keeps it
            (directory.path / ".lock").unlink(missing_ok=True)
            directory.path.rmdir()


def require_training_data(data: Data) -> None:
    """Refuse data that nothing can be learnt from; warn of classes that the training split lacks.

    Raises:
        DataError: there is no training split.
    """
    if "train" not in data.splits:
        raise DataError(
            f"there is nothing to train on: the data have {', '.join(data.splits)} only",
            "name the training data, e.g. dataset.table.train",
        )
    train = data.splits["train"]
    labels = train.arrays[1] if train.arrays is not None else None
    if data.classes is None or not isinstance(labels, torch.Tensor) or labels.ndim != 1:
        return
    counts = torch.bincount(labels, minlength=len(data.classes)).tolist()
    unseen = [name for name, count in zip(data.classes, counts, strict=True) if count == 0]
    if unseen:
        logger.warning(
            "no training item has the class %s: the model cannot learn it (classes are %s)",
            ", ".join(unseen[:5]),
            ", ".join(data.classes[:10]),
        )


@torch.no_grad()
def try_out(run: Run, experiment: Experiment, data: Data) -> None:
    """Load and score the first batch of every split, so that what does not fit shows before anything is trained: a
    score that fails on the test split would else cost a night.

    Global random generators are the caller's concern; the model is left as it was.
    """
    module = run.scored_module().eval()
    for name in data.splits:
        split = run.splits[name]
        size = experiment.training.evaluation_batch_size or experiment.training.items_per_batch
        batch = next(
            iter(make_loader(data.splits[name], batch_size=size, seed=0, shuffle=False, augment=False).epoch(0))
        )
        if not batch.size:  # all of its items are bad, and such are skipped
            continue
        placed = run.place(batch)
        with run.plan.precision.autocast():
            evaluation = run.task.evaluation_step(module, placed)
        split.book.reset()
        split.book.update(
            evaluation.outputs.float(), evaluation.targets, loss=evaluation.loss, weight=evaluation.weight,
            cases=[split.cases[row] for row in batch.index.tolist()], spacing=evaluation.spacing,
        )  # fmt: skip
        split.book.reset()
    if "train" in data.splits:
        augmented = make_loader(data.splits["train"], batch_size=1, seed=experiment.seed, shuffle=False, augment=True)
        next(iter(augmented.epoch(0)))
    module.train()


def describe_run(directory: RunDirectory, experiment: Experiment, data: Data, threads: int) -> None:
    """Write everything that is known before training: experiment, code, data, splits and provenance (last of all)."""
    manifest = digest_experiment_data(experiment)
    files = {
        directory.data_file: data.summary(),
        directory.splits_file: data.record(),
        directory.statistics_file: data.statistics,
    }
    describe_origin(directory, experiment, manifest, threads, {"seed": experiment.seed}, files)


def describe_origin(
    directory: RunDirectory,
    experiment: Experiment,
    manifest: Manifest,
    threads: int,
    seeds: Mapping[str, int],
    files: Mapping[Path, object],
    **further: Any,
) -> dict[str, Any]:
    """Write the experiment (which tells that a run has begun), its code, what it requires, and last of all the
    provenance, which is returned.

    Args:
        directory: of a run or a study, locked.
        experiment: resolved.
        manifest: of its data.
        threads: of an operation.
        seeds: by what they are for.
        files: what else is written before the provenance, as JSON.
        further: more entries of the provenance.
    """
    write_atomically(directory.experiment_file, dump_yaml(experiment).encode())
    patches = snapshot_code(directory, [experiment.path(patch) for patch in experiment.patches])
    write_requirements(directory.requirements)
    for file, content in files.items():
        directory.write_json(file, content)
    extra = {
        "base": str(experiment.base),
        "patches": patches,
        "data": {"digest": manifest.digest, "files": manifest.as_dict()["files"], "undigested": manifest.undigested},
        "run_threads": threads,
        "device": str(pick_device(experiment.run.device)),
        **further,
    }
    provenance = collect_provenance(
        fingerprint(experiment, manifest.digest), seeds, sys.argv, folder=experiment.base, extra=extra
    )
    directory.write_json(directory.provenance_file, provenance)
    return provenance
