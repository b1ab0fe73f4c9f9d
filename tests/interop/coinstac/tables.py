"""A small real table, the breast cancer data, at several sites, and code that a user would write for it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.nn import functional

from weft.engine import Participant, Together
from weft.interop.coinstac import COINNDataHandle, COINNDataset, COINNReducer, COINNTrainer
from weft.interop.coinstac.arguments import cached_arguments
from weft.interop.coinstac.parcels import TAG, Parcel, decode
from weft.interop.coinstac.reducing import reduced
from weft.interop.coinstac.running import SiteRun, UserCode

SIZES = {"local0": 40, "local1": 70, "local2": 25}


def write_site(folder: Path, start: int, size: int, classes: Sequence[int] = (0, 1)) -> None:
    """A file for each patient, with standardised features, and a table of labels."""
    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    rows = [row for row in range(len(labels)) if int(labels[row]) in classes][start : start + size]
    (folder / "data").mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        for row in rows:
            name = f"patient{row}.txt"
            (folder / "data" / name).write_text("\n".join(f"{value:.6f}" for value in features[row]))
            writer.writerow([name, int(labels[row])])


class Patients(COINNDataset):
    """As the README has it: an index entry for each file, with the site's name."""

    def __init__(self, **kw: Any) -> None:
        super().__init__(**kw)
        self.labels: dict[str, int] | None = None

    def load_index(self, id: str, file: str) -> None:  # type: ignore[override]
        if self.labels is None:
            table = self.path(id, "labels_file")
            with open(table, newline="") as handle:
                self.labels = {name: int(label) for name, label in csv.reader(handle)}
        self.indices.append([id, file])

    def __getitem__(self, ix: int) -> Any:
        id, file = self.indices[ix]
        assert self.labels is not None
        values = [float(line) for line in Path(self.path(id, "data_dir"), file).read_text().split()]
        return {"inputs": torch.tensor(values), "labels": self.labels[file]}


class Net(nn.Module):
    """Two layers."""

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(in_size, 16), nn.Linear(16, out_size)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits."""
        found: torch.Tensor = self.out(torch.relu(self.hidden(inputs)))
        return found


class Trainer(COINNTrainer):
    """As the README has it."""

    def _init_nn_model(self) -> None:
        self.nn["model"] = Net(in_size=self.cache["input_size"], out_size=self.cache["num_class"])

    def iteration(self, batch: Any) -> dict[str, Any]:
        inputs, labels = batch["inputs"].to(self.device["gpu"]).float(), batch["labels"].to(self.device["gpu"]).long()
        out = functional.log_softmax(self.nn["model"](inputs), 1)
        loss = functional.nll_loss(out, labels)
        _, predicted = torch.max(out, 1)
        score = self.new_metrics()
        score.add(predicted, labels)
        val = self.new_averages()
        val.add(loss.item(), len(inputs))
        return {"out": out, "loss": loss, "averages": val, "metrics": score, "prediction": predicted}


class Probable(Trainer):
    """Scores probabilities."""

    def iteration(self, batch: Any) -> dict[str, Any]:
        logits = self.nn["model"](batch["inputs"])
        loss = functional.cross_entropy(logits, batch["labels"])
        score, averages = self.new_metrics(), self.new_averages()
        score.add(torch.softmax(logits, 1)[:, 1], batch["labels"])
        averages.add(loss.item(), len(logits))
        return {"loss": loss, "averages": averages, "metrics": score}


SPEC = {
    "task_id": "tumours", "mode": "train", "data_dir": "data", "labels_file": "labels.csv", "input_size": 30,
    "num_class": 2, "batch_size": 8, "epochs": 3, "learning_rate": 0.01, "split_ratio": [0.6, 0.2, 0.2],
}  # fmt: skip


def write_sites(folder: Path, sizes: Mapping[str, int] | None = None) -> None:
    """The data of all sites, one after the other."""
    start = 0
    for name, size in (SIZES if sizes is None else sizes).items():
        write_site(folder / name / "in", start, size)
        start += size


def site_run(
    folder: Path, name: str, sites: Sequence[str] = tuple(SIZES), *, code: UserCode | None = None, fold: str = "0",
    own: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None, **spec: Any,
) -> SiteRun:  # fmt: skip
    """A site's run of one fold, in `folder`."""
    code = code if code is not None else UserCode(Trainer, Patients)
    places = {place: folder / name / short for place, short in
              (("baseDirectory", "in"), ("outputDirectory", "out"), ("transferDirectory", "transfer"))}  # fmt: skip
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    state = {**{key: str(place) for key, place in places.items()}, "clientId": name}
    cache = cached_arguments(own or {}, {**SPEC, **spec})
    handle: COINNDataHandle = code.data_handle(cache=cache, input={}, state=state)
    handle.prepare_data()
    cache.update(split_ix=fold, split_file=cache["splits"][fold])
    return SiteRun(code, cache=cache, input={}, state=state, site=name, sites=sites, **(options or {}))


def train(runs: Sequence[SiteRun]) -> dict[str, Any]:
    """Drive the runs together; each one's report."""
    Together([run.participant() for run in runs]).run()
    return {run.site: run.report() for run in runs}


class Remote(Together):
    """Drives sites, and answers what is to be reduced as the remote does."""

    def __init__(self, participants: list[Participant], reducer: type[COINNReducer], trainer: Any) -> None:
        super().__init__(participants)
        self.reducer, self.trainer = reducer, trainer
        self.asked: list[list[Parcel]] = []

    def reply(self) -> bool:
        """See `Together`."""
        names = [one.name for one in self.participants]
        entries = [self.waiting[name] for name in names]
        if not entries[0].id.tag.startswith(TAG):
            return super().reply()
        self.asked.append([decode(entry.asked.tensors)[0] for entry in entries])
        answer = reduced(self.reducer, self.trainer, names, [entry.asked for entry in entries])
        for participant, entry in zip(self.participants, entries, strict=True):
            participant.answer(entry, answer)
        return True


def remote_trainer(run: SiteRun) -> Trainer:
    """The trainer that the remote has: no data, no folders of a site."""
    handle = COINNDataHandle(cache=dict(run.cache), input={}, state={"clientId": "remote"})
    return Trainer(data_handle=handle)


def train_with(runs: Sequence[SiteRun], reducer: type[COINNReducer]) -> Remote:
    remote = Remote([run.participant() for run in runs], reducer, remote_trainer(runs[0]))
    remote.run()
    return remote


def to_the_end(
    together: Together, runs: dict[str, SiteRun], made: Callable[[str], SiteRun], deaths: Sequence[int]
) -> int:
    """Drive sites to their end; the number of turns.

    Args:
        together: drives them.
        runs: by name; the new ones of `local1` take the place of those that died.
        made: makes a site's run anew, as a new process would: nothing is left but the folder and the journal.
        deaths: turns after which `local1` dies.
    """
    turns = 0
    while together.turn():
        turns += 1
        if turns in deaths:
            place = next(number for number, one in enumerate(together.participants) if one.name == "local1")
            dead = together.participants[place]
            dead.die()
            runs["local1"] = made("local1")
            again = runs["local1"].participant()
            again.journal = dead.journal
            together.participants[place] = again
            together.restart("local1")
    return turns


def alive_and_revived(folder: Path, code: UserCode, deaths: Sequence[int], **arguments: Any) -> list[SiteRun]:
    """`local1` at its end, in a computation where nobody dies and in one where it does.

    Args:
        folder: of the sites' data.
        code: the user's classes.
        deaths: turns after which it dies.
        arguments: of all sites.
    """
    found = []
    for turns in ((), deaths):
        kept = folder / f"deaths{len(turns)}"

        def made(name: str, kept: Path = kept) -> SiteRun:
            return site_run(folder, name, code=code, options={"folder": kept / name, "every_step": True}, **arguments)

        runs = {name: made(name) for name in SIZES}
        to_the_end(Together([run.participant() for run in runs.values()]), runs, made, turns)
        found.append(runs["local1"])
    return found
