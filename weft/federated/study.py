"""A study, simulated: all sites in this process, each with data, generators, model and run directory of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from weft.actions.beginning import begun, begun_already
from weft.actions.ending import monitored, report_on, write_failure, write_outcome
from weft.actions.opening import (
    Source,
    folds_of,
    load,
    open_run,
    require_same_experiment,
)
from weft.actions.scores import write_scores, write_states
from weft.actions.single import refuse_other_code
from weft.actions.stopping import stoppable
from weft.actions.trained import TrainedRun
from weft.config import Experiment, refuse_while_loading
from weft.engine import Epoch, Observer, Participant, RunResult, Start, Step, Together, Validation, pick_device
from weft.engine.determinism import reproducible
from weft.engine.signals import Interruption
from weft.engine.weights import save_weights
from weft.errors import NotFiniteError, UsageError
from weft.federated.comparing import compare_with_one_place
from weft.federated.describing import bounds_of, describe_study, threads_of_study
from weft.federated.folds import Simulate, go_on_with_folds, is_study_of_folds, simulate_folds
from weft.federated.profile import Profile
from weft.federated.site import Site
from weft.federated.traffic import summary, trained
from weft.monitor import ConsoleSummary, LogFile, ProgressBar, StepsCSV, messages_kept
from weft.runs import (
    History,
    RunDirectory,
    append_experiment_row,
)

logger = logging.getLogger("weft")


def simulate(
    source: Source,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    resume: bool = False,
    compare: bool = False,
) -> TrainedRun:
    """Run a study with all its sites in this process.

    Args:
        source: experiment file, dict or `Experiment` with a section `federation`; with `resume` also the directory of
            a study.
        overrides: `key=value` texts that replace what is written.
        out: the study's directory, new or empty; by default a new folder under `run.output`.
        resume: when there is a study in the directory already, go on with it. One that is finished is returned as it
            is.
        compare: also train with all data in one place, and each site alone, on the same splits.

    Returns:
        the study: its scores are pooled over the sites.

    Raises:
        ConfigError, DataError: the experiment or the data of a site are wrong; nothing was trained.
        UsageError: it is no study, or the directory holds another one.
        Stopped: a signal came; the study can be resumed.
        NotFiniteError: training diverged at a site.
    """
    refuse_while_loading()
    if resume and out is None:
        if not isinstance(source, str | Path) or not Path(source).is_dir():
            raise UsageError("which study shall be gone on with?", "name its directory: --resume STUDY, or --out STUDY")
        with stoppable(source):
            return _go_on(Path(source), overrides, compare)
    with stoppable(out):
        experiment = load(source, overrides)
        if experiment.federation is None:
            raise UsageError(
                f"{experiment.name} is no study: it has no section 'federation'",
                "add federation: {sites: {NAME: {table: …}, …}}, or train it in one place with weft train",
            )
        if resume and out is not None and begun_already(out):
            require_same_experiment(out, experiment)
            return _go_on(Path(out), [text for text in overrides if text.startswith("run.")], compare)
        if folds_of(experiment) is not None:
            return simulate_folds(experiment, out, _of_fold((), compare))
        return _begin(experiment, out, compare)


def _begin(experiment: Experiment, out: Path | str | None, compare: bool) -> TrainedRun:
    with begun(experiment, out) as directory:
        return _Study(directory, experiment, threads_of_study(experiment), resumed=False).run(compare=compare)


def _of_fold(overrides: Sequence[str], compare: bool) -> Simulate:
    """Runs the study of a fold, or goes on with it."""
    return lambda folder, fold: (
        _go_on(folder, overrides, compare) if begun_already(folder) else _begin(fold, folder, compare)
    )


def _go_on(path: Path, overrides: Sequence[str], compare: bool) -> TrainedRun:
    wrong = [text for text in overrides if not text.startswith("run.")]
    if wrong:
        raise UsageError(f"--set {wrong[0]} would make a resumed study another one", "only run.… can be changed")
    if is_study_of_folds(path):
        return go_on_with_folds(path, overrides, _of_fold(overrides, compare))
    opened = open_run(path, overrides, writing=True)
    with opened.directory as directory:
        if opened.experiment.federation is None:
            raise UsageError(f"{path} is no study", f"go on with it by: weft train --resume {path}")
        done = directory.result() or {}
        if compare and "tested" in done:
            raise UsageError(f"{path} holds a test of weights: nothing was trained that could be compared")
        if done.get("status") == "finished" and (not compare or "comparison" in done):
            logger.info("%s is finished already", directory.path)
            return TrainedRun(directory.path, done)
        refuse_other_code(opened)
        threads = int(opened.provenance["run_threads"])
        return _Study(directory, opened.experiment, threads, resumed=True).run(compare=compare)


class _Study:
    """A study that is being run.

    Args:
        directory: locked.
        experiment: with its section `federation`.
        threads: of an operation.
        resumed: whether it goes on.
    """

    def __init__(self, directory: RunDirectory, experiment: Experiment, threads: int, *, resumed: bool) -> None:
        assert experiment.federation is not None
        self.directory, self.experiment, self.threads, self.resumed = directory, experiment, threads, resumed
        self.names = sorted(experiment.federation.sites)
        self.sites: list[Site] = []
        self.profile = Profile(directory, self.names)
        self.described = resumed

    def run(self, *, compare: bool) -> TrainedRun:
        """Drive all sites to their end and write down how it ended, whatever happens."""
        started = time.monotonic()
        device, deterministic = pick_device(self.experiment.run.device), self.experiment.training.deterministic
        try:
            with (
                ExitStack() as stack,
                Interruption() as interruption,
                reproducible(threads=self.threads, deterministic=deterministic, device=device),
                messages_kept(self.directory),
            ):
                self._open_sites(stack, interruption)
                results = self._drive()
                self.profile.finish()
                comparison = compare_with_one_place(self.experiment, self.sites) if compare else None
                return self._write(results, comparison, time.monotonic() - started)
        except BaseException as error:
            if isinstance(error, NotFiniteError):
                numbered = ", ".join(f"{number}: {name}" for number, name in enumerate(self.names))
                error.hint = f"{error.hint}; participants are {numbered}"
            for site in self.sites:
                if site.run is not None:
                    site.run.observers.notify("on_error", error)
            write_failure(self.directory, error, time.monotonic() - started)
            raise
        finally:
            for site in self.sites:
                if site.run is not None:
                    site.run.close()

    def _open_sites(self, stack: ExitStack, interruption: Interruption) -> None:
        for name in self.names:
            path = self.directory.sites / name
            opened = RunDirectory.open(path, writing=True) if self.resumed else RunDirectory.create(path)
            own = stack.enter_context(opened)
            first = name == self.names[0]
            site = Site(
                self.experiment, name, own, resumed=self.resumed, threads=self.threads, interruption=interruption,
                observers=[self.profile.sites[name], StepsCSV(), LogFile(), *(self._watching() if first else [])],
            )  # fmt: skip
            self.sites.append(site)

    def _watching(self) -> list[Observer]:
        """Who watches the study through its first site: what all agree on is the same at each."""
        bar = ProgressBar(beside=self.profile.table)
        shown: list[Observer] = [bar, ConsoleSummary()] if self.experiment.run.progress else []
        named = [_ShownAsStudy(self.experiment.name, one) for one in shown]
        return [_PooledHistory(self.directory.history()), *named]

    def _drive(self) -> dict[str, RunResult]:
        participants = [
            Participant(
                site.name, self.profile.sites[site.name].timed(site.steps), site.position, site.first_randomness()
            )
            for site in self.sites
        ]

        def after_turn() -> None:
            for participant in participants:
                participant.journal.clear()  # nobody is brought back by itself: a study goes on from its checkpoints
            if not self.described and all(site.described for site in self.sites):
                self._describe()

        return Together(participants).run(after_turn)

    def _describe(self) -> None:
        """Write what is known before training; from here on the study can be resumed."""
        describe_study(self.directory, self.experiment, self.threads, self.sites)
        self.described = True

    def _write(self, results: dict[str, RunResult], comparison: dict[str, Any] | None, seconds: float) -> TrainedRun:
        """Each site's run, then the study: pooled scores, the common model and, last of all, result.json."""
        directory = self.directory
        first = self.sites[0]
        pooled = first.built.final
        per_site = {site.name: self._write_site(site, results[site.name]) for site in self.sites}
        for name, split in pooled.items():
            write_scores(directory.scores, name, replace(split, rows=[]), results[first.name].model_sha256)
            if self.experiment.fold is not None:
                write_states(directory.scores, name, first.built.splits[name].book)
        digests = {result.model_sha256 for result in results.values()}
        if len(digests) == 1:
            save_weights(first.built.state.scored_weights, directory.weights)
        directory.write_json(directory.statistics_file, first.data.statistics)
        result = {
            "fingerprint": directory.read_json(directory.provenance_file)["fingerprint"],
            "status": "finished",
            "scores": results[first.name].scores,
            "bounds": {name: bounds_of(split.details) for name, split in pooled.items()},
            "epochs": results[first.name].epochs,
            "steps": results[first.name].steps,
            "seconds": round(seconds, 3),
            "best_epoch": results[first.name].best_epoch,
            "monitor": monitored(first.built, results[first.name]),
            "model_sha256": digests.pop() if len(digests) == 1 else None,
            "sites": per_site,
            "resume": None,
            **({} if comparison is None else {"comparison": comparison}),
        }
        append_experiment_row(directory.path, {"name": self.experiment.name}, result)
        directory.write_result(result)
        for site in self.sites:
            site.built.observers.notify("on_end", results[site.name])
        report_on(directory)
        return TrainedRun(directory.path, result)

    def _write_site(self, site: Site, result: RunResult) -> dict[str, Any]:
        """The run of a site, with the scores of its own items; what the study says of it."""
        run = site.built
        own = site.own_scores()
        scores = {name: split.scores for name, split in own.items()}
        pooled, run.final = run.final, own
        try:
            write_outcome(site.directory, site.experiment, run, replace(result, scores=scores))
        finally:
            run.final = pooled
        report_on(site.directory)
        return {
            "scores": scores,
            "items": {name: len(split) for name, split in site.data.splits.items()},
            "trained": trained(run.state.beside),
            "bytes": summary(run.state.beside),
            "model_sha256": result.model_sha256,
        }


class _ShownAsStudy(Observer):
    """Shows what happens at the first site as what happens in the study.

    Args:
        name: of the study.
        shown: who shows it.
    """

    def __init__(self, name: str, shown: Observer) -> None:
        self._name = name
        self._shown = shown

    def on_start(self, start: Start) -> None:
        self._shown.on_start(replace(start, name=self._name))

    def on_step(self, step: Step) -> None:
        self._shown.on_step(step)

    def on_validation(self, progress: Validation) -> None:
        self._shown.on_validation(progress)

    def on_epoch(self, epoch: Epoch) -> None:
        self._shown.on_epoch(epoch)

    def on_end(self, result: RunResult) -> None:
        self._shown.on_end(result)

    def on_error(self, error: BaseException) -> None:
        self._shown.on_error(error)


class _PooledHistory(Observer):
    """Writes the rows that all sites agree on to the study's history."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._run: Any = None

    def on_build(self, run: Any) -> None:
        self._run = run

    def on_start(self, start: Start) -> None:
        self._history.restore(self._run.state.history)

    def on_epoch(self, epoch: Epoch) -> None:
        self._history.append(epoch.row)
