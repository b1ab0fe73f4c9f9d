"""The study over five sites of FreeSurfer volumes: its data are for plumbing, scores prove nothing here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.federated.fsv import FOLDER
from tests.federated.lab import study
from weft.federated.study import simulate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the volumes are not there: {FOLDER}"),
]


def _written(strategy: Any) -> dict[str, Any]:
    sites = {f"site{number}": {"arrays": {"tests.federated.fsv.volumes": {"site": number}}} for number in range(5)}
    return study(
        sites,
        dataset__standardize=True,
        model={"MLP": {"in_features": 66, "hidden": [256, 128, 64, 32], "out_features": 2}},
        training__epochs=10,
        training__batch_size=16,
        training__optimizer={"Adam": {"lr": 0.001}},
        federation__strategy=strategy,
    )


@pytest.mark.parametrize(
    "strategy",
    ["dSGD", "FedAvg", "FedProx", "FedAvgM", "FedAdam", "FedYogi", "SCAFFOLD", "FedBN", "PowerSGD", "rankDAD"],
)
def test_every_strategy_finishes_the_study(strategy: str, tmp_path: Path) -> None:
    done = simulate(_written(strategy), out=tmp_path / "study")
    assert done.result["status"] == "finished"
    assert sum(site["items"]["train"] for site in done.result["sites"].values()) > 200


def test_low_rank_strategies_move_less(tmp_path: Path) -> None:
    moved = {}
    few = {"PowerSGD": {"rank": 2, "warmup_steps": 0}}
    for name, strategy in {"dSGD": "dSGD", "PowerSGD": few, "rankDAD": {"rankDAD": {"rank": 5}}}.items():
        done = simulate(_written(strategy), out=tmp_path / name)
        kinds = [site["bytes"]["by_kind"] for site in done.result["sites"].values()]
        asked = ("opening", "control", "scores", "epoch")
        moved[name] = sum(
            each["sent"] + each["received"] for kind in kinds for word, each in kind.items() if word not in asked
        )
    assert moved["PowerSGD"] <= moved["dSGD"] / 10
    assert moved["rankDAD"] <= moved["dSGD"] / 3
