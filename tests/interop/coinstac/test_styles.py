"""Ways in which computations for coinstac-dinunet are written, in its several releases."""

from __future__ import annotations

import json
import time
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tests.interop.coinstac.tables import (
    SIZES,
    SPEC,
    Net,
    Patients,
    Trainer,
    site_run,
    train,
    train_with,
    write_site,
    write_sites,
)
from weft.errors import UsageError
from weft.interop.coinstac import COINNDataHandle, COINNDataset, COINNReducer, io
from weft.interop.coinstac.arguments import cached_arguments
from weft.interop.coinstac.datautils import init_k_folds
from weft.interop.coinstac.experiment import without_single
from weft.interop.coinstac.metrics import Prf1a
from weft.interop.coinstac.running import UserCode
from weft.interop.coinstac.site_runner import SiteRunner
from weft.interop.coinstac.utils import duration


class Computation(str, Enum):  # noqa: UP042 - as users write it
    """Tasks of a user."""

    TUMOURS = "Tumour-Classification"
    ENGINE = "powerSGD"


class Windows(COINNDataset):
    """Keeps its data, which all items share, from the first file on; sets arguments that nobody gave."""

    def __init__(self, **kw: Any) -> None:
        super().__init__(**kw)
        self.data: dict[str, torch.Tensor] = {}
        self.window = self.cache.setdefault("window_size", 6)

    def load_index(self, file: str) -> None:
        numbers = Path(self.path(cache_key="data_dir"), file).read_text().split()
        self.data[file] = torch.tensor([float(number) for number in numbers]).reshape(-1, self.window)
        self.indices.append([file, int(self.data[file][0, 0] > 0)])

    def __getitem__(self, ix: int) -> Any:
        file, label = self.indices[ix]
        return self.data[file].clone(), label, ix


class Recurrent(nn.Module):
    """An LSTM over windows."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(size, 8, batch_first=True), nn.Linear(8, classes)

    def forward(self, inputs: torch.Tensor) -> Any:
        """Logits, and the hidden state."""
        hidden, _ = self.lstm(inputs)
        return self.out(hidden[:, -1]), hidden


class OverWindows(Trainer):
    """Items are tuples; weights of the loss are drawn; the monitored score is told as early releases had it."""

    def _init_nn_model(self) -> None:
        self.nn["net"] = Recurrent(self.cache.setdefault("window_size", 6), self.cache.setdefault("num_class", 2))

    def _set_monitor_metric(self) -> None:
        self.cache["monitor_metric"] = "accuracy", "maximize"

    def _set_log_headers(self) -> None:
        self.cache["log_header"] = "loss|accuracy,f1"

    def iteration(self, batch: Any) -> dict[str, Any]:
        inputs, labels = batch[0].to(self.device["gpu"]).float(), batch[1].to(self.device["gpu"]).long()
        out, _ = self.nn["net"](inputs)
        weights = torch.randint(1, 101, (2,)).to(self.device["gpu"]).float()
        loss = functional.cross_entropy(out, labels, weight=weights)
        score = self.new_metrics()
        score.add(out.argmax(1), labels)
        averages = self.new_averages()
        averages.add(loss.item(), len(inputs))
        return {"loss": loss, "averages": averages, "metrics": score, "indices": batch[2]}

    def new_metrics(self) -> Prf1a:
        return Prf1a()


class OwnDivision(COINNDataHandle):
    """Prepares its data itself."""

    def prepare_data(self) -> dict[str, Any]:
        self.cache["prepared"] = True
        files = sorted(path.name for path in Path(self.state["baseDirectory"], "data").iterdir())
        return init_k_folds(files, self.cache, self.state)


def test_a_recurrent_network_over_tuples_trains(tmp_path: Path) -> None:
    write_sites(tmp_path)
    code = UserCode(OverWindows, Windows, OwnDivision)
    own = {"task_id": Computation.TUMOURS, "agg_engine": Computation.ENGINE, "split_ratio": [0.8, 0.1, 0.1]}
    told = {"task_id": None, "split_ratio": None, "num_class": None, "start_powerSGD_iter": 2}
    runs = [site_run(tmp_path, name, code=code, own=own, **told) for name in SIZES]
    report = train(runs)["local1"]
    assert runs[0].cache["task_id"] == Computation.TUMOURS
    assert type(runs[0].cache["task_id"]) is str
    assert runs[0].cache["prepared"]
    assert Path(runs[0].cache["split_dir"]).parts[-2:] == ("Tumour-Classification", "splits")
    assert runs[0].cache["num_class"] == 2
    first, *others = (dict(run.trainer.nn["net"].state_dict()) for run in runs)
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)
    assert report["log_header"] == "loss|accuracy,f1,Precision,Recall"
    assert len(report["validation_log"][0]) == 5
    assert report["best_val_score"] == max(line[1] for line in report["validation_log"])


def test_an_argument_that_nobody_gave_is_not_there() -> None:
    cache = cached_arguments({}, {"mode": "train"})
    assert cache.setdefault("num_class", 2) == 2
    assert "split_dir" not in cache


class WithoutBias(Trainer):
    """All parameters have one shape; one of them gets no gradient."""

    def _init_nn_model(self) -> None:
        self.nn["model"] = nn.Sequential(*(nn.Linear(30, 30, bias=False) for _ in range(3)))
        self.nn["model"].unused = nn.Linear(30, 30, bias=False)

    def iteration(self, batch: Any) -> dict[str, Any]:
        out = self.nn["model"][2](self.nn["model"][1](self.nn["model"][0](batch["inputs"])))[:, :2]
        score = self.new_metrics()
        score.add(out.argmax(1), batch["labels"])
        return {"loss": functional.cross_entropy(out, batch["labels"]), "metrics": score}


def test_parameters_of_one_shape_and_without_gradient_are_as_any_other(tmp_path: Path) -> None:
    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, code=UserCode(WithoutBias, Patients), epochs=2) for name in SIZES]
    lines = train(runs)["local0"]["train_log"]
    assert lines[1][0] < lines[0][0]


class Normalised(Trainer):
    """Batch normalisation."""

    def _init_nn_model(self) -> None:
        self.nn["model"] = nn.Sequential(nn.Linear(30, 8), nn.BatchNorm1d(8), nn.ReLU(), Net(8, 2))


def test_running_statistics_are_those_of_all_sites_and_it_is_told(tmp_path: Path, caplog: Any) -> None:
    write_sites(tmp_path)
    code = UserCode(Normalised, Patients)
    runs = [
        site_run(tmp_path, name, code=code, options={"dataloader_args": {"train": {"drop_last": True}}})
        for name in SIZES
    ]
    train(runs)
    first, second = (run.trainer.nn["model"].get_submodule("1") for run in runs[:2])
    assert torch.equal(first.running_var, second.running_var)
    assert "trained with statistics of the batches of each site" in caplog.text


class BatchStatistics(Trainer):
    """Normalises over the batch, also when it is asked."""

    def _init_nn_model(self) -> None:
        normalised = nn.BatchNorm1d(8, track_running_stats=False)
        self.nn["model"] = nn.Sequential(nn.Linear(30, 8), normalised, nn.ReLU(), Net(8, 2))


@pytest.mark.parametrize("learner", [False, True])
def test_a_last_batch_of_one_item_stops_nobody_who_normalises_over_batches(
    tmp_path: Path, caplog: Any, learner: bool
) -> None:
    write_sites(tmp_path, {"local0": 27, "local1": 50})
    files = sorted(path.name for path in (tmp_path / "local0" / "in" / "data").iterdir())
    (tmp_path / "local0" / "in" / "splits").mkdir()
    split = {"train": files[:9], "validation": files[9:18], "test": files[18:]}
    (tmp_path / "local0" / "in" / "splits" / "one.json").write_text(json.dumps(split))
    code = UserCode(BatchStatistics, Patients)
    sites = ["local0", "local1"]
    runs = [site_run(tmp_path, name, sites, code=code, epochs=2, options={"reduced": learner}) for name in sites]
    if learner:
        train_with(runs, COINNReducer)
    else:
        train(runs)
    assert sum(runs[0].report()["test_sums"]["metrics"]) == 9 + len(runs[1].handle.dataset["test"])
    assert caplog.text.count("a last batch of one item is too small for batch normalisation") == 1
    assert torch.equal(*(run.trainer.nn["model"].get_submodule("0").bias for run in runs))


@given(st.integers(1, 40), st.lists(st.integers(0, 60), max_size=3))
def test_no_batch_that_is_scored_has_one_item(size: int, lengths: list[int]) -> None:
    found = without_single(size, lengths)
    assert found >= size
    assert size == 1 or all(length == 1 or length % found != 1 for length in lengths)


def test_one_site_can_be_tried_out_alone(tmp_path: Path) -> None:
    write_site(tmp_path / "input" / "local1" / "simulatorRun", 0, 30)
    spec = {key: {"value": value} for key, value in {**SPEC, "split_ratio": None, "num_folds": 3}.items()}
    (tmp_path / "inputspec.json").write_text(json.dumps([{}, spec]))
    runner = SiteRunner(
        "alone", tmp_path, site_index=1, mode="Train", epochs=2, dataloader_args={"train": {"batch_size": 5}}
    )
    reports = runner.run(Trainer, Patients, epochs=1)
    assert [len(report["train_log"]) for report in reports] == [1, 1, 1]
    assert sum(sum(report["test_sums"]["metrics"]) for report in reports) == 30
    folder = tmp_path / "output" / "local1" / "simulatorRun" / "tumours"
    for number, report in enumerate(reports):
        assert json.loads((folder / f"fold_{number}" / "logs.json").read_text()) == report
        for file in (f"best.tumours-{number}.pt", f"latest.tumours-{number}.pt", "validation_log_1.png"):
            assert (folder / f"fold_{number}" / file).is_file()
    with pytest.raises(UsageError, match="does not tell the arguments of site 2"):
        SiteRunner("alone", tmp_path, site_index=2)


def test_durations_are_noted() -> None:
    cache: dict[str, Any] = {}
    assert duration(cache, time.time() - 2, key="spent") >= 2
    assert len(cache["spent"]) == 1


class Early(io.COINPyService):
    """A service as the first releases had it."""

    def _local(self, msg: dict[str, Any]) -> Any:
        return lambda *arguments: {"output": {"site": msg["data"]["input"], "given": [*arguments]}}

    def _local_compute_args(self, msg: dict[str, Any]) -> Any:
        return [Patients, Trainer]


class Later(Early):
    """A service as release 2.0 had it, and a little earlier."""

    def get_local(self, msg: dict[str, Any]) -> Any:
        return super().get_local(msg), Trainer

    def get_remote(self, msg: dict[str, Any]) -> Any:
        return lambda *arguments: {"output": {"given": [*arguments]}}

    def get_remote_compute_args(self, msg: dict[str, Any]) -> Any:
        return (Trainer,)


def test_services_of_each_release_tell_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr(io, "_server", [lambda local, remote: served.append((local, remote))])
    for kind in (Early, Later):
        kind(verbose=False).start()
    data = {"input": 1, "state": {}}
    assert served[0][0](data)["output"] == {"site": 1, "given": [None, Patients, Trainer]}
    assert served[1][0](data)["output"] == {"site": 1, "given": [None, Trainer]}
    assert served[1][1](data)["output"] == {"given": [None, Trainer]}
    with pytest.raises(NotImplementedError, match="get_remote must be implemented"):
        served[0][1](data)
