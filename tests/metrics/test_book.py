"""The score book: loss, rows per case, details that are JSON."""

from __future__ import annotations

import json
import math

import pytest
import torch

from tests.metrics.helpers import book_of, data_of
from weft.errors import UsageError
from weft.metrics import KINDS, build_scores


def test_the_loss_is_the_mean_weighted_by_what_each_batch_weighs() -> None:
    book = build_scores([], kind="binary", classes=2)
    book.update(torch.zeros(3), torch.zeros(3), loss=torch.tensor(1.0), weight=3)
    book.update(torch.zeros(1), torch.zeros(1), loss=torch.tensor(5.0))
    assert book.compute() == {"loss": 2.0}
    book.add_loss(torch.tensor(2.0), 4)
    assert book.compute() == {"loss": 2.0}
    assert sum(map(sum, book.details()["confusion_matrix"]["counts"])) == 4


def test_loss_is_always_there_and_undefined_without_any() -> None:
    book = build_scores(["loss", "mse"], kind="regression", classes=1)
    assert list(book.compute()) == ["loss", "mse"]
    assert math.isnan(book.compute()["loss"])
    assert book.mode("loss") == "min"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gather", [True, False])
def test_details_and_rows_are_json_without_nan(kind: str, gather: bool) -> None:
    book = book_of(kind, gather=gather)
    json.dumps([book.details(), book.case_rows()], allow_nan=False)
    book.update(*data_of(kind, 2, 0), cases=["a", "b"], loss=torch.tensor([1.0, 2.0]))
    text = json.dumps([book.details(), book.case_rows()], allow_nan=False)
    assert json.loads(text)[1][0]["case"] == "a"
    assert [row["loss"] for row in book.case_rows()] == [1.0, 2.0]
    assert book.compute()["loss"] == 1.5


def test_rows_of_classes_name_target_prediction_and_probability() -> None:
    book = build_scores(["accuracy"], kind="multiclass", classes=3, class_names=["cat", "dog", "bird"])
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    book.update(logits, torch.tensor([0, 1]), cases=["one", "two"])
    first, second = book.case_rows()
    assert (first["case"], first["target"], first["prediction"]) == ("one", "cat", "cat")
    assert second == pytest.approx(
        {"case": "two", "target": "dog", "prediction": "bird", "probability": 0.5}
        | {"probability_cat": 0.25, "probability_dog": 0.25, "probability_bird": 0.5}
    )


def test_rows_of_one_logit_and_of_two_are_alike() -> None:
    outputs, targets = data_of("binary", 5, 0)
    rows = []
    for logits in (outputs, torch.stack((torch.zeros(5), outputs), 1)):
        book = book_of("binary", metrics=[])
        book.update(logits, targets, cases=list("abcde"))
        rows.append(book.case_rows())
    assert rows[0] == rows[1]
    assert rows[0][0]["probability"] >= 0.5


def test_rows_of_labels_and_of_numbers() -> None:
    book = build_scores([], kind="multilabel", classes=2, class_names=["old", "ill"])
    book.update(torch.tensor([[1.0, -1.0]]), torch.tensor([[1, 1]]), cases=["a"])
    (row,) = book.case_rows()
    assert (row["target_old"], row["prediction_old"], row["target_ill"], row["prediction_ill"]) == (1, 1, 1, 0)
    book = build_scores([], kind="regression", classes=1)
    book.update(torch.tensor([[1.5]]), torch.tensor([2.0]), cases=["a"])
    assert book.case_rows() == [{"case": "a", "target": 2.0, "prediction": 1.5}]
    book = build_scores([], kind="regression", classes=2, class_names=["age", "weight"])
    book.update(torch.tensor([[1.5, 70.0]]), torch.tensor([[2.0, 71.0]]), cases=["a"])
    assert book.case_rows()[0]["prediction_weight"] == 70.0


def test_batches_without_names_make_no_rows() -> None:
    book = book_of("multiclass")
    book.update(*data_of("multiclass", 5, 0))
    assert book.case_rows() == []
    with pytest.raises(UsageError, match="3 case names for 5 samples"):
        book.update(*data_of("multiclass", 5, 0), cases=["a", "b", "c"])


def test_outputs_may_be_overwritten_after_the_update() -> None:
    outputs, targets = data_of("binary", 20, 0)
    book = book_of("binary")
    book.update(outputs, targets, cases=[str(index) for index in range(20)])
    before, rows = book.compute(), book.case_rows()
    outputs.fill_(9.0)
    assert (str(book.compute()), book.case_rows()) == (str(before), rows)


def test_gradients_are_not_kept() -> None:
    outputs, targets = data_of("multiclass", 5, 0)
    outputs.requires_grad_()
    book = book_of("multiclass")
    book.update(outputs, targets, loss=outputs.sum(), cases=list("abcde"))
    assert not any(state.requires_grad for state in [*book.states(), *(book.gatherable() or [])])


def test_low_precision_outputs_are_scored() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        outputs, targets = data_of("multiclass", 12, 0)
        book = book_of("multiclass")
        book.update(outputs.to(dtype), targets)
        assert 0 <= book.compute()["auroc"] <= 1


def test_unknown_scores_have_no_direction() -> None:
    with pytest.raises(UsageError, match="no score 'dice'"):
        book_of("binary").mode("dice")


def test_class_names_must_fit_the_number_of_classes() -> None:
    with pytest.raises(UsageError, match="3 classes, but 2 class names"):
        build_scores([], kind="multiclass", classes=3, class_names=["a", "b"])
    with pytest.raises(UsageError, match="classes >= 2"):
        build_scores([], kind="segmentation", classes=1)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_curves_can_be_collected_whatever_scores_are_asked_for(kind: str) -> None:
    outputs, targets = data_of(kind, 60, 0)
    plain, curved = (build_scores(["accuracy"], kind=kind, classes=3) for _ in range(2))
    curved.add_curves()
    curved.add_curves()  # once is enough, twice does no harm
    for book in (plain, curved):
        book.update(outputs, targets)
    assert plain.compute()["accuracy"] == curved.compute()["accuracy"]
    assert not {"roc", "pr", "calibration"} & set(plain.details())
    details = curved.details()
    assert {"roc", "pr", "calibration"} <= set(details)
    asked = build_scores(["auroc", "calibration_error"], kind=kind, classes=3)
    asked.add_curves()
    asked.update(outputs, targets)
    assert details["calibration"] == asked.details()["calibration"]
    for name, curve in asked.details()["roc"].items():
        area = [trapezoids(part["fpr"], part["tpr"]) for part in (curve, details["roc"][name])]
        assert area[0] == pytest.approx(area[1], abs=0.01)


def trapezoids(x: list[float], y: list[float]) -> float:
    return sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1))


def test_curves_pool_as_sums_do() -> None:
    outputs, targets = data_of("multiclass", 40, 1)
    parts = []
    for rows in (slice(0, 40), slice(0, 13), slice(13, 40)):
        parts.append(build_scores([], kind="multiclass", classes=3))
        parts[-1].add_curves()
        parts[-1].update(outputs[rows], targets[rows])
    whole, first, second = parts
    first.load_states([a + b for a, b in zip(first.states(), second.states(), strict=True)])
    assert first.gatherable() is None
    assert first.details()["roc"] == whole.details()["roc"]


def test_images_and_numbers_have_no_curves_to_collect() -> None:
    for kind in ("regression", "segmentation"):
        book = build_scores([], kind=kind, classes=2)
        states = len(book.states())
        book.add_curves()
        assert len(book.states()) == states


def test_rows_of_sure_predictions_keep_small_probabilities() -> None:
    book = build_scores([], kind="binary", classes=2)
    book.update(torch.tensor([80.0, -80.0]), torch.tensor([1, 0]), cases=["a", "b"])
    rows = book.case_rows()
    assert rows[0]["probability_0"] == pytest.approx(math.exp(-80))
    assert rows[1]["probability_1"] == pytest.approx(math.exp(-80))
