"""Studies that only test: given weights are scored at all sites, nothing is trained."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from weft.actions.beginning import begun, describe_run
from weft.actions.ending import report_on
from weft.actions.narrowing import without_pretrained
from weft.actions.opening import Source, load, open_run
from weft.actions.scores import write_scores
from weft.actions.stopping import stoppable
from weft.actions.trained import TrainedRun
from weft.config import Experiment, refuse_while_loading
from weft.engine import Membership, Participant, Run, RunResult, build_run, pick_device
from weft.engine.collectives import Answer, Collective
from weft.engine.determinism import reproducible
from weft.engine.drivers import Steps
from weft.engine.loop import scoring
from weft.engine.signals import Interruption
from weft.engine.weights import load_weights, save_weights
from weft.errors import UsageError
from weft.federated.agreeing import same_weights
from weft.federated.describing import bounds_of, describe_study, threads_of_study
from weft.federated.failing import SitesTogether
from weft.federated.site import Site
from weft.federated.traffic import Counts, counted, summary
from weft.runs import RunDirectory, resume_command

Weights = Path | Mapping[str, Path]  # a file for all sites, or one for each


def evaluate(
    source: Source,
    overrides: Sequence[str] = (),
    *,
    weights: Path | str | None = None,
    splits: Sequence[str] | None = None,
    out: Path | str | None = None,
) -> TrainedRun:
    """Score weights on the data of all sites of a study. Nothing is trained, and no site needs training data.

    Args:
        source: the directory of a study, or an experiment with a section `federation`.
        overrides: `key=value` texts, for example the tables of other sites.
        weights: a weights file; by default those of the study (of a study whose sites ended with models of their own,
            each site's), or `model.weights` of the experiment.
        splits: which splits; None scores all.
        out: directory of the test, new or empty; by default a new folder under `run.output`.

    Returns:
        the test: its scores are pooled over the sites.

    Raises:
        UsageError: there are no weights, it is no study, or no site has such a split.
        ConfigError, DataError: the weights do not fit, or the data of a site are wrong.
    """
    refuse_while_loading()
    experiment, file, statistics = _opened(source, overrides, weights)
    with stoppable(out), begun(experiment, out) as directory:
        return _Test(directory, experiment, file, statistics, splits).run()


def _opened(
    source: Source, overrides: Sequence[str], weights: Path | str | None
) -> tuple[Experiment, Weights, dict[str, Any] | None]:
    """The study, its weights, and the classes and scales that they were trained with, as far as these are known."""
    statistics = None
    given: Weights | None
    if isinstance(source, str | Path) and Path(source).is_dir():
        opened = open_run(source, overrides, narrow=without_pretrained)
        experiment, directory = opened.experiment, opened.directory
        if experiment.federation is not None:
            statistics = directory.read_json(directory.statistics_file)
        missing = f"{source} has no weights: it did not finish", f"{resume_command(source)}, or add --weights FILE"
        given = directory.weights if directory.weights.exists() else _of_sites(directory, experiment)
    else:
        experiment = load(source, overrides)
        missing = f"{experiment.name} names no weights to test", "add --weights FILE, or model.weights to the study"
        given = experiment.path(experiment.model.weights) if experiment.model.weights is not None else None
    if experiment.federation is None:
        raise UsageError(f"{experiment.name} is no study: it has no section 'federation'", "use weft evaluate")
    found = Path(weights) if weights is not None else given
    if found is None:
        raise UsageError(*missing)
    return without_pretrained(experiment), found, statistics


def _of_sites(directory: RunDirectory, experiment: Experiment) -> dict[str, Path] | None:
    """The weights of each site, where all have ended with some."""
    names = experiment.federation.sites if experiment.federation is not None else ()
    files = {name: RunDirectory(directory.sites / name).weights for name in names}
    return files if files and all(file.exists() for file in files.values()) else None


class _TestedSite(Site):
    """A site that scores given weights.

    Args:
        weights: their file; only the first site reads it, the others are told. Or a file for each site.
        statistics: classes and scales; None agrees on them.
        splits: which are scored; None scores all.
        arguments: those of `Site`.
    """

    def __init__(
        self,
        *arguments: Any,
        weights: Weights,
        statistics: dict[str, Any] | None,
        splits: Sequence[str] | None,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        self._weights, self._known, self._wanted = weights, statistics, splits

    def steps(self) -> Steps:
        """Agree on the data, take the weights, score."""
        counts: Counts = {}
        told = yield from counted(self._agree(), counts, "opening")
        there = {name for said in told for name in said["splits"]}
        if self._wanted is not None and (unknown := [name for name in self._wanted if name not in there]):
            raise UsageError(f"no site has a split '{unknown[0]}'", f"there are {', '.join(sorted(there))}")
        assert self.study.federation is not None
        cells = self.study.federation.minimum_cells
        membership = Membership(
            len(self.names), self.number, gather=False, minimum_cells=cells, splits=tuple(sorted(there))
        )
        run = self.run = build_run(
            self.experiment, self.data, path=self.directory.path, interruption=self.interruption,
            membership=membership,
        )  # fmt: skip
        if self._wanted is not None:
            run.splits = {name: split for name, split in run.splits.items() if name in self._wanted}
        yield from counted(self._take_weights(run), counts, "opening")
        run.state.beside.update(counts)
        result: RunResult = yield from counted(scoring(run), run.state.beside)
        return result

    def _take_weights(self, run: Run) -> Generator[Collective, Answer, None]:
        if isinstance(self._weights, Path):
            if self.number == 0:
                load_weights(run.state.model, self._weights)
            yield from same_weights(run)
            return
        load_weights(run.state.model, self._weights[self.name])
        if run.state.average is not None:
            run.state.average.module.load_state_dict(run.state.model.state_dict())

    def _statistics(self, classes: list[str] | None) -> Generator[Collective, Answer, dict[str, Any]]:
        return (yield from super()._statistics(classes)) if self._known is None else self._known


class _Test:
    """A test that is being run.

    Args:
        directory: new, locked.
        experiment: with its section `federation`.
        weights, statistics, splits: see `_TestedSite`.
    """

    def __init__(
        self,
        directory: RunDirectory,
        experiment: Experiment,
        weights: Weights,
        statistics: dict[str, Any] | None,
        splits: Sequence[str] | None,
    ) -> None:
        assert experiment.federation is not None
        self.directory, self.experiment, self.weights = directory, experiment, weights
        self.statistics, self.splits = statistics, splits
        self.threads = threads_of_study(experiment)

    def run(self) -> TrainedRun:
        """Score at all sites, and write it all down; a test that fails leaves nothing."""
        started = time.monotonic()
        device, deterministic = pick_device(self.experiment.run.device), self.experiment.training.deterministic
        with (
            ExitStack() as stack,
            Interruption() as interruption,
            reproducible(threads=self.threads, deterministic=deterministic, device=device),
        ):
            sites = self._sites(stack, interruption)
            participants = [
                Participant(each.name, each.steps, each.position, each.first_randomness()) for each in sites
            ]
            try:
                results = SitesTogether(participants).run()
                return self._write(sites, results, time.monotonic() - started)
            finally:
                for site in sites:
                    if site.run is not None:
                        site.run.close()

    def _sites(self, stack: ExitStack, interruption: Interruption) -> list[_TestedSite]:
        assert self.experiment.federation is not None
        return [
            _TestedSite(
                self.experiment, name, stack.enter_context(RunDirectory.create(self.directory.sites / name)),
                resumed=False, threads=self.threads, interruption=interruption, observers=[],
                weights=self.weights, statistics=self.statistics, splits=self.splits,
            )
            for name in sorted(self.experiment.federation.sites)
        ]  # fmt: skip

    def _write(self, sites: list[_TestedSite], results: dict[str, RunResult], seconds: float) -> TrainedRun:
        directory, first = self.directory, sites[0]
        pooled, per_site = first.built.final, {}
        shared = isinstance(self.weights, Path)
        for site in sites:
            own, digest = site.own_scores(), results[site.name].model_sha256
            for name, split in own.items():
                write_scores(site.directory.scores, name, split, digest)
            per_site[site.name] = {
                "scores": {name: split.scores for name, split in own.items()},
                "items": {name: len(site.data.splits[name]) for name in own},
                "bytes": summary(site.built.state.beside),
                "model_sha256": digest,
            }
            describe_run(site.directory, site.experiment, site.data, self.threads)
            outcome = {"status": "finished", "scores": per_site[site.name]["scores"], "model_sha256": digest}
            site.directory.write_result({**outcome, "epochs": 0, "steps": 0})
        digest = results[first.name].model_sha256 if shared else None
        for name, split in pooled.items():
            write_scores(directory.scores, name, replace(split, rows=[]), digest)
        if shared:
            save_weights(first.built.state.scored_weights, directory.weights)
        directory.write_json(directory.statistics_file, first.data.statistics)
        provenance = describe_study(directory, self.experiment, self.threads, sites)
        result = {
            "fingerprint": provenance["fingerprint"],
            "status": "finished",
            "scores": {name: split.scores for name, split in pooled.items()},
            "bounds": {name: bounds_of(split.details) for name, split in pooled.items()},
            "epochs": 0,
            "steps": 0,
            "seconds": round(seconds, 3),
            "model_sha256": digest,
            "tested": str(self.weights) if shared else "those of each site",
            "sites": per_site,
            "resume": None,
        }
        directory.write_result(result)
        for one in (*(site.directory for site in sites), directory):
            report_on(one)
        return TrainedRun(directory.path, result)
