"""Objects and functions that others wrote take part in the book."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.metrics.helpers import data_of
from weft.errors import UsageError
from weft.metrics import Metric, ScoreBook, build_scores


class Share:
    """Share of predictions above one half, written without any library."""

    higher_is_better = True

    def __init__(self) -> None:
        self._defaults = {"above": torch.tensor(0.0), "count": torch.tensor(0)}
        self._reductions = {"above": "sum", "count": "sum"}
        self.reset()

    def reset(self) -> None:
        self.above, self.count = self._defaults["above"].clone(), self._defaults["count"].clone()

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        self.above = self.above + (predictions > 0.5).sum()
        self.count = self.count + predictions.shape[0]

    def compute(self) -> Tensor:
        return self.above / self.count


def pool(books: list[ScoreBook]) -> dict[str, float]:
    """Scores of all books together."""
    states = [torch.stack(parts).sum(0) for parts in zip(*(book.states() for book in books), strict=True)]
    gathered = [book.gatherable() or [] for book in books]
    books[0].load_states(states)
    books[0].load_gathered([torch.cat(parts) for parts in zip(*gathered, strict=True)])
    return books[0].compute()


def test_an_own_object_needs_no_library() -> None:
    assert isinstance(Share(), Metric)
    books = [build_scores([Share()], kind="binary", classes=2) for _ in range(2)]
    books[0].update(torch.tensor([1.0, -1.0, 2.0]), torch.tensor([0, 1, 1]))
    books[1].update(torch.tensor([-1.0]), torch.tensor([0]))
    assert books[0].mode("share") == "max"
    assert pool(books)["share"] == 0.5
    books[0].reset()
    assert math.isnan(books[0].compute()["share"])


def test_functions_give_the_mean_over_samples_and_a_column_per_case() -> None:
    def distance(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs()

    books = [build_scores([distance, {"l1": torch.nn.L1Loss()}], kind="regression", classes=1) for _ in range(2)]
    books[0].update(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0]), cases=["a", "b"])
    books[1].update(torch.tensor([6.0]), torch.tensor([0.0]), cases=["c"])
    assert [row["distance"] for row in books[0].case_rows()] == [1.0, 2.0]
    assert pool(books) == pytest.approx({"loss": math.nan, "distance": 3.0, "l1": 3.0}, nan_ok=True)
    with pytest.raises(UsageError, match="which direction"):
        books[0].mode("l1")


def test_a_function_with_a_wrong_shape_is_told() -> None:
    book = build_scores([{"odd": lambda outputs, targets: torch.zeros(3)}], kind="regression", classes=1)
    with pytest.raises(UsageError, match=r"'odd' returned shape \[3\] for 2 samples"):
        book.update(torch.zeros(2), torch.zeros(2))


@pytest.mark.parametrize("metric", [3, Share, object()])
def test_what_is_no_metric_is_refused(metric: Any) -> None:
    with pytest.raises(UsageError):
        build_scores([metric], kind="binary", classes=2)


def test_states_that_do_not_add_up_are_refused() -> None:
    metric = Share()
    metric._reductions = {"above": "max", "count": "sum"}
    with pytest.raises(UsageError, match="'above' by 'max'"):
        build_scores([metric], kind="binary", classes=2)
    metric._defaults = {}
    with pytest.raises(UsageError, match="no states"):
        build_scores([metric], kind="binary", classes=2)


def test_the_same_name_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="asked for twice"):
        build_scores(["f1", "f1"], kind="binary", classes=2)
    with pytest.raises(UsageError, match="asked for twice"):
        build_scores([Share(), Share()], kind="binary", classes=2)


@pytest.fixture(scope="module")
def torchmetrics() -> Any:
    return pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")


def test_torchmetrics_objects_pool_to_the_scores_of_the_whole(torchmetrics: Any) -> None:
    def metrics() -> list[Any]:
        return [
            torchmetrics.Accuracy(task="multiclass", num_classes=3, average="micro"),
            torchmetrics.F1Score(task="multiclass", num_classes=3, average="none"),
            torchmetrics.AUROC(task="multiclass", num_classes=3),
        ]

    outputs, targets = data_of("multiclass", 50, 0)
    whole = build_scores([*metrics(), "accuracy", "auroc"], kind="multiclass", classes=3)
    whole.update(outputs, targets)
    expected = whole.compute()
    assert expected["multiclass_accuracy"] == pytest.approx(expected["accuracy"], rel=1e-6)
    assert expected["multiclass_auroc"] == pytest.approx(expected["auroc"], rel=1e-5)
    assert {"multiclass_f1_score_0", "multiclass_f1_score_2"} <= set(expected)
    assert whole.mode("multiclass_f1_score_2") == "max"
    books = [build_scores([*metrics(), "accuracy", "auroc"], kind="multiclass", classes=3) for _ in range(3)]
    for index, part in enumerate(torch.arange(50).split(9)):
        books[index % 3].update(outputs[part], targets[part])
    assert pool(books) == pytest.approx(expected, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("kind", ["binary", "multilabel", "regression", "segmentation"])
def test_torchmetrics_objects_are_given_what_they_expect(torchmetrics: Any, kind: str) -> None:
    classification = torchmetrics.classification
    metric, ours = {
        "binary": (classification.BinaryCalibrationError(n_bins=15), "calibration_error"),
        "multilabel": (classification.MultilabelF1Score(num_labels=3), "f1"),
        "regression": (torchmetrics.MeanSquaredError(), "mse"),
        "segmentation": (classification.MulticlassAccuracy(num_classes=3, average="micro"), "accuracy"),
    }[kind]
    outputs, targets = data_of(kind, 30, 1)
    outputs = outputs if kind == "regression" else outputs / 4
    book = build_scores([ours, {"theirs": metric}], kind=kind, classes=2 if kind == "regression" else 3)
    for part in torch.arange(30).split(8):
        book.update(outputs[part], targets[part])
    found = book.compute()
    assert found["theirs"] == pytest.approx(found[ours], rel=1e-5)


def test_torchmetrics_that_keep_every_sample_are_refused_where_only_sums_may_leave(torchmetrics: Any) -> None:
    exact = torchmetrics.AUROC(task="binary")
    with pytest.raises(UsageError, match="only sums may leave"):
        build_scores([exact], kind="binary", classes=2, gather=False)
    binned = torchmetrics.AUROC(task="binary", thresholds=100)
    book = build_scores([binned], kind="binary", classes=2, gather=False)
    book.update(*data_of("binary", 40, 0))
    assert 0.5 < book.compute()["binary_auroc"] <= 1


def test_torchmetrics_collections_give_one_score_each(torchmetrics: Any) -> None:
    collection = torchmetrics.MetricCollection([torchmetrics.MeanSquaredError(), torchmetrics.MeanAbsoluteError()])
    book = build_scores([collection, "mse", "mae"], kind="regression", classes=1)
    book.update(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))
    found = book.compute()
    assert found["MeanSquaredError"] == found["mse"] == 2.5
    assert found["MeanAbsoluteError"] == found["mae"] == 1.5
    assert book.mode("MeanAbsoluteError") == "min"
