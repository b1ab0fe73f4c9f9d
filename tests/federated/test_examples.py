"""The studies among the examples train, and learn what there is to learn."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.federated.study import simulate

EXAMPLES = Path(__file__).parents[2] / "examples"
QUIET = ["run.device=cpu", "run.num_workers=0", "run.progress=false"]


@pytest.mark.slow
def test_a_3d_network_learns_over_four_sites_what_volumes_show(tmp_path: Path) -> None:
    done = simulate(EXAMPLES / "volumes_study.yaml", QUIET, out=tmp_path / "study")
    assert done.result["sites"].keys() == {"north", "south", "east", "west"}
    assert done.scores["test"]["auroc"] > 0.9
    assert done.result["model_sha256"] is not None  # all sites end with the same weights


@pytest.mark.slow
def test_the_study_of_freesurfer_volumes_trains(tmp_path: Path, shared_data: Path) -> None:
    if not (shared_data / "fsv_sites").is_dir():
        pytest.skip(f"no {shared_data / 'fsv_sites'}")
    done = simulate(EXAMPLES / "fsv_study.yaml", [*QUIET, "training.epochs=8"], out=tmp_path / "study")
    assert sum(site["items"]["train"] for site in done.result["sites"].values()) > 200
    history = (done.path / "history.csv").read_text().splitlines()
    losses = [float(line.split(",")[history[0].split(",").index("train_loss")]) for line in history[1:]]
    assert losses[-1] < losses[0]  # its scores prove nothing: a site does not tell about another
