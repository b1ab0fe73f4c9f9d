"""A study, simulated: all sites in this process, each with data, generators, model and run directory of its own."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.actions.beginning import begun, begun_already
from weft.actions.ending import found_finished, monitored, report_on, write_failure
from weft.actions.opening import Source, folds_of, load, open_run, require_same_experiment
from weft.actions.single import refuse_other_code
from weft.actions.stopping import stoppable
from weft.actions.trained import TrainedRun
from weft.config import Experiment, fingerprint, refuse_while_loading
from weft.engine import CheckpointFolder, Observer, RunResult, pick_device
from weft.engine.determinism import reproducible
from weft.engine.signals import Interruption
from weft.errors import CohortError, MessageRefused, NotFiniteError, UsageError
from weft.federated.checking.settings import refuse_settings, refuse_sites, told_with_places
from weft.federated.comparing import compare_with_one_place
from weft.federated.describing import bounds_of, describe_study, threads_of_study
from weft.federated.folds import Simulate, go_on_with_folds, is_study_of_folds, simulate_folds
from weft.federated.hub import Hub
from weft.federated.joining import hello_of, require_same, settings_of
from weft.federated.ledger import Ledger, away_after, read_ledger
from weft.federated.messages import Message
from weft.federated.outcome import write_common, write_site
from weft.federated.playing import Playing
from weft.federated.profile import Profile
from weft.federated.remembering import HubMemory, Moment
from weft.federated.scenario import Scenario, load_scenario, write_scenario
from weft.federated.simulation import Sites
from weft.federated.site import Site, boundaries_in
from weft.federated.watching import PooledHistory, Watchers, facts_of_study, observers_of_site, observers_of_study
from weft.monitor import ConsoleSummary, ProgressBar, messages_kept
from weft.runs import RunDirectory, append_experiment_row, one_moment

logger = logging.getLogger("weft")


def simulate(
    source: Source,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    resume: bool = False,
    compare: bool = False,
    scenario: Path | str | Mapping[str, Any] | None = None,
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
        scenario: what goes wrong: a YAML file or its content (see `weft.federated.scenario`). It is kept with the
            study, which goes on with it.

    Returns:
        the study: its scores are pooled over the sites.

    Raises:
        ConfigError, DataError: the experiment or the data of a site are wrong; nothing was trained.
        UsageError: it is no study, or the directory holds another one.
        Stopped: a signal came; the study can be resumed.
        CohortError: too few sites are left; the study can be resumed.
        NotFiniteError: training diverged at a site.
    """
    refuse_while_loading()
    if scenario is not None and resume:
        raise UsageError("a study goes on with the scenario that it began with", "leave out the scenario")
    if resume and out is None:
        if not isinstance(source, str | Path) or not Path(source).is_dir():
            if isinstance(source, str | Path) and not Path(source).exists():
                raise UsageError(f"there is no study at {source}", "name the directory of one that was begun")
            raise UsageError("which study shall be gone on with?", "name its directory: --resume STUDY, or --out STUDY")
        with stoppable(source), one_moment():
            return _go_on(Path(source), overrides, compare)
    with stoppable(out), one_moment():
        experiment = load(source, overrides)
        if experiment.federation is None:
            raise UsageError(
                f"{experiment.name} is no study: it has no section 'federation'",
                "add federation: {sites: {NAME: {table: …}, …}}, or train it in one place with weft train",
            )
        if resume and out is not None and begun_already(out):
            require_same_experiment(out, experiment)
            return _go_on(Path(out), [text for text in overrides if text.startswith("run.")], compare)
        planned = None
        if scenario is not None:
            planned = load_scenario(scenario, experiment.federation.sites)
        with told_with_places(experiment):
            refuse_settings(experiment)
            if folds_of(experiment) is not None:
                return simulate_folds(experiment, out, _of_fold((), compare, planned))
            return _begin(experiment, out, compare, planned)


def _begin(experiment: Experiment, out: Path | str | None, compare: bool, scenario: Scenario | None) -> TrainedRun:
    with begun(experiment, out) as directory:
        if scenario is not None:
            write_scenario(scenario, directory.scenario_file)
        study = _Study(directory, experiment, threads_of_study(experiment), resumed=False)
        study.scenario = scenario  # it knows the file that it was read from
        return study.run(compare=compare)


def _of_fold(overrides: Sequence[str], compare: bool, scenario: Scenario | None) -> Simulate:
    """Runs the study of a fold, or goes on with it."""
    return lambda folder, fold: (
        _go_on(folder, overrides, compare) if begun_already(folder) else _begin(fold, folder, compare, scenario)
    )


def _go_on(path: Path, overrides: Sequence[str], compare: bool) -> TrainedRun:
    wrong = [text for text in overrides if not text.startswith("run.")]
    if wrong:
        raise UsageError(f"--set {wrong[0]} would make a resumed study another one", "only run.… can be changed")
    if is_study_of_folds(path):
        return _go_on_with_folds(path, overrides, compare)
    opened = open_run(path, overrides, writing=True)
    with opened.directory as directory:
        if opened.experiment.federation is None:
            raise UsageError(f"{path} is no study", f"go on with it by: weft train --resume {path}")
        done = directory.result() or {}
        if compare and "tested" in done:
            raise UsageError(f"{path} holds a test of weights: nothing was trained that could be compared")
        if done.get("status") == "finished" and (not compare or "comparison" in done):
            found_finished(directory)
            return TrainedRun(directory.path, done)
        refuse_other_code(opened)
        threads = int(opened.provenance["run_threads"])
        return _Study(directory, opened.experiment, threads, resumed=True).run(compare=compare)


def _go_on_with_folds(path: Path, overrides: Sequence[str], compare: bool) -> TrainedRun:
    written = RunDirectory(RunDirectory(path).fold(1)).scenario_file
    scenario = load_scenario(written) if written.exists() else None
    return go_on_with_folds(path, overrides, _of_fold(overrides, compare, scenario))


@dataclass(frozen=True, slots=True)
class _Resuming:
    """The boundary where a study goes on, and who was away then."""

    boundary: Moment
    away: set[str]


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
        self.sites: list[Site] = []
        self.examined = self.described = resumed
        self.scenario: Scenario | None = None
        if directory.scenario_file.exists():
            self.scenario = load_scenario(directory.scenario_file, experiment.federation.sites)
        self.playing: Playing | None = None
        self.ledger = Ledger(directory.ledger_file)
        self.hub = Hub(
            fingerprint(experiment), sorted(experiment.federation.sites), experiment.federation.cohort, self.ledger,
            settings=settings_of(experiment), screened=experiment.training.precision != "fp16",
        )  # fmt: skip
        self.memory = HubMemory(directory, self.hub, keep=2 * max(experiment.run.keep_last, 3))
        self.names: list[str] = []  # of the sites that may begin
        self.back: set[str] = set()  # sites that were away when the others saved, and are back now
        self.watching: list[Observer] = []  # the study
        self.watchers: Watchers | None = None  # they, through one of its sites
        self.profile = Profile(directory, self.hub.names)

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
            if self.watchers is not None and (self.described or any(site.run is not None for site in self.sites)):
                self.watchers.observers.notify("on_error", error)
            write_failure(self.directory, error, time.monotonic() - started)
            raise
        finally:
            for site in self.sites:
                if site.run is not None:
                    site.run.close()

    def _join(self, resuming: _Resuming | None) -> None:
        """Let the hub take in every site that it does not refuse, but for those that are away."""
        away = resuming.away if resuming is not None else ()
        if self.scenario is not None:
            self.playing = self.memory.playing = Playing(self.scenario, self.ledger, self.memory.played)
        self.names = []
        for name in self.hub.names:
            try:
                if name not in away:
                    if self.playing is not None:
                        self.playing.joins(name)
                    self.hub.join(self._hello(name), event="joined" if resuming is None else None)
            except MessageRefused as error:
                if resuming is None:
                    self.ledger.note("refused", name, reason=str(error))
            else:
                self.names.append(name)
        self.hub.require_enough(epoch=0, step=0)

    def _hello(self, name: str) -> Message:
        """What a site says to join.

        Raises:
            MessageRefused: it was refused when the study began, which goes on without it.
        """
        hello = hello_of(name, self.hub.study, self.hub.settings, self.scenario)
        if self.resumed and not (self.directory.sites / name).is_dir():
            require_same(hello, self.hub.study, self.hub.settings)
            raise MessageRefused(f"{name} did not begin the study", "begin a new one with it")
        return hello

    def _open_sites(self, stack: ExitStack, interruption: Interruption) -> None:
        resuming = self._resuming() if self.resumed else None
        self._join(resuming)
        self.watching = self._watching()
        apart = {name: clock.not_its_own for name, clock in self.profile.sites.items()}
        self.watchers = Watchers(self.watching, self.hub.members[0], self.sites, apart)
        for name in self.names:
            path = self.directory.sites / name
            opened = RunDirectory.open(path, writing=True) if self.resumed else RunDirectory.create(path)
            own = stack.enter_context(opened)
            site = Site(
                self.experiment, name, own, names=self.names, resumed=self.resumed, threads=self.threads,
                interruption=interruption, saving=self.memory.note,
                observers=[
                    self.profile.sites[name], *observers_of_site(self.experiment, name), self.watchers.at(name),
                ],
            )  # fmt: skip
            self.sites.append(site)
        if resuming is not None:
            planned = self.scenario.away(resuming.boundary[1], begun=True) if self.scenario is not None else set()
            self.back = resuming.away - planned

    def _resuming(self) -> _Resuming | None:
        """The newest boundary that all have saved who were there, as the ledger tells; None where there is none. What
        they saved later is given up, before anything is saved again.
        """
        paths = {name: RunDirectory(self.directory.sites / name).checkpoints for name in self.hub.names}
        folders = {name: CheckpointFolder(path) for name, path in paths.items() if path.is_dir()}
        saved = {name: boundaries_in(folder) for name, folder in folders.items()}
        rows = list(read_ledger(self.directory.ledger_file))
        events = self.memory.events() if any(saved.values()) else {}
        for boundary in sorted(set().union(*saved.values()), reverse=True):
            away = away_after(rows[: events.get(boundary)]) & saved.keys()
            if all(boundary in saved[name] for name in saved if name not in away):
                self.memory.go_back(boundary)
                for name, folder in folders.items():
                    for later in (one for moment, one in saved[name].items() if moment > boundary):
                        folder.give_up(later)
                self.ledger.go_back(events[boundary])
                return _Resuming(boundary, away)
        if not all(saved.values()):  # it begins anew
            self.ledger.go_back(0)
        return None

    def _watching(self) -> list[Observer]:
        """Who watches the study, whose history is written, too."""
        bar = ProgressBar(beside=self.profile.table)
        shown: list[Observer] = [bar, ConsoleSummary()] if self.experiment.run.progress else []
        return [PooledHistory(self.directory.history()), *observers_of_study(self.experiment, self.directory, shown)]

    def _drive(self) -> dict[str, RunResult]:
        assert self.experiment.federation is not None
        clocks = self.profile.sites
        driver = Sites(
            self.sites, self.hub, self.experiment.federation.cohort, self.playing,
            lambda name, start: clocks[name].timed(start),
        )  # fmt: skip

        def after_turn() -> None:
            for participant in driver.participants:
                participant.journal.clear()  # nobody is brought back by itself: a study goes on from its checkpoints
            if not self.described:
                self._before_training()

        driver.back |= self.back
        try:
            return driver.run(after_turn)
        except CohortError as error:
            if self.scenario is None:
                raise
            hint = "the scenario goes on with the study: begin anew with another one, or with a lower minimum"
            raise CohortError(error.message, hint) from error

    def _before_training(self) -> None:
        """See whether settings and scenario fit, as soon as all know how long they will train; write what is known
        before training: from here on the study can be resumed.
        """
        if not self.examined and all(site.run is not None for site in self.sites):
            steps = refuse_sites(self.experiment, self.sites)
            if self.scenario is not None:
                self.scenario.require_within(steps)
            self.examined = True
        if all(site.described for site in self.sites):
            self._describe()

    def _describe(self) -> None:
        describe_study(self.directory, self.experiment, self.threads, self.sites)
        self.described = True

    def _write(self, results: dict[str, RunResult], comparison: dict[str, Any] | None, seconds: float) -> TrainedRun:
        """Each site's run, then the study: pooled scores, the common model and, last of all, result.json."""
        directory = self.directory
        there = [site for site in self.sites if site.name in results]
        first, ended = there[0], results[there[0].name]
        directory.history().restore(first.built.state.history)
        per_site = {site.name: write_site(site, results[site.name]) for site in there}
        one_model = len({result.model_sha256 for result in results.values()}) == 1
        write_common(directory, self.experiment, first, ended, one_model=one_model)
        away = [name for name in self.hub.names if name not in results]
        deadline = self.hub.cohort.deadline
        played = self.playing.finish(ended.steps, deadline, away) if self.playing is not None else None
        result = {
            "fingerprint": directory.read_json(directory.provenance_file)["fingerprint"],
            "status": "finished",
            "scores": ended.scores,
            "bounds": {name: bounds_of(split.details) for name, split in first.built.final.items()},
            "epochs": ended.epochs,
            "steps": ended.steps,
            "seconds": round(seconds, 3),
            "best_epoch": ended.best_epoch,
            "monitor": monitored(first.built, ended),
            "model_sha256": ended.model_sha256 if one_model else None,
            "sites": per_site,
            **({} if first.pretraining is None else {"pretraining": first.pretraining}),
            "away": away,
            "events": dict(Counter(event["event"] for event in read_ledger(directory.ledger_file))),
            **({} if played is None else {"scenario": played}),
            "resume": None,
            **({} if comparison is None else {"comparison": comparison}),
            **facts_of_study(self.watching),
        }
        append_experiment_row(directory.path, {"name": self.experiment.name}, result)
        directory.write_result(result)
        for site in there:
            site.built.observers.notify("on_end", results[site.name])
        if self.watchers is not None:
            self.watchers.observers.notify("on_end", ended)
        report_on(directory)
        return TrainedRun(directory.path, result)
