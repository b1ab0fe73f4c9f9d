"""Scores of labels and probabilities agree with scikit-learn."""

from __future__ import annotations

import math
import warnings

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tests.metrics.helpers import book_of, data_of
from weft.errors import DataError, UsageError
from weft.metrics import build_scores

SEEDS = st.integers(0, 10**6)
ALL = ["accuracy", "balanced_accuracy", "precision", "recall", "f1", "jaccard", "kappa", "mcc"]


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, count=st.integers(2, 60), classes=st.integers(2, 6))
def test_multiclass_scores_equal_scikit_learn(seed: int, count: int, classes: int) -> None:
    outputs, targets = data_of("multiclass", count, seed, classes)
    averages = [
        (name, {"average": how}) for name in ("precision", "recall", "f1", "jaccard") for how in ("micro", "weighted")
    ]
    weighted = [("kappa", {"weights": "linear"}), ("kappa", {"weights": "quadratic"})]
    book = build_scores([*ALL, *averages, *weighted], kind="multiclass", classes=classes)
    book.update(outputs, targets)
    found, truth, said = book.compute(), targets.numpy(), outputs.argmax(1).numpy()
    expected = {
        "accuracy": sk.accuracy_score(truth, said),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, said),
    }
    for how in ("macro", "micro", "weighted"):
        suffix = "" if how == "macro" else f"_{how}"
        for name, function in (
            ("precision", sk.precision_score),
            ("recall", sk.recall_score),
            ("f1", sk.f1_score),
            ("jaccard", sk.jaccard_score),
        ):
            expected[name + suffix] = function(truth, said, average=how, zero_division=0)
    if len(set(truth)) > 1:
        expected["mcc"] = sk.matthews_corrcoef(truth, said)
        labels = list(range(classes))
        expected |= {
            f"kappa{suffix}": sk.cohen_kappa_score(truth, said, labels=labels, weights=weights)
            for suffix, weights in (("", None), ("_linear", "linear"), ("_quadratic", "quadratic"))
        }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, count=st.integers(2, 60))
def test_binary_scores_are_those_of_the_positive_class(seed: int, count: int) -> None:
    outputs, targets = data_of("binary", count, seed)
    targets[0], targets[1] = 0, 1
    book = book_of("binary")
    book.update(outputs, targets)
    found, truth, said = book.compute(), targets.numpy(), (outputs > 0).long().numpy()
    probability = torch.sigmoid(outputs.double()).numpy()
    expected = {
        "accuracy": sk.accuracy_score(truth, said),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, said),
        "precision": sk.precision_score(truth, said, zero_division=0),
        "recall": sk.recall_score(truth, said),
        "sensitivity": sk.recall_score(truth, said),
        "specificity": sk.recall_score(1 - truth, 1 - said),
        "negative_predictive_value": sk.precision_score(1 - truth, 1 - said, zero_division=0),
        "f1": sk.f1_score(truth, said),
        "jaccard": sk.jaccard_score(truth, said),
        "kappa": sk.cohen_kappa_score(truth, said),
        "mcc": sk.matthews_corrcoef(truth, said),
        "auroc": sk.roc_auc_score(truth, probability),
        "average_precision": sk.average_precision_score(truth, probability),
        "brier": sk.brier_score_loss(truth, probability),
        "log_loss": sk.log_loss(truth, probability),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-11, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, count=st.integers(6, 60), classes=st.integers(3, 5))
def test_multiclass_probabilities_equal_scikit_learn(seed: int, count: int, classes: int) -> None:
    outputs, targets = data_of("multiclass", count, seed, classes)
    targets[:classes] = torch.arange(classes)
    book = build_scores(
        ["auroc", "average_precision", "log_loss", "brier", ("top_k_accuracy", {"k": 2})],
        kind="multiclass",
        classes=classes,
    )
    book.update(outputs, targets)
    truth, probability = targets.numpy(), torch.softmax(outputs.double(), 1).numpy()
    hot = numpy.eye(classes)[truth]
    expected = {
        "auroc": sk.roc_auc_score(truth, probability, multi_class="ovr"),
        "average_precision": sk.average_precision_score(hot, probability, average="macro"),
        "log_loss": sk.log_loss(truth, probability, labels=list(range(classes))),
        "brier": ((probability - hot) ** 2).sum(1).mean(),
        "top_2_accuracy": sk.top_k_accuracy_score(truth, outputs.numpy(), k=2, labels=list(range(classes))),
    }
    found = book.compute()
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-11, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, count=st.integers(4, 50), classes=st.integers(1, 4))
def test_multilabel_scores_equal_scikit_learn(seed: int, count: int, classes: int) -> None:
    outputs, targets = data_of("multilabel", count, seed, classes)
    targets[0], targets[1] = 0, 1
    book = book_of("multilabel", classes=classes)
    book.update(outputs, targets)
    found, truth, said = book.compute(), targets.numpy(), (outputs > 0).long().numpy()
    probability = torch.sigmoid(outputs.double()).numpy()
    expected = {
        "accuracy": (truth == said).mean(),
        "exact_match": (truth == said).all(1).mean(),
        "precision": numpy.mean([sk.precision_score(t, s, zero_division=0) for t, s in zip(truth.T, said.T)]),
        "f1": numpy.mean([sk.f1_score(t, s) for t, s in zip(truth.T, said.T)]),
        "balanced_accuracy": numpy.mean([sk.balanced_accuracy_score(t, s) for t, s in zip(truth.T, said.T)]),
        "auroc": numpy.mean([sk.roc_auc_score(t, p) for t, p in zip(truth.T, probability.T)]),
        "brier": ((probability - truth) ** 2).mean(),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-11, abs=1e-12)


def test_the_shapes_of_binary_outputs_mean_the_same() -> None:
    outputs, targets = data_of("binary", 30, 0)
    two = torch.stack((-outputs / 2, outputs / 2), 1)
    values = []
    for logits, labels in (
        (outputs, targets),
        (outputs[:, None], targets[:, None].float()),
        (two, targets.to(torch.int32)),
    ):
        book = book_of("binary")
        book.update(logits, labels)
        values.append(book.compute())
    assert values[1] == pytest.approx(values[0], rel=1e-7, nan_ok=True)
    assert values[2] == pytest.approx(values[0], rel=1e-7, nan_ok=True)


def test_one_hot_targets_are_class_numbers() -> None:
    outputs, targets = data_of("multiclass", 20, 1)
    hot = torch.nn.functional.one_hot(targets, 3).float()
    one, other = book_of("multiclass"), book_of("multiclass")
    one.update(outputs, targets)
    other.update(outputs, hot)
    assert one.compute() == pytest.approx(other.compute(), nan_ok=True)


def test_calibration_error_of_known_probabilities() -> None:
    logits = torch.logit(torch.tensor([0.9, 0.9, 0.9, 0.9, 0.2, 0.2], dtype=torch.float64))
    book = build_scores([("calibration_error", {"bins": 10})], kind="binary", classes=2)
    book.update(logits, torch.tensor([1, 1, 0, 0, 0, 0]))
    assert book.compute()["calibration_error"] == pytest.approx((4 * 0.4 + 2 * 0.2) / 6)
    calibration = book.details()["calibration"]
    assert sum(calibration["count"]) == 6
    assert [value for value in calibration["frequency"] if value is not None] == [0.0, 0.5]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("gather", [True, False])
@pytest.mark.parametrize("label", [0, 1, None])
def test_one_class_or_no_data_gives_nan_and_never_a_crash(kind: str, gather: bool, label: int | None) -> None:
    outputs, targets = data_of(kind, 6, 0)
    book = book_of(kind, gather=gather)
    if label is None:
        book.update(outputs[:0], targets[:0])
    else:
        book.update(outputs, torch.full_like(targets, label))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, details = book.compute(), book.details()
    assert math.isnan(found["auroc"]) or kind == "multiclass"
    if label is None:
        assert all(math.isnan(value) for value in found.values())
    assert details["per_class"]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("gather", [True, False])
def test_outputs_that_are_not_numbers_make_scores_nan_and_no_crash(kind: str, gather: bool) -> None:
    outputs, targets = data_of(kind, 8, 3)
    outputs[2] = float("nan")
    book = book_of(kind, gather=gather)
    book.update(outputs, targets)
    found = book.compute()
    for name in ("auroc", "average_precision", "brier", "log_loss", "calibration_error", "mse", "mae", "rmse"):
        assert math.isnan(found.get(name, float("nan"))), name


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("wrong", [-1, 7, 255])
def test_labels_out_of_range_are_named(kind: str, wrong: int) -> None:
    outputs, targets = data_of(kind, 8, 3)
    targets.view(-1)[4] = wrong
    with pytest.raises(DataError, match=f"found {wrong}"):
        book_of(kind, metrics=["accuracy"]).update(outputs, targets)


def test_labels_out_of_range_are_named_with_many_classes() -> None:
    outputs, targets = data_of("multiclass", 8, 3, classes=200)
    book = build_scores(["accuracy"], kind="multiclass", classes=200)
    book.update(outputs, targets)
    assert book.compute()["accuracy"] == pytest.approx(float((outputs.argmax(1) == targets).double().mean()))
    targets[0] = 200
    with pytest.raises(DataError, match="found 200"):
        book.update(outputs, targets)


@pytest.mark.parametrize(
    ("kind", "outputs", "targets", "told"),
    [
        ("binary", (4, 3), (4,), r"\[n, 2\]; outputs are \[4, 3\]"),
        ("binary", (4,), (4, 2), "targets must be"),
        ("multiclass", (4, 2), (4,), r"must be \[n, 3\]"),
        ("multiclass", (4, 3), (5,), "one row per sample"),
        ("multiclass", (4, 3), (4, 2), "targets must be"),
        ("multilabel", (4, 3), (4,), r"both be \[n, 3\]"),
        ("regression", (4, 2), (4,), "same numbers per sample"),
        ("segmentation", (2, 3, 4, 4), (2, 1, 4, 5), "spatial size"),
        ("segmentation", (2, 4, 4, 4), (2, 1, 4, 4), "out_channels=3"),
        ("segmentation", (2, 3, 4, 4), (2, 3, 4, 4), "spatial"),
    ],
)
def test_shapes_that_do_not_fit_are_told(
    kind: str, outputs: tuple[int, ...], targets: tuple[int, ...], told: str
) -> None:
    book = book_of(kind, metrics=[])
    with pytest.raises(UsageError, match=told):
        book.update(torch.zeros(outputs), torch.zeros(targets, dtype=torch.int64))
