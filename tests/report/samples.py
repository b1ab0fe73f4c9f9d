"""Run directories as training leaves them, written through the API of `weft.runs`; numbers are drawn, not trained."""

from __future__ import annotations

import math
import random
from functools import cache
from pathlib import Path
from typing import Any

import torch

from weft.actions.scores import write_table
from weft.metrics import build_scores
from weft.runs import RunDirectory, collect_provenance

EXPERIMENT = """\
name: {name}
seed: 42
dataset:
  arrays: {{sklearn.datasets.load_digits: {{return_X_y: true}}}}
  split: {{ratio: [0.7, 0.15, 0.15], stratified: true}}
model:
  component:
    SmallCNN: {{in_channels: 1, classes: 10}}
training:
  task: classification
  epochs: {epochs}
  batch_size: 64
  optimizer: {{AdamW: {{lr: 0.001}}}}
  scheduler: {{OneCycleLR: {{max_lr: 0.01}}}}
  monitor: {{metric: loss, mode: min, patience: 10}}
run:
  observers: [{{Notify: {{url: "mailtos://me:hunter2@example.org"}}}}]
"""


@cache
def provenance(command: tuple[str, ...] = ("weft", "train")) -> dict[str, Any]:
    """Where the sample runs come from; collected once, for it asks git and the list of packages."""
    return collect_provenance("3c" * 32, {"seed": 42}, list(command))


def sample_run(
    path: Path, *, name: str = "digits", labels: list[str] | None = None, epochs: int = 30, status: str = "finished"
) -> RunDirectory:
    """A classification run with everything in it."""
    labels = labels if labels is not None else [str(digit) for digit in range(10)]
    with RunDirectory.create(path) as run:
        run.experiment_file.write_text(EXPERIMENT.format(name=name, epochs=max(epochs, 30)))
        command = ("weft", "train", f"{name}.yaml", "--out", "runs/x", "--password", "hunter2")
        run.write_json(run.provenance_file, provenance(command) | {"device": "cpu", "data": {"digest": "9f" * 32}})
        sizes = {"train": 1257, "validation": 270, "test": 270}
        run.write_json(run.data_file, {split: _data(size, labels) for split, size in sizes.items()})
        best = _write_history(run, epochs)
        scores = {split: _write_scores(run, split, size, labels) for split, size in sizes.items()}
        run.write_result(_result(status, scores, epochs, best))
    return run


def sample_folds(path: Path, folds: int = 5) -> RunDirectory:
    """A k-fold run: its folds and their summary."""
    with RunDirectory.create(path) as parent:
        parent.experiment_file.write_text(EXPERIMENT.format(name="digits, 5 folds", epochs=30))
        parent.write_json(parent.provenance_file, provenance())
        accuracies = []
        for number in range(1, folds + 1):
            fold = sample_run(parent.fold(number), epochs=10 + number)
            result = fold.result() or {}
            accuracies.append(0.94 + 0.011 * (number * 7 % 5))
            result["scores"]["validation"] = {"loss": 0.2 - number / 100, "accuracy": accuracies[-1]}
            fold.write_result(result)
        mean = sum(accuracies) / folds
        spread = math.sqrt(sum((value - mean) ** 2 for value in accuracies) / (folds - 1))
        scores = {
            "loss": {"mean": 0.17, "standard_deviation": 0.0158, "pooled": 0.1702},
            "accuracy": {"mean": mean, "standard_deviation": spread, "pooled": mean},
        }
        parent.write_json(parent.summary_file, {"folds": [f"fold-{n}" for n in range(1, folds + 1)], "scores": scores})
    return parent


def _data(size: int, labels: list[str]) -> dict[str, Any]:
    share, rest = divmod(size, len(labels))
    counts = {label: share + (index < rest) for index, label in enumerate(labels)}
    return {"items": size, "class_counts": counts, "inputs": {"shape": [1, 8, 8], "dtype": "float32"}}


def _write_history(run: RunDirectory, epochs: int) -> int:
    draw, history, steps = random.Random(0), run.history(), run.steps()
    losses = []
    for epoch in range(1, epochs + 1):
        train = 2.3 * math.exp(-epoch / 6) + 0.01 + draw.random() * 0.02
        losses.append(2.2 * math.exp(-epoch / 5) + 0.08 + 0.004 * epoch + draw.random() * 0.02)
        accuracy = 1 - 0.9 * math.exp(-epoch / 4) - 0.03 + draw.random() * 0.01
        rate = 0.01 * math.sin(math.pi * (epoch - 0.5) / epochs) + 1e-5
        history.append(
            {
                "epoch": epoch, "step": epoch * 20, "learning_rate": rate, "train_loss": train,
                "validation_loss": losses[-1], "validation_accuracy": accuracy,
                "validation_f1": accuracy - 0.02 * draw.random(), "validation_auroc": min(1.0, accuracy + 0.03),
                "seconds_train": 0.4, "seconds_validation": 0.05, "items_per_second": 3000 + 300 * draw.random(),
            }
        )  # fmt: skip
        steps.append({"step": epoch * 20, "epoch": epoch - 1, "loss": train, "learning_rate": rate})
    history.close()
    steps.close()
    return losses.index(min(losses)) + 1 if losses else 0


def _write_scores(run: RunDirectory, split: str, size: int, labels: list[str]) -> dict[str, float]:
    draw = random.Random(split)
    counts = [[0] * len(labels) for _ in labels]
    for index in range(size):
        truth = index % len(labels)
        wrong = draw.random() < (0.004 if split == "train" else 0.05)
        counts[truth][(truth + draw.choice([1, 1, 1, 3, 7])) % len(labels) if wrong else truth] += 1
    right = sum(counts[index][index] for index in range(len(labels)))
    per_class = {label: _class_scores(counts, index) for index, label in enumerate(labels)}
    scores = {
        "loss": 0.1234567,
        "accuracy": right / size,
        "f1": right / size - 0.003,
        "auroc": 0.9987,
        "mcc": float("nan"),
    }
    grid = [index / 40 for index in range(41)]
    few = labels[:3]
    details = {
        "confusion_matrix": {"labels": labels, "counts": counts},
        "per_class": per_class,
        "roc": {label: {"fpr": grid, "tpr": [x ** (0.02 + 0.03 * i) for x in grid]} for i, label in enumerate(few)},
        "pr": {
            label: {"recall": grid, "precision": [1 - 0.1 * x ** (8 - i) for x in grid]} for i, label in enumerate(few)
        },
        "calibration": {
            "edges": [index / 10 for index in range(11)],
            "confidence": [None, None, 0.25, 0.36, 0.45, 0.55, 0.66, 0.75, 0.86, 0.97],
            "frequency": [None, None, 0.2, 0.42, 0.39, 0.52, 0.71, 0.78, 0.88, 0.985],
            "count": [0, 0, 3, 4, 4, 6, 9, 14, 30, 200],
        },
    }
    run.write_json(
        run.scores / f"{split}.json",
        {"split": split, "scores": scores, "details": details, "weights_sha256": "ab" * 32},
    )
    return scores


def _class_scores(counts: list[list[int]], index: int) -> dict[str, float]:
    hit, support = counts[index][index], sum(counts[index])
    predicted = sum(row[index] for row in counts)
    precision, recall = hit / max(predicted, 1), hit / max(support, 1)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * hit / max(support + predicted, 1),
        "support": float(support),
    }


def _result(status: str, scores: dict[str, dict[str, float]], epochs: int, best: int) -> dict[str, Any]:
    result: dict[str, Any] = {"status": status, "epochs": epochs, "steps": epochs * 20, "seconds": 75.4}
    if status == "finished":
        monitor = {"metric": "loss", "mode": "min", "best": 0.0987}
        result |= {"scores": scores, "best_epoch": best, "model_sha256": "ab" * 32, "monitor": monitor, "resume": None}
    else:
        result |= {"resume": "weft train --resume runs/x"}
        result["error"] = "the loss is nan in step 123, rows 4, 17 and 33" if status == "failed" else None
    return result


def case_run(
    path: Path,
    kind: str = "multiclass",
    metrics: tuple[Any, ...] = ("accuracy", "f1", "auroc"),
    *,
    sizes: dict[str, int] | None = None,
    seed: int = 0,
    noise: float = 1.0,
    groups: int | None = None,
    experiment: str | None = None,
) -> RunDirectory:
    """A finished run whose scores and rows of cases come from a score book, as training writes them.

    Args:
        kind: of the scores; "segmentation" has small images.
        metrics: the scores.
        sizes: cases of each split.
        seed: of the answers; the truth is the same for all seeds.
        noise: how far answers are from the truth.
        groups: cases per group.
    """
    sizes = sizes or {"train": 60, "validation": 30, "test": 40}
    with RunDirectory.create(path) as run:
        run.experiment_file.write_text(experiment or EXPERIMENT.format(name=path.name, epochs=30))
        extra = {"device": "cpu", "data": {"digest": "9f" * 32, "files": []}, "base": str(path.parent)}
        run.write_json(run.provenance_file, provenance() | extra)
        run.write_json(run.data_file, {split: {"items": size} for split, size in sizes.items()})
        best = _write_history(run, 12)
        scores, names, at = {}, {}, 0
        for split, size in sizes.items():
            names[split] = [f"case {number}" for number in range(at, at + size)]
            at += size
            scores[split] = _score_cases(run, split, names[split], kind, metrics, seed, noise)
        record: dict[str, Any] = {"splits": names}
        if groups is not None:
            record["groups"] = {split: [f"p{int(n[5:]) // groups}" for n in cases] for split, cases in names.items()}
        run.write_json(run.splits_file, record)
        run.write_result(_result("finished", scores, 12, best))
    return run


def _score_cases(
    run: RunDirectory, split: str, names: list[str], kind: str, metrics: tuple[Any, ...], seed: int, noise: float
) -> dict[str, float]:
    book = build_scores(list(metrics), kind=kind, classes=1 if kind == "regression" else 3)
    book.add_curves()
    first = int(names[0][5:])
    truth = torch.Generator().manual_seed(first)
    draws = torch.Generator().manual_seed(1000 * seed + first)
    count = len(names)
    if kind == "regression":
        targets = 50 + 10 * torch.randn(count, 1, generator=truth)
        outputs = targets + 4 * noise * torch.randn(count, 1, generator=draws)
    elif kind == "segmentation":
        targets = torch.randint(0, 3, (count, 1, 8, 8), generator=truth)
        outputs = 3 * torch.nn.functional.one_hot(targets[:, 0], 3).movedim(-1, 1)
        outputs = outputs + noise * torch.randn(count, 3, 8, 8, generator=draws)
    elif kind == "multilabel":
        targets = torch.randint(0, 2, (count, 3), generator=truth)
        outputs = 2.0 * targets - 1 + noise * torch.randn(count, 3, generator=draws)
    else:
        classes = 2 if kind == "binary" else 3
        targets = torch.randint(0, classes, (count,), generator=truth)
        outputs = 2.0 * torch.nn.functional.one_hot(targets, classes) + noise * torch.randn(
            count, classes, generator=draws
        )
    book.update(outputs, targets, loss=torch.tensor(0.5), cases=names)
    content = {"split": split, "scores": book.compute(), "details": book.details(), "weights_sha256": "ab" * 32}
    run.write_json(run.scores / f"{split}.json", content)
    write_table(run.scores / f"{split}.csv", book.case_rows())
    return book.compute()
