"""Sites of coinstac-dinunet's interface train together: the loop, folds, splits, tests, and what odd sites do."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.interop.coinstac.tables import (
    SIZES,
    Patients,
    Probable,
    Trainer,
    site_run,
    to_the_end,
    train,
    write_site,
    write_sites,
)
from weft.engine import Together
from weft.errors import CheckpointError, ConfigError
from weft.interop.coinstac.metrics import Prf1a
from weft.interop.coinstac.running import SiteRun, UserCode
from weft.interop.coinstac.scores import pooled_line

SLOW = pytest.mark.slow
OTHERS = ("powerSGD", "rankDAD", "FedAvg", "SCAFFOLD")


def weights(run: SiteRun) -> dict[str, torch.Tensor]:
    assert run.run is not None
    return {name: value.clone() for name, value in run.run.state.model.state_dict().items()}


def split_of(run: SiteRun, name: str) -> list[str]:
    return [str(file) for file in run.handle.split()[name]]


@pytest.fixture
def trained(tmp_path: Path) -> list[SiteRun]:
    write_sites(tmp_path)
    runs = [site_run(tmp_path, name) for name in SIZES]
    train(runs)
    return runs


def test_sites_end_with_the_same_weights_and_tell_the_same(trained: list[SiteRun]) -> None:
    reports = [run.report() for run in trained]
    for run in trained[1:]:
        for name, value in weights(trained[0]).items():
            assert torch.equal(value, weights(run)[name]), name
    for report in reports[1:]:
        assert {**report, "traffic": None} == {**reports[0], "traffic": None}
    assert len(reports[0]["train_log"]) == len(reports[0]["validation_log"]) == 3
    assert reports[0]["train_log"][-1][0] < reports[0]["train_log"][0][0]  # the loss fell
    assert reports[0]["test_metrics"][1] > 0.85


def test_scores_are_those_of_all_items_together(trained: list[SiteRun]) -> None:
    right = total = hits = wrong = 0
    for run in trained:
        dataset = run.handle.dataset["test"]
        for row in range(len(dataset)):
            item = dataset[row]
            guess = int(run.trainer.nn["model"].eval()(item["inputs"][None]).argmax())
            right, total = right + (guess == item["labels"]), total + 1
            hits, wrong = hits + (guess == item["labels"] == 1), wrong + (guess != item["labels"])
    _, accuracy, f1, _, _ = trained[0].report()["test_metrics"]
    assert accuracy == round(right / total, 5)
    assert f1 == round(2 * hits / (2 * hits + wrong), 5)


class Descent(Trainer):
    """Plain gradient descent in float64."""

    def _init_nn_model(self) -> None:
        super()._init_nn_model()
        self.nn["model"].double()

    def _init_optimizer(self) -> None:
        self.optimizer["sgd"] = torch.optim.SGD(self.nn["model"].parameters(), lr=0.1)

    def iteration(self, batch: Any) -> dict[str, Any]:
        return super().iteration({**batch, "inputs": Doubled(batch["inputs"])})


class Doubled:
    """Inputs whose `float()` is float64."""

    def __init__(self, inputs: torch.Tensor) -> None:
        self.inputs = inputs

    def to(self, device: torch.device) -> Doubled:
        return self

    def float(self) -> torch.Tensor:
        return self.inputs.double()


def test_sites_of_unlike_size_train_as_one_place_would(tmp_path: Path) -> None:
    write_sites(tmp_path)
    code = UserCode(Descent, Patients)
    runs = [site_run(tmp_path, name, code=code, batch_size=1000, epochs=4, split_ratio=[1.0]) for name in SIZES]
    train(runs)
    items = [dataset[row] for run in runs for dataset in [run.handle.dataset["train"]] for row in range(len(dataset))]
    inputs = torch.stack([item["inputs"] for item in items]).double()
    labels = torch.tensor([item["labels"] for item in items])
    alone = site_run(tmp_path, "local0", ["local0"], code=code, batch_size=1000, epochs=1, split_ratio=[1.0])
    begun: dict[str, torch.Tensor] = {}

    class Begins(Descent):
        def _init_optimizer(self) -> None:
            begun.update({name: value.clone() for name, value in self.nn["model"].state_dict().items()})
            super()._init_optimizer()

    alone.code = UserCode(Begins, Patients)
    alone.handle, alone.trainer = alone._made(alone.cache)
    train([alone])
    network = alone.trainer.nn["model"]
    network.load_state_dict(begun)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        functional.nll_loss(functional.log_softmax(network(inputs), 1), labels).backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        assert torch.allclose(value, runs[1].trainer.nn["model"].state_dict()[name], rtol=0, atol=1e-12), name


def test_each_file_is_tested_in_one_fold_and_folds_are_pooled(tmp_path: Path) -> None:
    write_sites(tmp_path)
    tested: dict[str, list[str]] = {name: [] for name in SIZES}
    told, counts = [], []
    for fold in ("0", "1", "2"):
        runs = [site_run(tmp_path, name, fold=fold, num_folds=3, split_ratio=None, epochs=1) for name in SIZES]
        reports = train(runs)
        told.append(reports["local0"]["test_sums"])
        counts.append(sum(reports["local0"]["test_sums"]["metrics"]))
        for run in runs:
            assert len(run.cache["splits"]) == 3
            tested[run.site] += split_of(run, "test")
            assert not {*split_of(run, "train")} & {*split_of(run, "test"), *split_of(run, "validation")}
    for name, size in SIZES.items():
        assert len(tested[name]) == len(set(tested[name])) == size
    assert sum(counts) == sum(SIZES.values())
    line = pooled_line(runs[0].trainer, told)
    right = sum(one["metrics"][0] + one["metrics"][3] for one in told)  # true negatives, true positives
    assert line[1] == round(right / sum(SIZES.values()), 5)


def test_split_files_of_a_site_come_before_a_ratio(tmp_path: Path) -> None:
    write_sites(tmp_path)
    files = sorted(file.name for file in (tmp_path / "local0" / "in" / "data").iterdir())
    folder = tmp_path / "local0" / "in" / "mine"
    folder.mkdir()
    given = {"train": files[:20], "validation": files[20:25], "test": files[25:]}
    (folder / "first.json").write_text(json.dumps(given))
    runs = [site_run(tmp_path, name, **({"split_dir": "mine"} if name == "local0" else {})) for name in SIZES]
    train(runs)
    assert runs[0].handle.split() == given
    assert [len(runs[0].handle.dataset[name]) for name in given] == [20, 5, 15]
    assert runs[0].cache["splits"] == {"0": "first.json"}


def test_a_site_with_one_class_or_nothing_to_validate_breaks_nothing(tmp_path: Path) -> None:
    write_site(tmp_path / "local0" / "in", 0, 30)
    write_site(tmp_path / "local1" / "in", 30, 12, classes=[1])
    write_site(tmp_path / "local2" / "in", 60, 8)
    ratios = {"local0": [0.6, 0.2, 0.2], "local1": [0.6, 0.2, 0.2], "local2": [0.5, 0.5]}
    runs = [
        site_run(tmp_path, name, ratios, monitor_metric="auc", split_ratio=ratio, code=UserCode(Probable, Patients))
        for name, ratio in ratios.items()
    ]
    report = train(runs)["local2"]
    assert report["best_val_epoch"] is not None
    assert 0.5 < report["best_val_score"] <= 1
    assert 0.5 < report["test_metrics"][1] <= 1


def test_a_site_without_anything_to_train_on_takes_part_in_the_rest(tmp_path: Path) -> None:
    write_sites(tmp_path)
    files = sorted(file.name for file in (tmp_path / "local1" / "in" / "data").iterdir())
    folder = tmp_path / "local1" / "in" / "splits"
    folder.mkdir()
    (folder / "one.json").write_text(json.dumps({"validation": files[:30], "test": files[30:]}))
    runs = [site_run(tmp_path, name) for name in SIZES]
    reports = train(runs)
    assert reports["local1"]["train_log"] == reports["local0"]["train_log"]
    assert torch.equal(weights(runs[0])["networks.model.out.bias"], weights(runs[1])["networks.model.out.bias"])


def test_tests_alone_score_given_weights(tmp_path: Path, trained: list[SiteRun]) -> None:
    file = tmp_path / "local0" / "in" / "weights.pt"
    trained[0].trainer.save_checkpoint(file)
    splits = {name: {"test": split_of(run, "test")} for name, run in zip(SIZES, trained, strict=True)}
    for name, split in splits.items():
        (tmp_path / name / "in" / "splits").mkdir()
        (tmp_path / name / "in" / "splits" / "s.json").write_text(json.dumps(split))
    path = {"local0": {"pretrained_path": "weights.pt"}}
    runs = [site_run(tmp_path, name, mode="test", **path.get(name, {})) for name in SIZES]
    report = train(runs)["local2"]
    assert report["test_metrics"] == trained[0].report()["test_metrics"]
    assert report["train_log"] == []


def test_tests_alone_need_weights(tmp_path: Path) -> None:
    write_sites(tmp_path)
    with pytest.raises(ConfigError, match="mode is test, but no site has a pretrained_path"):
        train([site_run(tmp_path, name, mode="test") for name in SIZES])


class Slices(Patients):
    """Each patient's features as five items of six."""

    def load_index(self, id: str, file: str) -> None:  # type: ignore[override]
        super().load_index(id, file)
        self.indices.pop()
        self.indices += [[id, file, place] for place in range(5)]

    def __getitem__(self, ix: int) -> Any:
        id, file, place = self.indices[ix]
        values = [float(line) for line in Path(self.path(id, "data_dir"), file).read_text().split()]
        assert self.labels is not None
        return {"inputs": torch.tensor(values[6 * place : 6 * place + 6]), "labels": self.labels[file], "place": place}


class WholePatients(Trainer):
    """Puts the parts of a patient together again."""

    def iteration(self, batch: Any) -> dict[str, Any]:
        return {**super().iteration(batch), "place": batch["place"], "labels": batch["labels"]}

    def save_predictions(self, dataset: Any, its: dict[str, Any]) -> dict[str, Any]:
        file = Path(self.state["outputDirectory"]) / "predictions.csv"
        votes = its["prediction"]()  # as the original's users must
        assert torch.equal(votes, its["prediction"])
        assert its["loss"]().mean() == its["loss"]
        with file.open("a", newline="") as handle:
            csv.writer(handle).writerow([dataset.indices[0][1], len(dataset), *its["place"].tolist()])
        score = self.new_metrics()
        score.add((votes.float().mean() > 0.5).long().reshape(1), its["labels"][:1])
        return {"metrics": score}


def test_with_load_sparse_each_file_is_a_dataset_whose_parts_come_together(tmp_path: Path) -> None:
    write_sites(tmp_path)
    code = UserCode(WholePatients, Slices)
    runs = [site_run(tmp_path, n, code=code, input_size=6, load_sparse=True, batch_size=8, epochs=1) for n in SIZES]
    report = train(runs)["local1"]
    patients = 0
    for run in runs:
        file = Path(run.state["outputDirectory"]) / "predictions.csv"
        rows = list(csv.reader(file.open()))
        assert [row[0] for row in rows] == split_of(run, "test")
        assert all(row[1:] == ["5", "0", "1", "2", "3", "4"] for row in rows)
        patients += len(rows)
    assert sum(report["test_sums"]["metrics"]) == patients


def test_a_limit_on_loading_leaves_out_files(tmp_path: Path) -> None:
    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, load_limit=5, epochs=1) for name in SIZES]
    train(runs)
    assert all(len(run.handle.dataset["train"]) == 5 for run in runs)


def test_a_site_with_less_than_a_batch_trains_though_last_batches_are_left_out(tmp_path: Path) -> None:
    write_sites(tmp_path)
    options = {"dataloader_args": {"train": {"drop_last": True}}}
    names = ["local0", "local2"]
    runs = [site_run(tmp_path, name, names, epochs=1, batch_size=20, options=options) for name in names]
    seen: dict[str, list[int]] = {name: [] for name in names}
    for run in runs:
        plain = run.trainer.iteration
        run.trainer.iteration = (  # type: ignore[method-assign]
            lambda batch, site=run.site, plain=plain, model=run.trainer.nn: (
                seen[site].append(len(batch["labels"])) if model["model"].training else None
            ) or plain(batch)
        )  # fmt: skip
    train(runs)
    assert seen == {"local0": [20], "local2": [15]}  # of 24 and 15 items


class TwoNetworks(Trainer):
    """An encoder and a classifier with optimizers of their own; one layer is frozen, another is never reached."""

    def _init_nn_model(self) -> None:
        self.nn["encoder"] = nn.Sequential(nn.Linear(30, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 8))
        self.nn["classifier"] = nn.Linear(8, 2)
        self.nn["encoder"][0].bias.requires_grad_(False)
        self.nn["classifier"].spare = nn.Linear(3, 3)

    def _init_optimizer(self) -> None:
        self.optimizer["slow"] = torch.optim.SGD(self.nn["encoder"].parameters(), lr=0.01, momentum=0.9)
        self.optimizer["fast"] = torch.optim.Adam(self.nn["classifier"].parameters(), lr=0.01)

    def iteration(self, batch: Any) -> dict[str, Any]:
        out = self.nn["classifier"](self.nn["encoder"](batch["inputs"]))
        loss = functional.cross_entropy(out, batch["labels"])
        score = self.new_metrics()
        score.add(out.argmax(1), batch["labels"])
        return {"loss": loss, "metrics": score}


@pytest.mark.parametrize("engine", ["dSGD", *(pytest.param(name, marks=SLOW) for name in OTHERS)])
def test_several_networks_and_optimizers_train_with_each_engine(tmp_path: Path, engine: str) -> None:
    write_sites(tmp_path)
    code = UserCode(TwoNetworks, Patients)
    runs = [site_run(tmp_path, name, code=code, agg_engine=engine, start_powerSGD_iter=2) for name in SIZES]
    reports = train(runs)
    ends = [weights(run) for run in runs]
    assert all(torch.equal(value, ends[2][name]) for name, value in ends[0].items())
    assert reports["local0"]["train_log"][-1][0] < reports["local0"]["train_log"][0][0]
    assert torch.equal(ends[0]["networks.encoder.0.bias"], torch.zeros(12))


def test_a_checkpoint_has_every_network_and_optimizer(tmp_path: Path) -> None:
    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, code=UserCode(TwoNetworks, Patients), epochs=1) for name in SIZES]
    train(runs)
    file = tmp_path / "best.pt"
    runs[0].trainer.save_checkpoint(file)
    content = torch.load(file, weights_only=True)
    assert [*content["models"]] == ["encoder", "classifier"]
    assert [*content["optimizers"]] == ["slow", "fast"]
    before = weights(runs[0])
    for network in runs[0].trainer.nn.values():
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
    runs[0].trainer.load_checkpoint(file)
    assert all(torch.equal(value, before[name]) for name, value in weights(runs[0]).items())


def test_the_weights_of_the_last_epoch_can_be_had_beside_those_of_the_best(tmp_path: Path) -> None:
    write_sites(tmp_path)
    options = {"folder": tmp_path / "fold"}
    (run,) = runs = [site_run(tmp_path, "local0", ["local0"], epochs=3, score_delta=10.0, options=options)]
    assert train(runs)["local0"]["best_val_epoch"] == 1  # nothing improves by so much
    best = weights(run)
    with run.latest_weights():
        latest = weights(run)
    again = site_run(tmp_path, "local0", ["local0"], epochs=3, score_delta=0.0, patience=9, monitor_metric="never",
                     metric_direction="maximize", code=UserCode(Rising, Patients))  # fmt: skip
    assert train([again])["local0"]["best_val_epoch"] == 3
    assert all(torch.equal(value, weights(again)[name]) for name, value in latest.items())
    assert not torch.equal(best["networks.model.out.bias"], latest["networks.model.out.bias"])
    assert all(torch.equal(value, best[name]) for name, value in weights(run).items())


class Rise(Prf1a):
    """Every further validation is better."""

    times = 0

    def never(self) -> float:
        Rise.times += 1
        return float(Rise.times)


class Rising(Trainer):
    def new_metrics(self) -> Rise:
        return Rise()


def test_weights_of_some_networks_only_may_be_trained_on_but_not_tested(tmp_path: Path, caplog: Any) -> None:
    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, code=UserCode(TwoNetworks, Patients), epochs=1) for name in SIZES]
    train(runs)
    networks = {"classifier": runs[0].trainer.nn["classifier"].state_dict()}
    torch.save({"source": "coinstac", "models": networks, "optimizers": {}}, tmp_path / "local0" / "in" / "some.pt")

    def again(mode: str) -> list[SiteRun]:
        path = {"local0": {"pretrained_path": "some.pt"}}
        code = UserCode(TwoNetworks, Patients)
        return [site_run(tmp_path, name, code=code, mode=mode, epochs=1, **path.get(name, {})) for name in SIZES]

    train(again("train"))
    assert "some.pt has no weights of encoder, which keep theirs" in caplog.text
    with pytest.raises(CheckpointError, match=r"some.pt has no weights of encoder, which would be tested"):
        train(again("test"))


class Counting(TwoNetworks):
    """Draws random numbers, and counts its batches in the cache."""

    def iteration(self, batch: Any) -> dict[str, Any]:
        self.cache["batches"] = self.cache.get("batches", 0) + 1
        self.cache.setdefault("sizes", []).append(len(batch["inputs"]))
        noisy = batch["inputs"] + 0.1 * torch.randn(batch["inputs"].shape)
        return super().iteration({**batch, "inputs": noisy})


@pytest.mark.parametrize(
    ("engine", "every_step"),
    [("powerSGD", True), *(pytest.param(name, name != "powerSGD", marks=SLOW) for name in OTHERS)],
)
def test_a_site_that_dies_goes_on_to_the_same_end(tmp_path: Path, engine: str, every_step: bool) -> None:
    outcomes = []
    for name, deaths in (("undisturbed", ()), ("disturbed", (3, 9, 14, 20, 27))):
        folder = tmp_path / name
        write_sites(folder)
        code = UserCode(Counting, Patients)

        def made(site: str, folder: Path = folder, code: UserCode = code) -> SiteRun:
            options = {"folder": folder / site / "fold", "every_step": every_step}
            return site_run(folder, site, code=code, agg_engine=engine, start_powerSGD_iter=1, options=options)

        for site in SIZES:
            (folder / site / "fold").mkdir()
        runs = {site: made(site) for site in SIZES}
        together = Together([run.participant() for run in runs.values()])
        turns = to_the_end(together, runs, made, deaths)
        assert turns > 27
        end = {site: weights(run) for site, run in runs.items()}
        batches = {site: (run.cache["batches"], run.cache["sizes"]) for site, run in runs.items()}
        outcomes.append((end, {**runs["local1"].report(), "traffic": None}, batches))
    first, second = outcomes
    for site, values in first[0].items():
        assert all(torch.equal(value, second[0][site][name]) for name, value in values.items())
    assert first[1:] == second[1:]


class Numbered(Trainer):
    """Averages the numbers of its batches of training."""

    def iteration(self, batch: Any) -> dict[str, Any]:
        it = super().iteration(batch)
        if self.nn["model"].training:
            self.cache["number"] = self.cache.get("number", 0) + 1
        it["averages"] = self.new_averages()
        it["averages"].add(self.cache["number"], 1)
        return it


def test_a_line_of_the_training_log_is_of_its_epoch_alone(tmp_path: Path) -> None:
    write_sites(tmp_path)
    seen: list[tuple[int, int]] = []

    class Ending(Numbered):
        def on_iteration_end(self, i: int, ep: int, it: dict[str, Any]) -> None:
            seen.append((ep, i))

    run = site_run(tmp_path, "local0", ["local0"], code=UserCode(Ending, Patients))
    lines = train([run])["local0"]["train_log"]
    assert [line[0] for line in lines] == [2.0, 5.0, 8.0]  # three batches in each epoch
    assert seen == [(epoch, batch) for epoch in (1, 2, 3) for batch in (1, 2, 3)]


def test_validation_may_come_every_few_epochs_and_training_ends_without_improvement(tmp_path: Path) -> None:
    write_sites(tmp_path)
    seldom = [site_run(tmp_path, name, epochs=5, validation_epochs=2) for name in SIZES]
    report = train(seldom)["local0"]
    assert len(report["validation_log"]) == 3  # the last epoch is always validated
    assert len(report["train_log"]) == 5
    idle = [site_run(tmp_path, name, epochs=9, patience=2, learning_rate=0.0) for name in SIZES]
    report = train(idle)["local0"]
    assert len(report["train_log"]) == 3
    assert report["best_val_epoch"] == 1
