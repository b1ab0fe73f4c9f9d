"""One site of a study: its data, its run and its directory, and what it does from its first message to its scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch

from weft.actions.beginning import describe_run, try_out
from weft.actions.opening import open_experiment_data, target_kind_of
from weft.actions.single import require_observers
from weft.config import Experiment
from weft.data import Data, class_names, measure
from weft.engine import CheckpointFolder, Collective, Membership, Observer, Run, RunResult, build_run, training
from weft.engine.background import BackgroundCheckpoints
from weft.engine.checkpoint_files import Boundary
from weft.engine.collectives import Answer
from weft.engine.drivers import Steps
from weft.engine.loaders import batches_of_epoch
from weft.engine.run import SplitScores
from weft.engine.seeding import outer_randomness_kept, participant_seed, random_state, seed_everything
from weft.engine.signals import Interruption
from weft.engine.state import Position
from weft.errors import CheckpointError, DataError
from weft.federated.agreeing import epoch_of, joined_classes, pooled_scales, same_weights, site_seed, told_by_all
from weft.federated.checking.settings import tell_unlike_labels
from weft.federated.choosing import (
    NORMALISES,
    build_strategy,
    normalises_over_batches,
    require_exact,
    require_private,
)
from weft.federated.dsgd import dSGD
from weft.federated.hub import BOUNDARIES
from weft.federated.pretraining import pretrained
from weft.federated.remembering import Moment
from weft.federated.snapshots import State, take_shared, with_digests
from weft.federated.traffic import Counts, counted
from weft.federated.watching import is_for_study
from weft.runs import RunDirectory

logger = logging.getLogger("weft")


class Site:
    """A site that takes part in a study, in this process. Nothing of it is shared with another site's.

    Args:
        study: the experiment with its section `federation`.
        name: the site's.
        directory: its run directory, created and locked.
        resumed: whether it goes on from its checkpoints.
        threads: of an operation, for the record.
        interruption: the flag that signals set.
        observers: who watches.
        names: of all sites that begin the study; by default those of its section.
        saving: called with the boundary before it saves its state there.
    """

    def __init__(
        self,
        study: Experiment,
        name: str,
        directory: RunDirectory,
        *,
        names: Sequence[str] = (),
        resumed: bool,
        threads: int,
        interruption: Interruption,
        observers: list[Observer],
        saving: Callable[[Moment], None] = lambda moment: None,
    ) -> None:
        assert study.federation is not None
        self.study, self.name, self.directory, self.resumed = study, name, directory, resumed
        self.threads, self.interruption, self.observers, self._saving = threads, interruption, observers, saving
        self.names = sorted(names or study.federation.sites)
        self.number = self.names.index(name)
        self.experiment = site_experiment(study, name)
        self._folder = self._checkpoints()
        self.run: Run | None = None
        self._data: Data | None = None
        self._agreed: dict[str, Any] = {}
        self.described = resumed

    @property
    def data(self) -> Data:
        """Its data, once all have agreed on what they are treated with."""
        if self._data is None:  # it is away in a study that goes on
            self._read_agreed()
        assert self._data is not None
        return self._data

    @property
    def built(self) -> Run:
        """Its run, once it is built."""
        assert self.run is not None
        return self.run

    def position(self) -> Position:
        """Where it is."""
        return self.run.state.position if self.run is not None else Position()

    def first_randomness(self) -> dict[str, Any]:
        """The state of the random generators that it begins with."""
        with outer_randomness_kept():
            seed_everything(participant_seed(self.experiment.seed, 0))
            return random_state()

    def steps(self) -> Steps:
        """Everything that it does; drivers drive it with those of the other sites."""
        counts: Counts = {}
        run: Run = yield from counted(self._begin(), counts, "opening")
        if self.resumed:
            counts = dict(self._agreed["counts"])
        self._agreed["counts"] = dict(counts)
        fresh = not (self.resumed and (yield from self._go_on(run)))  # what brings sites back is no part of the study
        if fresh:
            yield from counted(same_weights(run), counts, "opening")
            run.state.beside.update(counts)
        if not self.resumed:
            with outer_randomness_kept():
                try_out(run, self.experiment, self.data)
                describe_run(self.directory, self.experiment, self.data, self.threads)
                self.directory.write_json(self.directory.agreed_file, self._agreed)
            self.described = True
        if fresh:
            yield from counted(self._pretrain(run), run.state.beside, "pretraining")
        return (yield from self._train(run))

    def _pretrain(self, run: Run) -> Generator[Collective, Answer, None]:
        """Begin with weights that the largest site has trained alone, where the study asks for it."""
        assert self.study.federation is not None
        if self.study.federation.pretraining is None:
            return
        done = yield from pretrained(run, self.experiment, self.data, self.study.federation.pretraining)
        self._agreed["pretraining"] = {**done, "site": self.names[done["site"]]}
        self.directory.write_json(self.directory.agreed_file, self._agreed)

    @property
    def pretraining(self) -> dict[str, Any] | None:
        """Which site trained alone before the study, on how many items and for how many epochs."""
        return self._agreed.get("pretraining")

    def rejoin(self, shared: State) -> Steps:
        """What it does when it comes back: it takes what all share, and goes on with the others.

        Args:
            shared: of a live site, at the beginning of a step.
        """
        self._folder = self._checkpoints()
        self._read_agreed()
        run = self.run = self._build()
        saved = boundaries_in(self._folder)
        take_shared(run, shared, self._folder.load_at(saved[max(saved)]) if saved else None)
        for left in self._left_before(run.state.position)[-1:]:
            run.state.beside.update(left["counts"])
        self._resumes(run)
        return (yield from self._train(run, skip_first=True))

    def leave(self) -> None:
        """Its process has died: nothing is left but what lies in its directory; what it had sent was sent."""
        if self.run is not None:
            position = self.run.state.position
            left = {"epoch": position.epoch, "step": position.step, "counts": self.run.state.beside}
            self.directory.write_json(self.directory.left_file, [*self._left_before(position), left])
            self.run.close()
        self.run = None

    def _left_before(self, position: Position) -> list[dict[str, Any]]:
        """When it left, up to a position; a study that has gone on from an earlier one has given up what came later."""
        file = self.directory.left_file
        rows: list[dict[str, Any]] = self.directory.read_json(file) if file.exists() else []
        return [row for row in rows if (row["epoch"], row["step"]) <= (position.epoch, position.step)]

    def change_weights(self) -> None:
        """Spoil its weights, as a broken memory would."""
        with torch.no_grad():
            next(self.built.state.model.parameters()).add_(1e-3)

    def _train(self, run: Run, *, skip_first: bool = False) -> Steps:
        assert self.study.federation is not None
        run.on_saving = lambda: self._saving(_moment_of(run))
        every = self.study.federation.cohort.compare_weights
        steps = with_digests(training(run), run, every, skip_first=skip_first)
        result: RunResult = yield from counted(steps, run.state.beside)
        return result

    def own_scores(self) -> dict[str, SplitScores]:
        """Final scores of this site's items alone, of the splits that it has."""
        found = {}
        for name, pooled in self.built.final.items():
            split = self.built.splits[name]
            if split.cases:
                with split.book.own():
                    found[name] = SplitScores(split.book.compute(), split.book.details(), pooled.rows)
        return found

    def _begin(self) -> Generator[Collective, Answer, Run]:
        """Agree with the others on what must be the same everywhere, and build the run."""
        if self.resumed:
            self._read_agreed()
        else:
            told = yield from self._agree()
            assert self.study.federation is not None
            epoch, wanted = epoch_of(self.study.federation.uneven, [said["batches"] for said in told])
            splits = sorted({name for said in told for name in said["splits"]})
            steps = -(-epoch // self.experiment.training.accumulate)
            self._agreed = {"splits": splits, "steps_per_epoch": steps, "batches": wanted}
        run = self.run = self._build()
        return run

    def _read_agreed(self) -> None:
        """What was agreed on when the study began."""
        self._agreed = self.directory.read_json(self.directory.agreed_file)
        self._data = self._open(self.directory.read_json(self.directory.statistics_file))

    def _agree(self) -> Generator[Collective, Answer, list[dict[str, Any]]]:
        """Open the data, with the classes and scales of all sites; of each site what it has."""
        own = self._class_names()
        names = yield from told_by_all("classes", own, len(self.names))
        classes = joined_classes(self.names, names)
        if self.number == 0:
            tell_unlike_labels(dict(zip(self.names, names, strict=True)))
        statistics = yield from self._statistics(classes)
        self._data = data = self._open(statistics)
        batches = batches_of_epoch(self.experiment, data)
        items = len(data.splits["train"]) if "train" in data.splits else 0
        return (
            yield from told_by_all(
                "splits", {"splits": list(data.splits), "batches": batches, "items": items}, len(self.names)
            )
        )

    def _class_names(self) -> list[str] | None:
        experiment = self.experiment
        kind = target_kind_of(experiment)
        return class_names(experiment.dataset, experiment.namespace(), base=experiment.base, kind=kind)

    def _statistics(self, classes: list[str] | None) -> Generator[Collective, Answer, dict[str, Any]]:
        """What this site's data are to be treated with: names of classes, mean and scale over all sites."""
        known: dict[str, Any] = {} if classes is None else {"classes": classes}
        experiment = self.experiment
        if not experiment.dataset.standardize:
            return known
        moments = measure(
            experiment.dataset, experiment.namespace(), seed=experiment.seed, fold=experiment.fold,
            base=experiment.base, kind=target_kind_of(experiment), classes=classes,
        )  # fmt: skip
        by_site = yield from told_by_all("shapes", [list(moment.mean.shape) for moment in moments], len(self.names))
        shapes: list[list[int]] = next((said for said in by_site if said), [])
        if not shapes:
            raise DataError(
                "no site has training items that mean and scale of the inputs could come from",
                "of the weights of an earlier study, name its directory: weft federate evaluate STUDY",
            )
        other = [name for name, said in zip(self.names, by_site, strict=True) if said and said != shapes]
        if other:
            raise DataError(
                f"inputs have other numbers of features at {', '.join(other)} than elsewhere", "compare the tables"
            )
        return known | {"standardize": (yield from pooled_scales(moments, shapes))}

    def _open(self, statistics: dict[str, Any]) -> Data:
        data = open_experiment_data(self.experiment, statistics)
        data.splits = {name: split for name, split in data.splits.items() if len(split)}
        return data

    def _checkpoints(self) -> CheckpointFolder:
        # Where checkpoints are written beside the training, sites may be two of them apart when they are killed.
        return CheckpointFolder(self.directory.checkpoints, keep=max(self.experiment.run.keep_last, 3), apart=True)

    def _build(self) -> Run:
        assert self.study.federation is not None
        experiment, history, folder = self.experiment, self.directory.history(), self._folder
        agreed = self._agreed
        membership = Membership(
            len(self.names), self.number, gather=False, minimum_cells=self.study.federation.minimum_cells,
            steps_per_epoch=agreed["steps_per_epoch"], batches=agreed.get("batches"), splits=tuple(agreed["splits"]),
        )  # fmt: skip
        run = build_run(
            experiment, self.data, path=self.directory.path,
            checkpoints=BackgroundCheckpoints(folder) if experiment.run.checkpoint_async else folder,
            history=history, observers=[*self.observers, *self._own_observers()], interruption=self.interruption,
            strategy=build_strategy(self.study), membership=membership,
        )  # fmt: skip
        run.failures_tolerated = max(0, len(self.names) - self.study.federation.cohort.minimum_sites)
        require_private(run, self.study)
        if self.study.federation.exact:
            require_exact(run)
        elif self.number == 0 and isinstance(run.state.strategy, dSGD) and (layers := normalises_over_batches(run)):
            logger.warning("%s %s; federation.exact would refuse it", ", ".join(layers[:3]), NORMALISES)
        return run

    def _own_observers(self) -> list[Observer]:
        """Those that `run.observers` names, but for those that the study has once."""
        namespace = self.experiment.namespace()
        named = [one for one in self.experiment.run.observers if not is_for_study(self.experiment, one)]
        found = [namespace.build(component, "observer") for component in named]
        require_observers(found)
        return found

    def _go_on(self, run: Run) -> Generator[Collective, Answer, bool]:
        """Go on from the newest boundary that all sites have saved; False where the study was killed before that."""
        folder = self._folder
        own = boundaries_in(folder)
        everybodys = yield from told_by_all(BOUNDARIES, list(own))
        common = set.intersection(*({tuple(one) for one in said} for said in everybodys))
        if common:
            run.state.load_state_dict(folder.load_at(own[max(common)]))
        elif all(everybodys):
            raise CheckpointError(
                "the sites have no saved state in common", "run the study again in a new directory, with --out"
            )
        self._resumes(run, resumed=bool(common))
        return bool(common)

    def _resumes(self, run: Run, *, resumed: bool = True) -> None:
        """What is written of later steps is given up."""
        assert run.history is not None
        run.resumed = resumed
        run.history.restore(run.state.history)
        self.directory.steps().truncate_after(run.state.position.step)


def _moment_of(run: Run) -> Moment:
    return run.state.position.epoch, run.state.position.step, int(run.state.sums.buffers_averaged)


def boundaries_in(folder: CheckpointFolder) -> dict[Moment, Boundary]:
    """Where a site's states were saved, by what is the same at all sites; batches are its own."""
    return {(boundary[0], *boundary[2:]): boundary for boundary in folder.boundaries()}


def site_experiment(study: Experiment, name: str) -> Experiment:
    """What a site trains, with its own seed."""
    assert study.federation is not None
    seed = site_seed(study.seed, name, study.federation.sites)
    run = study.run.model_copy(update={"progress": False})
    return study.at_site(name).model_copy(update={"name": f"{study.name} at {name}", "seed": seed, "run": run})
