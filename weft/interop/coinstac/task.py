"""What a batch means: the trainer's `iteration`."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from weft.data import Batch
from weft.engine.run import Run
from weft.errors import DataError, UsageError
from weft.interop.coinstac.arguments import Arguments
from weft.interop.coinstac.collected import one_loss
from weft.interop.coinstac.devices import spread
from weft.interop.coinstac.headers import labels_of
from weft.interop.coinstac.items import SPLITS, SiteItems
from weft.interop.coinstac.keeping import kept, own_attributes, restored, storages
from weft.interop.coinstac.learner import COINNLearner
from weft.interop.coinstac.metrics import COINNMetrics
from weft.interop.coinstac.networks import joint_optimizer
from weft.interop.coinstac.overrides import is_overridden
from weft.interop.coinstac.scores import COINNScores, Pooled, pooled_metrics
from weft.interop.coinstac.telling import Screen, scores_in_words
from weft.interop.coinstac.trainer import COINNTrainer
from weft.interop.usercode import called, file_of
from weft.metrics import ScoreBook
from weft.tasks import Evaluation, Task, Update

_TOO_FEW = "Expected more than 1 value per channel"  # as torch says it


class COINNTask(Task):
    """Losses and scores of a trainer.

    Args:
        trainer: the site's.
        learner: the user's own, None where Weft's steps are taken.

    Attributes:
        sent: what the learner wants reduced in this step.
        training: averages and scores of the batches of the running epoch.
        epoch: which epoch that is, from 0.
        lines: log lines of training, by epoch.
        items: of the splits, by name.
        run: that it belongs to.
        gpus: numbers of the GPUs that batches are divided among, where there are several.
        screen: what is told.
        scored: the split that was scored last.
    """

    target_kind = "number"

    def __init__(self, trainer: COINNTrainer, learner: COINNLearner | None = None) -> None:
        super().__init__()
        self.trainer, self.learner = trainer, learner
        self.sent: dict[str, Any] = {}
        self.training = Pooled(trainer.new_averages, "new_averages"), pooled_metrics(trainer)
        self.epoch, self.number = 0, 0
        self.lines: dict[int, list[float]] = {}
        self.items: dict[str, SiteItems] = {}
        self.run: Run | None = None
        self.gpus: Sequence[int] = ()
        self.screen = Screen(self.site, verbose=False)
        self.scored = "test"
        self._given = own_copy(trainer.cache)
        self._told_of_one = False
        self._waiting: tuple[int, list[dict[str, Any]]] | None = None  # iterations of a file that is not complete
        self.steps_itself = learner is not None  # the optimizer's steps are the user's
        self._window = 1 if learner is not None else max(int(trainer.cache.get("local_iterations") or 1), 1)
        self._reduces = learner is None and is_overridden(trainer, COINNTrainer, "reduce_iteration")
        self._listens = self._reduces or is_overridden(trainer, COINNTrainer, "on_iteration_end")
        self._its: list[dict[str, Any]] = []  # iterations of a step that is not complete

    @property
    def site(self) -> str:
        """The name of the site."""
        return str(self.trainer.state.get("clientId", "local0"))

    def optimizer(self, network: str) -> Optimizer:
        """The trainer's, as one; from here on its networks divide their batches among the site's GPUs."""
        made = joint_optimizer(self.trainer, None if self.learner is None else self._learners_step)
        spread(self.trainer.nn, self.gpus)
        return made

    def _learners_step(self) -> None:
        """The step of the user's learner, where the reducer says that there is one."""
        if self.learner is not None and self.learner.input.get("update"):
            called(self.learner, "step", self.learner.step)

    def training_step(self, model: nn.Module, batch: Batch) -> Iterable[Update]:
        """One update, of the loss that `iteration` returns; or what the user's learner does."""
        self.begin_epoch()
        self.number += 1
        try:
            it = self._trained(batch)
        except DataError as error:
            if batch.size > 1 or _TOO_FEW not in str(error.__cause__):
                raise
            left_out = self._left_out()
            self._end_step(due=self._is_last())
            return (left_out,)
        loss = it["loss"]
        if self.steps_itself:
            loss = loss.detach().clone().requires_grad_()
        averages, metrics = self._scores(it, batch)
        if self._listens:
            self._its.append({**it, "loss": it["loss"].detach(), "averages": averages, "metrics": metrics})
            self._end_step(due=self._is_last())
        else:
            self._note(averages, metrics)
        return (Update(loss, float(batch.size)),)

    def batches_of_epoch(self) -> int:
        """How many batches of training there are in an epoch."""
        return self.run.batches if self.run is not None else 0

    def _is_last(self) -> bool:
        """Whether the batch is the last one of its step."""
        return self.number % self._window == 0 or self.number == self.batches_of_epoch()

    def _end_step(self, *, due: bool = True) -> None:
        """Put together what the batches of a step gave, and tell the trainer of it."""
        if not due or not self._its:
            return
        trainer, its = self.trainer, self._its
        self._its, it = [], its[0]
        if self._reduces or len(its) > 1:
            it = called(trainer, "reduce_iteration", trainer.reduce_iteration, its)
        scores = [it.get(key) for key in ("averages", "metrics")] if isinstance(it, dict) else [None]
        if not all(isinstance(one, COINNMetrics) for one in scores):
            raise DataError(
                f"{file_of(trainer)}: {type(trainer).__name__}.reduce_iteration returned no averages and metrics",
                "return a dict that has both, as super().reduce_iteration(its) does",
            )
        self._note(*scores)
        step = -(-self.number // self._window)
        said = called(trainer, "on_iteration_end", trainer.on_iteration_end, step, self.epoch + 1, it)
        if self.learner is not None and isinstance(said, dict):
            self.sent = {**self.sent, **said}

    def _trained(self, batch: Batch) -> dict[str, Any]:
        """What comes of a batch of training."""
        return self._iteration(batch) if self.learner is None else self._learned(batch)

    def _note(self, averages: Any, metrics: Any) -> None:
        """Keep scores of training."""
        for pooled, added in zip(self.training, (averages, metrics), strict=True):
            pooled.add(added, keep=True)

    def _left_out(self) -> Update:
        """A batch of one item, which is too few to normalise over, counts nothing; the next epoch has another order."""
        if not self._told_of_one:
            self._told_of_one = True
            self.screen.warn(
                "a last batch of one item is too small for batch normalisation and is left out; "
                "dataloader_args {'train': {'drop_last': true}} leaves out every batch that is not full"
            )
        self.sent = {}
        return Update(torch.zeros((), requires_grad=True), 0.0)

    def _learned(self, batch: Batch) -> dict[str, Any]:
        learner = self.learner
        assert learner is not None
        parts = shares(batch.inputs, batch.size, int(self.trainer.cache.get("local_iterations", 1)))
        self.trainer.data_handle.begin_step(parts)
        found = called(learner, "to_reduce", learner.to_reduce)
        if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, dict) for part in found)):
            raise DataError(
                f"{file_of(learner)}: {type(learner).__name__}.to_reduce returned a {type(found).__name__}",
                "return two dicts: the iteration, and what is sent",
            )
        it: dict[str, Any] = found[0]
        self.sent = found[1]
        if "loss" in it:
            it["loss"] = one_loss(it["loss"])
        self._require_loss(it)
        return it

    def _iteration(self, batch: Batch) -> dict[str, Any]:
        trainer = self.trainer
        it: dict[str, Any] = called(trainer, "iteration", trainer.iteration, batch.inputs)
        self._require_loss(it)
        return it

    def _require_loss(self, it: Any, name: str = "iteration") -> None:
        hint = "return {'loss': loss, 'averages': averages, 'metrics': metrics, …}; the loss is the mean over the batch"
        where = f"{file_of(self.trainer)}: {type(self.trainer).__name__}.{name} returned"
        if not isinstance(it, dict) or "loss" not in it:
            keys = f"a dict with {', '.join(map(str, it)) or 'nothing'}" if isinstance(it, dict) else type(it).__name__
            raise DataError(f"{where} no loss: {keys}", hint)
        loss = it["loss"]
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise DataError(f"{where} a loss of {found}, not one number as a tensor", hint)
        it["loss"] = loss.reshape(())
        if not isinstance(it.get("metrics"), COINNMetrics):
            raise DataError(f"{where} no metrics: {type(it.get('metrics')).__name__}", hint)

    def _scores(self, it: dict[str, Any], batch: Batch) -> tuple[Any, Any]:
        averages = it.get("averages")
        if averages is None:
            averages = self.trainer.new_averages()
            averages.add(float(it["loss"].detach()), batch.size)
        return averages, it["metrics"]

    # --- scoring ------------------------------------------------------------------------------------------------------

    def evaluation_step(self, model: nn.Module, batch: Batch) -> Evaluation:
        """Averages and scores of a batch; of test items, also what `save_predictions` says."""
        self._end_step()
        split = self.scored = SPLITS[int(batch.targets[0, 0])]
        if split != "test":
            it = self._iteration(batch)
            found = [self._scores(it, batch)]
            return Evaluation(batch.index, found, it["loss"].detach(), float(batch.size))
        found, losses = [], []
        for number, rows in files_of(batch.targets[:, 1]):
            inputs = batch.inputs if len(rows) == batch.size else taken(batch.inputs, rows)
            part = Batch(inputs, batch.targets[rows], batch.index[rows], len(rows))
            it = self._iteration(part)
            losses.append((it["loss"].detach(), len(rows)))
            found += self._tested(number, it, part)
        total = sum(size for _, size in losses)
        loss = torch.stack([value * (size / total) for value, size in losses]).sum()
        return Evaluation(batch.index, found, loss, float(batch.size))

    def _tested(self, number: int, it: dict[str, Any], part: Batch) -> list[tuple[Any, Any]]:
        it["averages"], it["metrics"] = self._scores(it, part)
        if not self.trainer.cache.get("load_sparse"):
            return [self._saved(number, it)]
        done = self.flush() if self._waiting is not None and self._waiting[0] != number else []
        if self._waiting is None:
            self._waiting = number, []
        self._waiting[1].append(it)
        return done

    def flush(self) -> list[tuple[Any, Any]]:
        """The scores of the file that was waited for, once it is complete."""
        if self._waiting is None:
            return []
        (number, its), self._waiting = self._waiting, None
        return [self._saved(number, called(self.trainer, "reduce_iteration", self.trainer.reduce_iteration, its))]

    def _saved(self, number: int, it: dict[str, Any]) -> tuple[Any, Any]:
        dataset = self.items["test"].datasets[number]
        said = called(self.trainer, "save_predictions", self.trainer.save_predictions, dataset, it)
        said = said if isinstance(said, dict) else {}
        return said.get("averages", it["averages"]), said.get("metrics", it["metrics"])

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Any, Tensor | None]:
        """What the networks give is the trainer's affair alone.

        Raises:
            UsageError: always.
        """
        raise UsageError("a trainer of coinstac-dinunet has no outputs to show", "write them in save_predictions")

    def build_scores(self, metrics: Sequence[Any] | None, *, gather: bool = True) -> ScoreBook:
        """The trainer's; the experiment cannot name others."""
        book = COINNScores(self.trainer)
        book.flush = lambda: book.take(self.flush())
        if self.screen.verbose:
            book.show = lambda text: self.screen.show(f"{self._place()}{self.scored}{text}")
        return book

    def _place(self) -> str:
        """Which epoch it is, for lines that are shown."""
        if self.run is not None and len(self.run.state.history) > self.epoch:
            return "" if self.scored == "test" else "best epoch, "
        return "" if self.scored == "test" else f"epoch {self.epoch + 1}/{self.trainer.cache['epochs']}, "

    # --- what is kept -------------------------------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """Forget the scores of the epoch before, where another one has begun."""
        epoch = self.running_epoch()
        if epoch != self.epoch:
            self._end_step()
            self.epoch, self.number = epoch, 0
            for pooled in self.training:
                pooled.reset()

    def running_epoch(self) -> int:
        """Which epoch is trained, from 0."""
        return self.run.state.position.epoch if self.run is not None else 0

    def note_training(self, averages: Sequence[Tensor], metrics: Sequence[Tensor], told: Sequence[Any]) -> None:
        """The log line of the epoch so far, from the sums and words of all sites."""
        line: list[float] = []
        for pooled, sums, name in zip(self.training, (averages, metrics), ("averages", "metrics"), strict=True):
            if pooled.names is not None:
                made = pooled.filled(sums)
            else:
                made = pooled.make()
                every = [entry for said in told for entry in said[name]]
                called(made, "reduce_sites", made.reduce_sites, every)
            line += [float(score) for score in called(made, "get", made.get)]
        self.lines[self.epoch] = line
        if self.screen.verbose:
            words = scores_in_words(labels_of(self.trainer), line)
            self.screen.show(f"epoch {self.epoch + 1}/{self.trainer.cache['epochs']}, training of all sites: {words}")

    def state_dict(self) -> dict[str, Any]:
        """Scores of the running epoch, log lines, and what the user's code remembers in cache and attributes."""
        self._end_step()
        others = storages([*self.trainer.nn.values()])
        return {
            "epoch": self.epoch,
            "number": self.number,
            "sums": [pooled.kept() for pooled in self.training],
            "told": json.dumps([pooled.told for pooled in self.training]),
            "lines": json.dumps(self.lines),
            "cache": kept(self._written(), others),
            "trainer": kept(own_attributes(self.trainer), others),
            "learner": {} if self.learner is None else kept(own_attributes(self.learner), others),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.epoch, self.number = state["epoch"], state["number"]
        for pooled, sums, told in zip(self.training, state["sums"], json.loads(state["told"]), strict=True):
            pooled.own, pooled.told = pooled.filled(sums), told
        self.lines = {int(epoch): line for epoch, line in json.loads(state["lines"]).items()}
        device = self.trainer.device["gpu"]
        written = restored(state["cache"], device)
        self.trainer.cache.update(written)
        vars(self.trainer).update(restored(state["trainer"], device))
        if self.learner is not None:
            vars(self.learner).update(restored(state["learner"], device))
        for key in written:  # it stays different from what the site was told
            self._given.pop(key, None)

    def _written(self) -> dict[str, Any]:
        """Entries of the cache that are new or changed."""
        return {key: value for key, value in self.trainer.cache.items() if not self._is_given(key, value)}

    def _is_given(self, key: str, value: Any) -> bool:
        """Whether an entry of the cache is what the site was told."""
        if key not in self._given:
            return False
        given = self._given[key]
        try:
            return value is given or json.dumps({key: value}) == json.dumps({key: given})
        except (TypeError, ValueError):  # it is no JSON, and another object
            return False


def own_copy(cache: Mapping[str, Any]) -> Arguments:
    """A cache whose lists and dicts can be changed without changing those of another."""
    items = cache.items()
    return Arguments({key: copy.deepcopy(value) if isinstance(value, list | dict) else value for key, value in items})


def files_of(numbers: Tensor) -> list[tuple[int, list[int]]]:
    """Runs of equal numbers, with their rows."""
    found: list[tuple[int, list[int]]] = []
    for row, number in enumerate(numbers.tolist()):
        if not found or found[-1][0] != number:
            found.append((number, []))
        found[-1][1].append(row)
    return found


def taken(value: Any, rows: Sequence[int]) -> Any:
    """Some items of a batch: of tensors and lists those rows, inside dicts and tuples too."""
    if isinstance(value, Tensor):
        return value[list(rows)]
    if isinstance(value, dict):
        return {key: taken(part, rows) for key, part in value.items()}
    if isinstance(value, tuple) or (isinstance(value, list) and value and isinstance(value[0], Tensor)):
        return type(value)(taken(part, rows) for part in value)
    return [value[row] for row in rows] if isinstance(value, list) else value


def shares(batch: Any, size: int, count: int) -> list[Any]:
    """A batch in so many parts of about equal size; fewer where it has fewer items."""
    count = max(min(count, size), 1)
    if count == 1:
        return [batch]
    cuts = [size * place // count for place in range(count + 1)]
    return [taken(batch, range(start, stop)) for start, stop in pairwise(cuts)]
