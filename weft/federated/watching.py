"""Who watches a study: each site by itself, and all of it through one of them, as what all agree on is the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.config import Component, Experiment
from weft.engine import Epoch, Observer, RunResult, Start, Step, Validation
from weft.engine.events import Observers
from weft.monitor import Debugging, LogFile, StepsCSV, TensorBoard, Waiting
from weft.monitor.carbon import carbon_of
from weft.monitor.notifications import notifications_of
from weft.runs import History, RunDirectory

if TYPE_CHECKING:
    from weft.federated.site import Site


def observers_of_site(study: Experiment, name: str) -> list[Observer]:
    """The observers that a site's run has besides those it asks for."""
    found: list[Observer] = [StepsCSV(), LogFile(), Waiting()]
    if study.run.tensorboard:
        found.append(TensorBoard())
    if study.run.debug:
        found.append(Debugging(where=f"site {name}, "))
    return found


def observers_of_study(study: Experiment, directory: RunDirectory, shown: list[Observer]) -> list[Observer]:
    """The observers that a study has once: they are told of what all sites agree on.

    Args:
        study: the experiment with its section `federation`.
        directory: of the study.
        shown: those that show progress.

    Raises:
        UsageError: a package that is asked for is not installed, or there is no address to notify.
    """
    told = [notifications_of(study, directory), carbon_of(study)]
    namespace = study.namespace()
    named = [namespace.build(one, "observer") for one in study.run.observers if is_for_study(study, one)]
    every = [*shown, *(one for one in told if one is not None), *named]
    found: list[Observer] = [ShownAsStudy(study.name, directory.path, one) for one in every]
    if study.run.tensorboard:
        found.append(ShownAsStudy(study.name, directory.path, TensorBoard(), steps=False))
    return found


def is_for_study(experiment: Experiment, component: Component) -> bool:
    """Whether a study has one observer of this kind, and not one at each site."""
    return bool(getattr(experiment.namespace().find(component, "observer"), "for_study", False))


class Watchers:
    """Tells those who watch a study what happens at one of its sites. When that has left, another one takes its place
    and keeps it: events of all sites fall between the same exchanges, so none is told twice or left out.

    Args:
        watching: who watches.
        first: name of the site that is listened to until one is there.
        sites: of the study, in order of names; they may come later.
        apart: by name of a site, what is done around telling what is heard there, whose time is not the site's.
    """

    def __init__(
        self, watching: Sequence[Observer], first: str, sites: Sequence[Site],
        apart: Mapping[str, Callable[[], AbstractContextManager[None]]],
    ) -> None:  # fmt: skip
        self.observers, self.apart = Observers(list(watching)), apart
        self._first, self._sites = first, sites
        self._heard: Site | None = None

    def at(self, name: str) -> Observer:
        """What a site's run tells its events."""
        return _AtSite(self, name)

    def listen_to(self, name: str) -> bool:
        """Whether it is this site that is listened to now."""
        if self._heard is None or self._heard.run is None:
            self._heard = next((site for site in self._sites if site.run is not None), self._heard)
        return name == (self._first if self._heard is None else self._heard.name)


class _AtSite(Observer):
    """Passes on what happens at a site while that is the one that is listened to; ends and errors are the study's.

    Args:
        watchers: to whom.
        name: of the site.
    """

    def __init__(self, watchers: Watchers, name: str) -> None:
        self._watchers, self._name = watchers, name

    def on_build(self, run: Any) -> None:
        self._tell("on_build", run)

    def on_start(self, start: Start) -> None:
        self._tell("on_start", start)

    def on_step(self, step: Step) -> None:
        self._tell("on_step", step)

    def on_validation(self, progress: Validation) -> None:
        self._tell("on_validation", progress)

    def on_epoch(self, epoch: Epoch) -> None:
        self._tell("on_epoch", epoch)

    def _tell(self, event: str, told: object) -> None:
        if self._watchers.listen_to(self._name):
            with self._watchers.apart[self._name]():
                self._watchers.observers.notify(event, told)


class ShownAsStudy(Observer):
    """Shows what happens at the site that is listened to as what happens in the study.

    The study is described soon after that site has begun; its start is told with what comes next.

    Args:
        name: of the study.
        path: its directory.
        shown: who shows it.
        steps: whether single steps are shown, whose losses are the site's own.
    """

    def __init__(self, name: str, path: Path, shown: Observer, *, steps: bool = True) -> None:
        self._name, self._path = name, path
        self.shown, self._steps = shown, steps
        self._start: Start | None = None
        self._steps_per_epoch = 1

    def on_start(self, start: Start) -> None:
        assert start.run_path is not None
        site = RunDirectory(start.run_path)
        self._steps_per_epoch = max(1, int(site.read_json(site.agreed_file)["steps_per_epoch"]))
        self._start = replace(start, name=self._name, run_path=self._path, steps_per_epoch=self._steps_per_epoch)

    def on_step(self, step: Step) -> None:
        self._tell_start()
        if self._steps:  # the site may have fewer batches than the study has steps
            done = step.step - step.epoch * self._steps_per_epoch
            self.shown.on_step(replace(step, batch=done, batches=self._steps_per_epoch))

    def on_validation(self, progress: Validation) -> None:
        self._tell_start()
        self.shown.on_validation(progress)

    def on_epoch(self, epoch: Epoch) -> None:
        self._tell_start()
        self.shown.on_epoch(epoch)

    def on_end(self, result: RunResult) -> None:
        self._tell_start()
        self.shown.on_end(result)

    def on_error(self, error: BaseException) -> None:
        self._tell_start()
        self.shown.on_error(error)

    def _tell_start(self) -> None:
        if self._start is not None:
            start, self._start = self._start, None
            self.shown.on_start(start)


def facts_of_study(watching: list[Observer]) -> dict[str, Any]:
    """What those who watch the study add to its result; the results of sites have facts of their own."""
    return Observers([one.shown for one in watching if isinstance(one, ShownAsStudy)]).facts()


class PooledHistory(Observer):
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
