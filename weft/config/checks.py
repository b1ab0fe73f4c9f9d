"""What is wrong with an experiment as a whole: parts that contradict each other, missing files, unfit components.

Nothing is built or loaded for it but what a name is looked up in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from weft.config.checkcode import check_own_code
from weft.config.checkdata import check_cache, check_columns, check_shape, check_source, check_split, check_transforms
from weft.config.checkfederation import at_site, check_federation, site_experiments
from weft.config.checkfiles import check_files, near_files
from weft.config.checktraining import (
    check_batch_sizes,
    check_compiling,
    check_compression,
    check_fused,
    check_interval,
    check_monitor,
    check_optimizers,
    check_recomputing,
    check_sharding,
    check_unfreeze,
)
from weft.config.document import Document, KeyPath
from weft.config.experiment import Experiment
from weft.config.namespace import Namespace
from weft.config.patches import load_patch
from weft.config.supplied import known_values
from weft.errors import ConfigError, Problem

Check = Callable[[Experiment], Iterable[Problem]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A check and the key paths that it looks at: it is left out while one of them is known to be wrong. Of a study,
    some are made for each site.
    """

    check: Check
    reads: tuple[str, ...]
    by_site: bool = False

    def problems(self, experiment: Experiment) -> Iterable[Problem]:
        """What the check finds, in a study at any of its sites."""
        sites = site_experiments(experiment) if self.by_site else {}
        if not sites:
            return self.check(experiment)
        found = (at_site(problem, name) for name, site in sites.items() for problem in self.check(site))
        return dict.fromkeys(found)  # what all sites share is told once


RULES = (
    Rule(check_source, ("dataset", "federation"), by_site=True),
    Rule(check_federation, ("federation",)),
    Rule(
        check_columns,
        (
            "dataset.table",
            "dataset.inputs",
            "dataset.targets",
            "dataset.case",
            "dataset.group",
            "training.task",
            "federation",
        ),
        by_site=True,
    ),
    Rule(
        check_split,
        ("dataset.table", "dataset.arrays", "dataset.class", "dataset.split", "fold", "federation"),
        by_site=True,
    ),
    Rule(check_shape, ("dataset.shape",)),
    Rule(check_transforms, ("dataset.transforms",)),
    Rule(check_cache, ("dataset.class", "run.cache", "federation"), by_site=True),
    Rule(check_files, ()),
    Rule(check_optimizers, ("training.optimizer", "training.optimizers", "training.task")),
    Rule(check_interval, ("training.scheduler", "training.scheduler_interval")),
    Rule(check_compiling, ("training.compile", "training.compile_mode")),
    Rule(check_compression, ("training.gradient_compression", "training.precision")),
    Rule(check_monitor, ("training.monitor", "training.metrics", "training.task")),
    Rule(check_batch_sizes, ("training.batch_size", "training.effective_batch_size", "training.accumulate")),
    Rule(check_recomputing, ("run.activation_checkpointing", "training.compile")),
    Rule(check_sharding, ("run", "training")),
    Rule(check_unfreeze, ("model.freeze", "model.unfreeze", "training.epochs")),
)


def check_experiment(experiment: Experiment, doubtful: Sequence[KeyPath] = ()) -> list[Problem]:
    """All problems of an experiment that pydantic cannot see, with their places.

    Args:
        experiment: what to check; parts that were wrong may have been left out of it.
        doubtful: key paths of what was left out; checks that look there are skipped.
    """
    document = experiment._document or Document({})
    problems: list[Problem] = []
    for rule in RULES:
        if not any(_touches(tuple(path.split(".")), doubtful) for path in rule.reads):
            problems += [document.at(problem, key=True) for problem in rule.problems(experiment)]
    namespace, broken = _working_patches(experiment, document)
    problems += broken
    dataset = next((site.dataset for site in site_experiments(experiment).values()), experiment.dataset)
    for path, kind, component in experiment.components():
        if _touches(path, doubtful):
            continue
        for problem in namespace.check(component, kind, known_values(kind, dataset)):
            if broken and problem.message.startswith("there is no"):
                continue  # the name may well be in the patch that could not be loaded
            problems.append(_at_component(problem, path, document))
    if not problems and not doubtful:
        further = (*check_own_code(experiment, namespace), *check_fused(experiment, namespace))
        problems += [document.at(problem, key=True) for problem in further]
    return problems


def _touches(path: KeyPath, doubtful: Sequence[KeyPath]) -> bool:
    """Whether a key path lies at, above or below one of those that are wrong."""
    return any(path[: len(other)] == other[: len(path)] for other in doubtful)


def _at_component(problem: Problem, path: KeyPath, document: Document) -> Problem:
    full = path + problem.path
    is_value = problem.message.startswith("expected")
    return document.at(replace(problem, path=full), key=not is_value)


def _working_patches(experiment: Experiment, document: Document) -> tuple[Namespace, list[Problem]]:
    """A namespace of the patches that can be loaded, and what is wrong with the others."""
    working, problems = [], []
    for index, patch in enumerate(experiment.patches):
        path = experiment.path(patch)
        if not path.is_file():
            problems.append(document.at(Problem(f"there is no file {path}", near_files(path), ("patches", index))))
            continue
        try:
            load_patch(path)
            working.append(path)
        except ConfigError as error:
            problems += error.problems
    return Namespace(tuple(working)), problems
