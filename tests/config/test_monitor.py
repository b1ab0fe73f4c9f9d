"""The monitored score: one that is measured, Weft's or the user's own, with a direction that something says."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import weft.config
from tests.config.helpers import valid
from tests.engine.runs import small_experiment, trained
from weft.config import Component, load_experiment
from weft.errors import ConfigError
from weft.tasks import Classification


def margin(outputs: Tensor, targets: Tensor) -> Tensor:
    """Probability of the true class above one half."""
    return outputs.softmax(1).gather(1, targets[:, None])[:, 0] - 0.5


def best_margin(outputs: Tensor, targets: Tensor) -> Tensor:
    return margin(outputs, targets)


best_margin.higher_is_better = True  # type: ignore[attr-defined]


class OwnScore:
    """Share of right answers, as an object with update, compute and reset."""

    _defaults = {"right": torch.tensor(0), "seen": torch.tensor(0)}
    _reductions = {"right": "sum", "seen": "sum"}

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.right, self.seen = torch.tensor(0), torch.tensor(0)

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        self.right = self.right + ((predictions > 0.5).long() == targets).sum()
        self.seen = self.seen + len(targets)

    def compute(self) -> Tensor:
        return self.right / self.seen


class DirectedScore(OwnScore):
    higher_is_better = True


class LateScore(OwnScore):
    """Says its direction when it is made."""

    def __init__(self, higher: bool = True) -> None:
        super().__init__()
        self.higher_is_better = higher


class OwnTask(Classification):
    """Measures what it likes."""

    def build_scores(self, metrics: Any, *, gather: bool = True) -> Any:
        return super().build_scores(["accuracy", "f1"], gather=gather)


@pytest.mark.parametrize(
    ("metrics", "monitor"),
    [
        ([margin], {"metric": "margin", "mode": "max"}),
        ([best_margin], {"metric": "best_margin"}),
        ([Component.of(DirectedScore)], {"metric": "directed_score"}),
        ([Component.of(OwnScore)], {"metric": "own_score", "mode": "max"}),
        ([Component.of(LateScore)], {"metric": "late_score"}),
        (["accuracy", margin], {"metric": "accuracy"}),
        (["f1", {"top_k_accuracy": {"k": 1}}], {"metric": "top_1_accuracy"}),
        ([{"precision": {"average": "macro"}}], {"metric": "precision_macro"}),
        (None, {"metric": "accuracy"}),
    ],
)
def test_scores_that_are_measured_and_have_a_direction_may_be_monitored(metrics: Any, monitor: dict[str, Any]) -> None:
    changes = {"training__metrics": metrics, "training__monitor": monitor}
    experiment = load_experiment(valid(**changes))
    assert experiment.training.monitor.metric == monitor["metric"]


@pytest.mark.parametrize(
    ("metrics", "monitor", "message", "hint"),
    [
        ([margin], {"metric": "margin"}, "nothing says which direction of 'margin' is better", "mode: max"),
        ([margin], {"metric": "marign", "mode": "max"}, "'marign' is not measured", "did you mean 'margin'"),
        ([best_margin], {"metric": "accuracy"}, "'accuracy' is not measured", "add accuracy to training.metrics"),
        ([{"top_k_accuracy": {"k": 3}}], {"metric": "top_5_accuracy"}, "is not measured", "top_3_accuracy"),
        (None, {"metric": "f1"}, "'f1' is not measured", "add f1 to training.metrics; measured are: loss, accuracy"),
    ],
)
def test_other_scores_are_told_with_the_place_before_anything_is_built(
    metrics: Any, monitor: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(valid(training__metrics=metrics, training__monitor=monitor))
    (problem,) = caught.value.problems
    assert problem.path == ("training", "monitor", "metric")
    assert message in problem.message
    assert hint in problem.hint


def test_what_only_built_metrics_can_tell_is_told_before_training() -> None:
    own = {"metrics": [Component.of(OwnScore)]}
    with pytest.raises(ConfigError, match="'own_score' does not say which direction is better"):
        trained(small_experiment(**own, monitor={"metric": "own_score"}))
    with pytest.raises(ConfigError, match="'other' is not measured"):
        trained(small_experiment(**own, monitor={"metric": "other", "mode": "max"}))
    with pytest.raises(ConfigError, match="'mae' is not measured"):
        trained(small_experiment(task=Component.of(OwnTask), metrics=None, monitor={"metric": "mae"}))


@pytest.mark.parametrize(
    ("metric", "name", "mode"), [(best_margin, "best_margin", "max"), (Component.of(LateScore), "late_score", "max")]
)
def test_training_follows_a_score_of_the_users(metric: Any, name: str, mode: str) -> None:
    run, result = trained(small_experiment(metrics=[metric], monitor={"metric": name, "patience": 50}))
    assert run.state.best.mode == mode
    measured = [row[f"validation_{name}"] for row in run.state.history]
    assert result.best_value == max(measured)
    run, _ = trained(small_experiment(task=Component.of(OwnTask), monitor={"metric": "f1"}))
    assert run.state.best.mode == "max"


def test_the_configuration_names_rooms_above_it_in_one_file_only() -> None:
    """What is imported is the import-linter's matter; here, dotted names in text, by which anything could be."""
    rooms = {"metrics", "nets", "tasks", "data", "engine", "runs", "monitor", "actions", "report", "federated"}
    naming = set()
    for file in Path(weft.config.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if any(text == f"weft.{room}" or text.startswith(f"weft.{room}.") for room in rooms) and "\n" not in text:
                naming.add(file.name)
    assert naming == {"catalog.py"}
