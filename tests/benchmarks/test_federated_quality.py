"""The comparison of strategies on real data: what it compares is what it says, and dSGD is as good as one place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks.federated_quality import MARKS, Results, run, tables, write_between_marks
from benchmarks.quality import PARTITIONS, PROBLEMS, SHARES, rows_of, table_of


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_every_row_is_at_one_site(problem: str, partition: str) -> None:
    parts = rows_of(problem, partition)
    together = np.concatenate(parts)
    assert len(parts) == 5
    assert sorted(together.tolist()) == list(range(len(together)))
    if partition == "unequal":
        assert [round(len(part) / len(together), 2) for part in parts] == list(SHARES)
    else:
        frequent = [np.bincount(table_of(problem, partition, site)[1]).max() for site in range(5)]
        assert (
            max(count / len(part) for count, part in zip(frequent, parts, strict=True))
            > 1.5 / PROBLEMS[problem].classes
        )


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS)
def test_dsgd_is_as_good_as_training_in_one_place(problem: str) -> None:
    found = run(problem, "skewed", "dSGD", 0.03, seed=1)
    pooled, alone = found["one place"]["pooled"]["test"], found["one place"]["alone"]["test"]
    assert abs(found["scores"]["test"]["auroc"] - pooled["auroc"]) <= 0.005
    assert found["scores"]["test"]["loss"] < alone["loss"]


def outcome(loss: float, score: float, **more: Any) -> dict[str, Any]:
    scores = {"validation": {"loss": loss}, "test": {"auroc": score, "accuracy": score}}
    return {"scores": scores, "bytes": 2e6, "reached": 3, "epochs": 5, "steps": 10, **more}


def test_the_best_setting_of_the_first_seed_is_shown_for_all(tmp_path: Path) -> None:
    known = {}
    for partition in PARTITIONS:
        for setting, loss in ((0.01, 0.3), (0.03, 0.1), (0.1, 0.2)):
            known[f"tumours {partition} FedAvg {setting} 1"] = outcome(loss, 0.9)
        known[f"tumours {partition} FedAvg 0.1 1"] = {"failed": "the loss is not finite"}
        known[f"tumours {partition} FedAvg 0.03 2"] = outcome(0.4, 0.8)
    text = "\n".join(tables(Results(known, None), ["tumours"], ["FedAvg"], [1, 2]))
    assert text.count("0.8500 (0.800–0.900) | 2.00 | 3 | 0.03") == 2
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    write_between_marks(page, text)
    written = page.read_text()
    assert "old" not in written
    assert text.strip() in written
    assert written.startswith("before")
    assert written.endswith("after\n")


def test_results_are_kept_as_they_come_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def instead(*about: Any) -> dict[str, Any]:
        asked.append(about)
        return outcome(0.1, 0.9)

    monkeypatch.setattr("benchmarks.federated_quality.run", instead)
    file = tmp_path / "results.json"
    Results({}, file).of("tumours", "unequal", "FedAvg", 0.1, 1)
    again = Results(json.loads(file.read_text()), file).of("tumours", "unequal", "FedAvg", 0.1, 1)
    assert again == outcome(0.1, 0.9)
    assert asked == [("tumours", "unequal", "FedAvg", 0.1, 1)]
