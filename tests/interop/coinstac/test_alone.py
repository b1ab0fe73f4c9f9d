"""One site alone, or the data of all in one place, and what code of users calls there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.interop.coinstac.tables import SIZES, SPEC, Patients, Trainer, site_run, train, write_site, write_sites
from weft.errors import ConfigError, DataError, UsageError
from weft.interop.coinstac import COINNDataHandle
from weft.interop.coinstac.nn import PooledTrainer
from weft.interop.coinstac.running import UserCode
from weft.interop.coinstac.site_runner import SiteRunner


def folder_of(folder: Path, **spec: Any) -> Path:
    """A computation's folder with three sites."""
    start, specs = 0, []
    for name, size in SIZES.items():
        write_site(folder / "input" / name / "simulatorRun", start, size)
        start += size
        specs.append({key: {"value": value} for key, value in {**SPEC, "epochs": 2, **spec}.items()})
    (folder / "inputspec.json").write_text(json.dumps(specs))
    return folder


def weights(file: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["models"]["model"]
    return found


def test_pooled_data_of_one_site_train_as_that_site_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    alone = SiteRunner("tumours", folder, site_index=1).run(Trainer, Patients)
    pooled = PooledTrainer(Trainer, folder, tmp_path / "logs").run(Patients, only_sites=["local1"])
    assert pooled[0]["test_sums"] == alone[0]["test_sums"]
    first = folder / "output" / "local1" / "simulatorRun" / "tumours" / "fold_0" / "best.tumours-0.pt"
    theirs, ours = weights(first), weights(tmp_path / "logs" / "fold_0" / "best.tumours-0.pt")
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_data_of_all_sites_are_trained_on_and_tested_in_one_place(tmp_path: Path) -> None:
    seen: set[str] = set()

    class Noting(Patients):
        def __getitem__(self, ix: int) -> Any:
            if self.mode == "train":
                seen.add(str(self.state["clientId"]))
            return super().__getitem__(ix)

    folder = folder_of(tmp_path, num_folds=3, split_ratio=None)
    reports = PooledTrainer(Trainer, folder, tmp_path / "logs", learning_rate=0.5).run(Noting)
    assert seen == set(SIZES)
    assert sum(sum(report["test_sums"]["metrics"]) for report in reports) == sum(SIZES.values())
    header, line = (tmp_path / "logs" / "global_test_metrics.csv").read_text().splitlines()
    assert header == "Loss,Accuracy,F1,Precision,Recall"
    right = sum(report["test_sums"]["metrics"][0] + report["test_sums"]["metrics"][3] for report in reports)
    assert float(line.split(",")[1]) == pytest.approx(right / sum(SIZES.values()), abs=1e-5)
    assert len(PooledTrainer(Trainer, folder, tmp_path / "one").run(Noting, only_folds=[2])) == 1
    assert [path.name for path in (tmp_path / "one").glob("fold_*")] == ["fold_2"]


class OwnData(COINNDataHandle):
    """Makes its datasets itself."""

    def get_train_dataset(self, dataset_cls: Any) -> Any:
        return self.get_dataset("train", self.split()["train"], dataset_cls=dataset_cls)


def test_a_data_handle_that_makes_its_datasets_itself_is_asked_at_every_site(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    given = {"datahandle_cls": OwnData, "dataloader_args": {"train": {"drop_last": True}}}
    own = PooledTrainer(Trainer, folder, tmp_path / "own", **given).run(Patients)
    given.pop("datahandle_cls")
    assert own == PooledTrainer(Trainer, folder, tmp_path / "plain", **given).run(Patients)


def test_what_pooled_training_cannot_do_is_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    pooled = PooledTrainer(Trainer, folder, tmp_path / "logs")
    with pytest.raises(UsageError, match="there is no site local9") as raised:
        pooled.run(Patients, only_sites=["local9"])
    assert "known are: local0, local1, local2" in str(raised.value)
    with pytest.raises(UsageError, match="there is no fold 4"):
        pooled.run(Patients, only_folds=[4])
    specs = json.loads((folder / "inputspec.json").read_text())
    specs[1]["learning_rate"]["value"] = 0.5
    (folder / "inputspec.json").write_text(json.dumps(specs))
    with pytest.raises(ConfigError, match="learning_rate is 0.01 at site local0 and 0.5 at local1"):
        PooledTrainer(Trainer, folder, tmp_path / "logs").run(Patients)


class Calling(Trainer):
    """Calls what trainers of the original have."""

    said: dict[str, Any] = {}

    def init_nn(self, **kw: Any) -> None:
        super().init_nn(**kw)
        self._set_gpus()

    def set_monitor_metric(self) -> None:
        super().set_monitor_metric()
        self.cache["monitor_metric"], self.cache["metric_direction"] = "accuracy", "maximize"

    def save_predictions(self, dataset: Any, its: dict[str, Any]) -> None:
        if not type(self).said:
            network = self.nn["model"]
            network.train()
            averages, metrics = self.evaluation("test", [dataset, None], save_pred=False)
            assert network.training
            network.eval()
            type(self).said = {"averages": averages.get(), "metrics": metrics.get(), "count": metrics.tp + metrics.tn}


def test_trainers_may_call_what_those_of_the_original_have(tmp_path: Path) -> None:
    write_sites(tmp_path)
    Calling.said = {}
    runs = [site_run(tmp_path, "local0", ["local0"], code=UserCode(Calling, Patients), epochs=1)]
    report = train(runs)["local0"]
    assert [*Calling.said["averages"], *Calling.said["metrics"]] == pytest.approx(report["test_metrics"])


def test_what_trainers_have_no_more_is_told_with_what_to_do(tmp_path: Path) -> None:
    class Missing(Trainer):
        def iteration(self, batch: Any) -> dict[str, Any]:
            self.train_local(None, None)
            return {}

    write_sites(tmp_path)
    with pytest.raises(DataError, match=r"test_alone\.py:\d+: iteration failed: .* SiteRunner trains a site alone"):
        train([site_run(tmp_path, "local0", ["local0"], code=UserCode(Missing, Patients), epochs=1)])
