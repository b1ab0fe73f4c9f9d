"""Scores of coinstac-dinunet's interface: Weft's classes against scikit-learn, and how classes of users are pooled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from torch.nn import functional

from tests.interop.coinstac.tables import SIZES, Patients, Trainer, site_run, train, write_sites
from weft.errors import ConfigError, DataError
from weft.interop.coinstac import COINNDataHandle
from weft.interop.coinstac.arguments import cached_arguments
from weft.interop.coinstac.headers import header_of, labels_of
from weft.interop.coinstac.metrics import AUCROCMetrics, COINNAverages, COINNMetrics, ConfusionMatrix, Prf1a
from weft.interop.coinstac.running import UserCode
from weft.interop.coinstac.scores import Pooled, framed, pooled_line, summed_attributes, unframed

LABELS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


def added(made: Any, *batches: tuple[Any, Any]) -> Any:
    for pred, true in batches:
        made.add(torch.tensor(pred), torch.tensor(true))
    return made


@given(LABELS, LABELS)
@settings(max_examples=40, deadline=None)
def test_counts_of_two_classes_are_those_of_all_items(one: list[Any], other: list[Any]) -> None:
    parts = [tuple(zip(*part, strict=True)) for part in (one, other)]
    sites = [added(Prf1a(), part) for part in parts]
    pooled = Prf1a()
    pooled.reduce_sites([site.serialize() for site in sites])
    pred, true = ([*parts[0][side], *parts[1][side]] for side in (0, 1))
    assert pooled.accuracy == pytest.approx(reference.accuracy_score(true, pred), abs=1e-5)
    assert pooled.f1 == pytest.approx(reference.f1_score(true, pred, zero_division=0), abs=1e-5)
    assert pooled.precision == pytest.approx(reference.precision_score(true, pred, zero_division=0), abs=1e-5)
    assert pooled.recall == pytest.approx(reference.recall_score(true, pred, zero_division=0), abs=1e-5)
    assert pooled.overlap == pytest.approx(reference.jaccard_score(true, pred, zero_division=0), abs=1e-5)


def test_scores_of_two_sites_are_not_their_mean() -> None:
    few, many = added(Prf1a(), ([1, 1], [1, 1])), added(Prf1a(), ([0] * 49 + [1] * 49, [1] * 98))
    pooled = Prf1a()
    pooled.reduce_sites([few.serialize(), many.serialize()])
    assert pooled.accuracy == 0.51
    assert (few.accuracy + many.accuracy) / 2 == 0.75


def test_masks_of_255_count_as_the_positive_class() -> None:
    assert added(Prf1a(), ([255, 0], [1, 255])).serialize() == [0, 0, 1, 1]


def test_scores_of_several_classes_are_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    true, pred = generator.integers(0, 4, 90), generator.integers(0, 4, 90)
    made, other = added(ConfusionMatrix(num_classes=4), (pred[:50], true[:50])), ConfusionMatrix(num_classes=4)
    made.accumulate(added(other, (pred[50:], true[50:])))
    assert made.precision() == pytest.approx(reference.precision_score(true, pred, average="macro"))
    assert made.recall() == pytest.approx(reference.recall_score(true, pred, average="macro"))
    assert made.accuracy() == pytest.approx(reference.accuracy_score(true, pred))
    assert made.recall(average=False) == pytest.approx(reference.recall_score(true, pred, average=None))
    assert made.f1(average=False) == pytest.approx(reference.f1_score(true, pred, average=None), abs=1e-5)
    again = ConfusionMatrix(num_classes=4)
    again.reduce_sites([json.loads(json.dumps(made.serialize()))])
    assert again.get() == made.get()


def test_the_area_under_the_curve_is_pooled_within_its_bound() -> None:
    generator = np.random.default_rng(1)
    true = generator.integers(0, 2, 400)
    chance = 1 / (1 + np.exp(-(generator.normal(size=400) * 4 + 3 * true)))
    sites = [added(AUCROCMetrics(), (chance[part], true[part])) for part in (slice(0, 30), slice(30, 400))]
    pooled = AUCROCMetrics()
    pooled.reduce_sites([site.serialize() for site in sites])
    exact = reference.roc_auc_score(true, chance)
    assert abs(pooled.auc() - exact) <= pooled.bound() < 5e-3
    one_class = added(AUCROCMetrics(), ([0.2, 0.9], [1, 1]))
    assert np.isnan(one_class.auc())
    pooled.accumulate(one_class)
    assert 0.5 < pooled.auc() < 1


@pytest.mark.parametrize(
    ("made", "pred", "true", "message"),
    [
        (Prf1a(), [0, 1], [0], "2 predictions for 1 labels"),
        (Prf1a(), [0, 3], [0, 1], "predictions are from 0 to 3, but there are 2 classes"),
        (ConfusionMatrix(num_classes=3), [0, 1], [0, 3], "labels are from 0 to 3, but there are 3 classes"),
        (AUCROCMetrics(), [-2.0, 1.5], [0, 1], "values from -2.0 to 1.5"),
    ],
)
def test_what_cannot_be_counted_is_refused(made: Any, pred: Any, true: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        added(made, (pred, true))


def test_averages_count_items() -> None:
    one, other = COINNAverages(num_averages=2), COINNAverages(num_averages=2)
    one.add(2.0, 3), one.add(1.0, 1, 1)
    other.add(4.0, 1)
    one.accumulate(other)
    assert one.get() == [2.5, 1.0]
    pooled = COINNAverages(num_averages=2)
    pooled.reduce_sites([one.serialize(), other.serialize()])
    assert pooled.get() == [2.8, 1.0]
    one.reset()
    assert one.get() == [0.0, 0.0]


class Errors(COINNMetrics):
    """A class of a user's: sums of squared errors, whose `reduce_sites` averages over sites, wrongly."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.classes, self.names = classes, ["a", "b"]
        self.squares, self.items, self.by_class = 0.0, 0, np.zeros(classes)
        self.cached = None

    def add(self, out: torch.Tensor, labels: torch.Tensor) -> None:
        wrong = (torch.softmax(out.detach(), 1)[:, 1] - labels).double() ** 2
        self.squares += float(wrong.sum())
        self.items += len(labels)
        self.by_class[0] += float(wrong[labels == 0].sum())

    def accumulate(self, other: Any) -> None:
        self.squares += other.squares
        self.items += other.items
        self.by_class = self.by_class + other.by_class

    def mean(self) -> float:
        return self.squares / max(self.items, 1)

    def get(self, *args: Any, **kw: Any) -> list[float]:
        return [self.mean()]

    def serialize(self) -> Any:
        return [self.mean()]

    def reduce_sites(self, scores: Sequence[Any]) -> None:
        self.squares, self.items = float(np.mean(scores)), 1


class Items(COINNMetrics):
    """Another: keeps every error, and tells its sites' median only."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[float] = []

    def add(self, out: torch.Tensor, labels: torch.Tensor) -> None:
        self.errors += (torch.softmax(out, 1)[:, 1] - labels).abs().tolist()

    def accumulate(self, other: Any) -> None:
        self.errors += other.errors

    def mean(self) -> float:
        return float(np.median(self.errors)) if self.errors else 0.0

    def get(self, *args: Any, **kw: Any) -> list[float]:
        return [self.mean()]

    def serialize(self) -> Any:
        return self.mean()

    def reduce_sites(self, scores: Sequence[Any]) -> None:
        self.errors = [max(scores)]


class Silent(Items):
    """Another that does not say how sites are combined."""

    reduce_sites = COINNMetrics.reduce_sites


def test_it_is_found_out_whether_states_are_sums() -> None:
    assert sorted(summed_attributes(Prf1a) or []) == ["fn", "fp", "tn", "tp"]
    assert summed_attributes(lambda: ConfusionMatrix(num_classes=3)) == ["matrix"]
    assert summed_attributes(AUCROCMetrics) == ["positives", "negatives"]
    assert summed_attributes(COINNAverages) == ["values", "counts"]
    assert summed_attributes(Errors) == ["squares", "items", "by_class"]
    assert summed_attributes(Items) is None
    assert summed_attributes(COINNMetrics) is None


class Largest(COINNMetrics):
    """Keeps a largest value: no sum."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0.0

    def accumulate(self, other: Any) -> None:
        self.largest = max(self.largest, other.largest)


def test_a_largest_value_is_no_sum() -> None:
    assert summed_attributes(Largest) is None


def test_a_class_without_sums_must_say_how_sites_are_combined() -> None:
    with pytest.raises(ConfigError, match="states of Silent .new_metrics. are no sums, and it has no reduce_sites"):
        Pooled(Silent, "new_metrics")


def trainer_of(kind: type[COINNMetrics]) -> type[Trainer]:
    class Own(Trainer):
        """Scores with a class of the user's."""

        def new_metrics(self) -> COINNMetrics:
            return kind()

        def iteration(self, batch: Any) -> dict[str, Any]:
            out = self.nn["model"](batch["inputs"])
            score = self.new_metrics()
            score.add(out, batch["labels"])
            return {"loss": functional.cross_entropy(out, batch["labels"]), "metrics": score}

    return Own


class Ranked(Trainer):
    def new_metrics(self) -> COINNMetrics:
        return AUCROCMetrics()


class TwoLosses(Trainer):
    def new_averages(self) -> COINNAverages:
        return COINNAverages(num_averages=2)


@pytest.mark.parametrize(
    ("kind", "given_header", "header", "labels"),
    [
        (Trainer, None, "Loss|Accuracy,F1,Precision,Recall", ["Loss", "Accuracy", "F1", "Precision", "Recall"]),
        (
            Trainer,
            "loss|acc,f1",
            "loss|acc,f1,Precision,Recall",
            ["loss (log)", "acc", "f1 (log)", "Precision", "Recall"],
        ),
        (Trainer, ["a", "a", "b", "c", "d", "e"], "a,a,b,c,d", ["a", "a 2", "b", "c", "d"]),
        (Ranked, None, "Loss|AUC", ["Loss", "AUC"]),
        (Ranked, "Loss|Area|Other", "Loss|Area", ["Loss", "Area"]),
        (TwoLosses, None, "Loss,Average 2|Accuracy,F1,Precision,Recall", None),
        (TwoLosses, "G,D|A", "G,D|A,F1,Precision,Recall", ["G", "D", "A", "F1", "Precision", "Recall"]),
    ],
)
def test_each_number_of_a_log_line_has_a_name(kind: Any, given_header: Any, header: str, labels: Any) -> None:
    cache = cached_arguments({}, {"mode": "Train", "log_header": given_header})
    trainer = kind(data_handle=COINNDataHandle(cache=cache))
    assert header_of(trainer) == header
    assert labels is None or labels_of(trainer) == labels
    assert len(labels_of(trainer)) == len(trainer.new_averages().get()) + len(trainer.new_metrics().get())


SPEC = {"monitor_metric": "mean", "metric_direction": "minimize", "log_header": "Loss|Error"}


def errors_of(run: Any) -> list[float]:
    dataset = run.handle.dataset["test"]
    items = [dataset[row] for row in range(len(dataset))]
    with torch.no_grad():
        out = run.trainer.nn["model"].eval()(torch.stack([item["inputs"] for item in items]))
    chances = torch.softmax(out, 1)[:, 1]
    return [float(abs(chance - item["labels"])) for chance, item in zip(chances, items, strict=True)]


def test_sums_of_a_users_class_are_pooled_whatever_it_does_with_sites(tmp_path: Path) -> None:
    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, code=UserCode(trainer_of(Errors), Patients), **SPEC) for name in SIZES]
    report = train(runs)["local1"]
    squares = [error**2 for run in runs for error in errors_of(run)]
    assert report["test_metrics"][1] == pytest.approx(np.mean(squares), abs=1e-6)
    assert report["best_val_score"] == min(line[1] for line in report["validation_log"])
    assert len(report["train_log"]) == 3
    assert pooled_line(runs[0].trainer, [report["test_sums"]])[1] == report["test_metrics"][1]


def test_other_classes_combine_sites_themselves(tmp_path: Path) -> None:
    write_sites(tmp_path)
    runs = [site_run(tmp_path, name, code=UserCode(trainer_of(Items), Patients), **SPEC) for name in SIZES]
    report = train(runs)["local1"]
    assert report["test_metrics"][1] == pytest.approx(max(np.median(errors_of(run)) for run in runs), abs=1e-6)
    assert len(report["train_log"]) == 3
    assert len(report["test_sums"]["metrics"]) == 3  # what each site told, and no item's error
    assert pooled_line(runs[0].trainer, [report["test_sums"]])[1] == report["test_metrics"][1]


def test_what_is_framed_comes_back() -> None:
    assert unframed(torch.cat([framed({"a": [1.5]}), framed([]), framed("é")])) == [{"a": [1.5]}, [], "é"]
