"""A site's part in the training of one fold: from a user's classes and a site's arguments to a run of Weft's engine.

The run is the generator that every run is. Whoever drives it (in this process, or from call to call) finds here what a
driver needs: the generator, where it is, and the state of its random generators.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from weft.config import Experiment, PretrainingConfig
from weft.data import Data
from weft.engine import CheckpointFolder, Collective, Membership, Participant, Run, RunResult, build_run, training
from weft.engine.checkpoint_memory import CheckpointMemory
from weft.engine.collectives import Answer
from weft.engine.drivers import Steps
from weft.engine.loaders import batches_of_epoch
from weft.engine.loop import scoring
from weft.engine.seeding import outer_randomness_kept, participant_seed, random_state, seed_everything
from weft.engine.state import Position
from weft.engine.weights import save_weights
from weft.errors import ConfigError, DataError
from weft.federated.agreeing import same_weights, site_seed, told_by_all
from weft.federated.choosing import normalises_over_batches
from weft.federated.pretraining import train_alone
from weft.federated.traffic import counted, summary
from weft.interop.coinstac.alone import AloneTask, steps_itself
from weft.interop.coinstac.arguments import Arguments, pretraining
from weft.interop.coinstac.config.keys import Mode
from weft.interop.coinstac.dataset import COINNDataset
from weft.interop.coinstac.devices import device_of, gpus_of, words_of
from weft.interop.coinstac.experiment import (
    SHARED,
    WITHOUT,
    as_experiment,
    made_of,
    require_alike,
    settle_monitor,
    told,
)
from weft.interop.coinstac.handle import COINNDataHandle, require_plain_loading
from weft.interop.coinstac.headers import header_of, labels_of
from weft.interop.coinstac.items import SPLITS, split_data
from weft.interop.coinstac.learner import COINNLearner
from weft.interop.coinstac.loading import Loading, loading_of, require_shares
from weft.interop.coinstac.overrides import only_alone, require_trainer
from weft.interop.coinstac.reducing import InProcess
from weft.interop.coinstac.scores import COINNScores
from weft.interop.coinstac.strategies import LearnerStrategy, TrainingScores, build_strategy, require_together
from weft.interop.coinstac.task import COINNTask, own_copy
from weft.interop.coinstac.telling import Screen
from weft.interop.coinstac.trainer import COINNTrainer
from weft.interop.usercode import called
from weft.runs.files import write_atomically

_AGREED = "agreed.json"


@dataclass(frozen=True, slots=True)
class UserCode:
    """The classes that a user hands to a node.

    Args:
        trainer: what a batch means.
        dataset: the items; None where `dataloader_args` bring datasets.
        data_handle: which files there are.
        learner: what a site does in a step; Weft's own steps, where it is not a user's.
    """

    trainer: type[COINNTrainer]
    dataset: type[COINNDataset] | None = None
    data_handle: type[COINNDataHandle] = COINNDataHandle
    learner: type[COINNLearner] = COINNLearner


class SiteRun:
    """One site's part in one fold. Nothing of it is shared with another site's, also in one process.

    Args:
        code: the user's classes.
        cache: the site's arguments (`cached_arguments`), with "split_dir" and "split_file" of the fold. The trainer has
            a copy, and what it writes there belongs to the saved state.
        input, state: what COINSTAC says.
        site: its name.
        sites: the names of all.
        folder: of this fold, for checkpoints; None keeps them in memory. Where it holds a state, the run goes on from
            there, and nothing of the opening is asked again.
        every_step: a state is saved at every step, for hosts that start a process for each call.
        reduced: the remote has a reducer of the user's.
        alone: there is no remote, and the trainer's methods for training alone are called.
        dataloader_args, pretrain_args: as `COINNLocal` has them; those of the cache come first.

    Attributes:
        run: once it is built.
        trainer: the user's trainer; its networks have the weights that were scored, in the end.
        screen: what it tells.
        on_saved: called after each save.
    """

    def __init__(
        self,
        code: UserCode,
        *,
        cache: dict[str, Any],
        input: Mapping[str, Any],
        state: Mapping[str, Any],
        site: str,
        sites: Sequence[str],
        folder: Path | None = None,
        every_step: bool = False,
        reduced: bool = False,
        alone: bool = False,
        dataloader_args: Mapping[str, Any] | None = None,
        pretrain_args: Mapping[str, Any] | None = None,
    ) -> None:
        require_plain_loading(code.data_handle)
        self.code, self.cache, self.input, self.state = code, own_copy(cache), input, state
        self.site, self.sites, self.folder, self.every_step = site, sorted(sites), folder, every_step
        self.dataloader_args = dict(dataloader_args or {})
        self.pretrain_args = pretraining(cache.get("pretrain_args") or pretrain_args or None)
        trains = cache["mode"] == Mode.TRAIN
        self.pretrain_epochs = int(self.pretrain_args["epochs"]) if trains else 0
        self.alone = alone
        require_trainer(code.trainer, alone=alone or self.pretrain_epochs > 0)
        self.own_learner = reduced or (
            code.learner is not COINNLearner and cache["agg_engine"] not in ("powerSGD", "rankDAD")
        )
        self.number = self.sites.index(site)
        self.seed = site_seed(int(cache.get("seed") or 0), site, self.sites)
        self.gpus = gpus_of(cache, site)
        self.screen = Screen(site, verbose=bool(cache.get("verbose")))
        self.on_saved: Callable[[], None] = lambda: None
        self.run: Run | None = None
        self.counts: dict[str, int] = {}
        self.loading: dict[str, Loading] = {}
        self._task: COINNTask | None = None
        self._pretrained: dict[str, torch.Tensor] | None = None
        self._store = CheckpointFolder(folder / "checkpoints", keep=3) if folder is not None else CheckpointMemory()
        self.agreed: dict[str, Any] | None = None
        self.handle, self.trainer = self._made(self.cache)

    def _made(self, cache: dict[str, Any]) -> tuple[COINNDataHandle, COINNTrainer]:
        code = self.code
        handle = called(
            code.data_handle, code.data_handle.__name__, code.data_handle,
            cache=cache, input=self.input, state=self.state, dataloader_args=self.dataloader_args,
        )  # fmt: skip
        trainer = called(code.trainer, code.trainer.__name__, code.trainer, data_handle=handle)
        trainer.device["gpu"] = device_of(self.gpus)
        settle_monitor(trainer)
        return handle, trainer

    # --- what drivers need --------------------------------------------------------------------------------------------

    def position(self) -> Position:
        """Where it is."""
        return self.run.state.position if self.run is not None else Position()

    def first_randomness(self) -> dict[str, Any]:
        """The state of the random generators that it begins with."""
        with outer_randomness_kept():
            seed_everything(participant_seed(self.seed, 0))
            return random_state()

    def participant(self) -> Participant:
        """This site for a driver in this process."""
        made = Participant(self.site, self.steps, self.position, self.first_randomness())
        self.on_saved = made.saved
        return made

    def steps(self) -> Steps:
        """Everything that it does."""
        state = self._store.load_last()
        data, experiment = self._opened()
        if state is None:
            words = [words_of(self.cache, self.gpus), *(text for one in self.loading.values() for text in one.unused)]
            if len(self.pretrain_args) > 1 and not self.pretrain_epochs and self.cache["mode"] == Mode.TRAIN:
                words.append("pretrain_args says nothing of epochs, or 0: no site trains beforehand")
            for text in filter(None, words):
                self.screen.warn(text)
            self._tell_uncalled()
            self.agreed = yield from counted(self._agree(data, experiment), self.counts, "opening")
        else:
            self.agreed = self._read_agreed()
        run = self._build(data, experiment, self.agreed)
        if state is None:
            yield from counted(self._begin_alike(run, data), self.counts, "opening")
            run.state.beside.update(self.counts)
            run.save()  # nothing of the opening is done again
        else:
            run.state.load_state_dict(state)
            run.resumed = True
        steps = training(run) if self.cache["mode"] == Mode.TRAIN else scoring(run)
        result: RunResult = yield from counted(steps, run.state.beside)
        return result

    def close(self) -> None:
        """Release what the run holds."""
        if self.run is not None:
            self.run.close()

    # --- opening ------------------------------------------------------------------------------------------------------

    def _opened(self) -> tuple[Data, Experiment]:
        """The data of this fold, as far as this site has some, and the experiment that the arguments say."""
        handle, dataset = self.handle, self.code.dataset
        getters = {
            "train": handle.get_train_dataset,
            "validation": handle.get_validation_dataset,
            "test": handle.get_test_dataset,
        }
        names = SPLITS if self.cache["mode"] == Mode.TRAIN else ("test",)
        found = {}
        self.loading = {}
        for name in names:
            made = called(handle, f"the {name} dataset", getters[name], dataset)
            self.loading[name] = loading_of(handle, name, made)
            split = split_data(name, self.loading[name])
            if split is not None:
                found[name] = split
        return Data(found), as_experiment(
            self.cache, handle, found, self.loading, seed=self.seed, every_step=self.every_step,
            own_learner=self.own_learner, own_iteration=self.alone and steps_itself(self.trainer),
        )  # fmt: skip

    def _tell_uncalled(self) -> None:
        """Tell of methods that are called in pretraining only, as in the original."""
        names = [] if self.alone or self.pretrain_epochs else only_alone(self.code.trainer)
        if names:
            self.screen.warn(
                f"{', '.join(names)} of {self.code.trainer.__name__} is not called: that is for pretraining "
                "(pretrain_args) and SiteRunner; `iteration` is what sites train together with"
            )

    def _agree(self, data: Data, experiment: Experiment) -> Generator[Collective, Answer, dict[str, Any]]:
        """What all must know of one another; arguments that must be alike are."""
        own = {
            "arguments": {name: told(self.cache.get(name)) for name in SHARED},
            "splits": list(data.splits),
            "batches": batches_of_epoch(experiment, data),
            "items": len(data.splits["train"]) if "train" in data.splits else 0,
            "pretrained": bool(self.cache.get("pretrained_path")),
            "pretrain": self.pretrain_epochs,
        }
        everyone = yield from told_by_all("splits", own)
        require_alike(self.sites, [said["arguments"] for said in everyone])
        trains = self.cache["mode"] == Mode.TRAIN
        if trains and not any(said["batches"] for said in everyone):
            raise DataError(
                "no site has anything to train on", "look at data_dir, split_ratio and split_dir of the sites"
            )
        if not trains and not any("test" in said["splits"] for said in everyone):
            raise DataError("no site has anything to test", "look at data_dir and split_dir of the sites")
        for name, words in WITHOUT.items() if trains and self.number == 0 else ():
            if not any(name in said["splits"] for said in everyone):
                self.screen.warn(words)
        givers = [number for number, said in enumerate(everyone) if said["pretrained"]]
        if not trains and not givers:
            raise ConfigError("mode is test, but no site has a pretrained_path", "name the file of the weights")
        largest = max(range(len(everyone)), key=lambda number: (everyone[number]["items"], -number))
        steps = -(-max(said["batches"] for said in everyone) // experiment.training.accumulate)
        agreed = {
            "splits": sorted({name for said in everyone for name in said["splits"]}),
            "steps_per_epoch": steps,
            "giver": givers[0] if givers else 0,
            "pretrains": largest if any(said["pretrain"] for said in everyone) else None,
        }
        if self.folder is not None:
            write_atomically(self.folder / _AGREED, json.dumps(agreed).encode())
        return agreed

    def _read_agreed(self) -> dict[str, Any]:
        if self.agreed is not None:
            return self.agreed
        assert self.folder is not None
        found: dict[str, Any] = json.loads((self.folder / _AGREED).read_text())
        return found

    def _begin_alike(self, run: Run, data: Data) -> Generator[Collective, Answer, None]:
        """All begin with the weights of one site: by default the first one's, or those of the largest, pretrained."""
        assert self.agreed is not None
        yield from same_weights(run, self.agreed["giver"])
        pretrains = self.agreed["pretrains"]
        if pretrains is not None:
            if pretrains == self.number:
                self._take_pretrained(run, data)
            yield from same_weights(run, pretrains)

    def _take_pretrained(self, run: Run, data: Data) -> None:
        """The weights after training alone, with the arguments of `pretrain_args`; a later call finds them again."""
        file = None if self.folder is None else self.folder / "pretrained.safetensors"
        if self._pretrained is None and file is not None and file.exists():
            self._pretrained = load_file(file)
        if self._pretrained is not None:
            run.state.model.load_state_dict(self._pretrained)
            return
        cache = Arguments({**self.cache, **self.pretrain_args, "gpus": self.cache["gpus"]})
        handle, trainer = self._made(cache)
        experiment = as_experiment(
            cache,
            handle,
            data.splits,
            self.loading,
            seed=self.seed,
            every_step=False,
            own_iteration=steps_itself(trainer),
        )
        task = AloneTask(trainer, batches_of_epoch(experiment, data))
        task.gpus, task.screen = self.gpus, self.screen
        alone = experiment.model_copy(update=made_of(experiment, trainer, task))
        train_alone(run, alone, data, PretrainingConfig(epochs=cache["epochs"]))
        self._pretrained = {name: value.detach().cpu().clone() for name, value in run.state.model.state_dict().items()}
        if file is not None:
            save_weights(self._pretrained, file)

    # --- building -----------------------------------------------------------------------------------------------------

    def _build(self, data: Data, experiment: Experiment, agreed: dict[str, Any]) -> Run:
        trainer = self.trainer
        learner: COINNLearner | None = None
        if self.own_learner:
            kind = self.code.learner
            learner = called(kind, kind.__name__, kind, trainer=trainer, mp_pool=InProcess())
            require_shares(self.loading, trainer)
        batches = batches_of_epoch(experiment, data)
        self._task = task = AloneTask(trainer, batches) if self.alone else COINNTask(trainer, learner)
        task.items = {name: split.dataset for name, split in data.splits.items()}
        task.gpus, task.screen = self.gpus, self.screen
        strategy = LearnerStrategy(learner, task) if learner is not None else build_strategy(self.cache)
        require_together(strategy, self.gpus)
        membership = Membership(
            len(self.sites), self.number, gather=False, steps_per_epoch=agreed["steps_per_epoch"],
            splits=tuple(agreed["splits"]),
        )  # fmt: skip
        self.run = task.run = build_run(
            experiment.model_copy(update=made_of(experiment, trainer, task)), data, path=self.folder,
            checkpoints=self._store, strategy=TrainingScores(strategy, task), membership=membership,
        )  # fmt: skip
        self.run.on_saved = lambda: self.on_saved()
        if self.number == 0 and learner is None and (layers := normalises_over_batches(self.run)):
            words = "trained with statistics of the batches of each site, not of all together"
            self.screen.warn(f"{', '.join(layers[:3])}: {words}")
        return self.run

    # --- what is told afterwards --------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Logs and scores of all sites together so far, for JSON. Scores are in the order of the log's header."""
        assert self.run is not None
        assert self._task is not None
        state, labels = self.run.state, labels_of(self.trainer)
        history = [
            [row[f"validation_{name}"] for name in labels] for row in state.history if f"validation_{labels[0]}" in row
        ]
        found: dict[str, Any] = {
            "log_header": header_of(self.trainer),
            "train_log": [line for _, line in sorted(self._task.lines.items())],
            "validation_log": history,
            "best_val_epoch": None if state.best.epoch is None else state.best.epoch + 1,
            "best_val_score": state.best.value,
            "traffic": summary(state.beside),
        }
        if "test" in self.run.final:
            book = self.run.splits["test"].book
            assert isinstance(book, COINNScores)
            found |= {"test_metrics": book.line(), "test_sums": book.told()}
        return found

    @contextmanager
    def latest_weights(self) -> Iterator[None]:
        """The trainer's networks have the weights of the last epoch meanwhile, where it has trained."""
        assert self.run is not None
        model, last = self.run.state.model, self._store.load_last()
        if last is None or self.cache["mode"] != Mode.TRAIN:
            yield
            return
        scored = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(last["model"])
        try:
            yield
        finally:
            model.load_state_dict(scored)


def names_of_states(cache: Mapping[str, Any], fold: str) -> dict[str, str]:
    """Files of a fold's weights, by the names that users look them up under."""
    return {f"{which}_nn_state": f"{which}.{cache['task_id']}-{fold}.pt" for which in ("best", "latest")}
